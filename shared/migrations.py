"""Numbered SQL files beside a store: `001_name.DIALECT.sql`, 002, and so on."""

from importlib.resources import files


def migration_scripts(package: str, dialect: str) -> list[str]:
    """The texts of `package`'s migrations, in their order."""
    found = [file for file in files(package).iterdir() if file.name.endswith(f".{dialect}.sql")]
    return [file.read_text() for file in sorted(found, key=lambda file: file.name)]
