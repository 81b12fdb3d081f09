"""Numbered SQL files beside a store: `001_name.DIALECT.sql`, 002, and so on."""

from importlib.resources import files

from shared.errors import CorruptStore


def migration_scripts(package: str, dialect: str) -> dict[int, str]:
    """The texts of `package`'s migrations by their numbers, in their order."""
    found = [file for file in files(package).iterdir() if file.name.endswith(f".{dialect}.sql")]
    return {int(file.name.partition("_")[0]): file.read_text() for file in sorted(found, key=lambda file: file.name)}


def to_do(migrations: dict[int, str], current: int, what: str) -> dict[int, str]:
    """The migrations that bring `what` up to date, which is at number `current`, or 0 when it is new.

    Raises `CorruptStore` when it was written by another program than this one: a later one, or one before 0.1.0.
    """
    first, last = min(migrations), max(migrations)
    if current > last:
        raise CorruptStore(f"{what} has version {current}, newer than this program's {last}: update the program.")
    if 0 < current < first:
        raise CorruptStore(
            f"{what} was written by a state of this program before its first release, which is not read any more. "
            "Nothing was written to it: move it away to begin anew."
        )
    return {number: script for number, script in migrations.items() if number > current}
