"""The files of an SQLite database: for one user alone, locked by whoever has it open, and watched, since they can be
removed or replaced under an open database."""

import asyncio
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.errors import FilesGone, StoreUnavailable

WATCH_SECONDS = 0.5
PROCESS_ID_BYTES_MAX = 20

LOCK_SUFFIX = ".lock"

Identity = tuple[int, int]


class Locked(StoreUnavailable):
    """Another program has the lock: `owner` is its process, or "unknown"."""

    def __init__(self, path: Path, owner: str) -> None:
        super().__init__(
            f"{path} is in use by another program (process {owner}). Stop that one first. "
            "One file takes one command service: for another one, set DATA_DIR to another folder."
        )
        self.owner = owner


class DataFiles:
    """The files of the open database at `path`: those that a commit is in, and those that keep others from it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._commits = _identities(str(path), f"{path}-wal")
        self._all = self._commits | _identities(f"{path}-shm", str(path.with_suffix(LOCK_SUFFIX)))

    def check(self) -> None:
        """After a commit and before anybody hears of it, which takes 4 µs. Raises `FilesGone`."""
        self._compare(self._commits)

    async def watch(self) -> None:
        """Check all of them for ever, also while nothing is committed. Raises `FilesGone`."""
        while True:
            self._compare(self._all)
            await asyncio.sleep(WATCH_SECONDS)

    def _compare(self, identities: dict[str, Identity]) -> None:
        for name, identity in identities.items():
            found = _identity(name)
            if found != identity:
                raise FilesGone(
                    f"{name} was {'replaced' if found else 'removed'} while it was open. What is written from now on "
                    f"would be lost. Put the files of {self._path} back, or remove them all, and start again."
                )


def _identities(*names: str) -> dict[str, Identity]:
    return {name: identity for name in names if (identity := _identity(name))}


def _identity(name: str) -> Identity | None:
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def make_file(path: Path) -> None:
    """Make the file and its folder where they are missing, for this user alone; SQLite gives the files beside it the
    same permissions. Raises `StoreUnavailable`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Opened only when it is new: a process that closes an SQLite file loses its locks on it.
        # https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise _unusable(path.parent, error) from error


@contextmanager
def held_lock(path: Path, sole: bool) -> Iterator[None]:
    """Hold a lock on a file beside the database: `sole`, or together with others that are not. The system ends it with
    the process, however that ends.

    Raises `Locked` with the process that is in the way, or `StoreUnavailable` when the file is not ours.
    """
    name = path.with_suffix(LOCK_SUFFIX)
    try:
        # Where the name leads to something else, that is neither followed nor written to.
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise _not_ours(name) from error
        raise _unusable(name.parent, error) from error
    try:
        _take_lock(lock, name, path, sole)
        yield
    finally:
        os.close(lock)


def _take_lock(lock: int, name: Path, path: Path, sole: bool) -> None:
    status = os.fstat(lock)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_size > PROCESS_ID_BYTES_MAX:
        raise _not_ours(name)
    owner = os.read(lock, PROCESS_ID_BYTES_MAX)
    if owner and not owner.isdigit():
        raise _not_ours(name)
    try:
        fcntl.flock(lock, (fcntl.LOCK_EX if sole else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(path, owner.decode() or "unknown") from None
    if _identity(str(name)) != (status.st_dev, status.st_ino):
        raise StoreUnavailable(f"{name} was removed a moment ago, by whoever removes the data. Start again.")
    process_id = str(os.getpid()).encode()
    try:
        os.pwrite(lock, process_id, 0)
        os.ftruncate(lock, len(process_id))
    except OSError as error:
        raise _unusable(name.parent, error) from error


def _not_ours(name: Path) -> StoreUnavailable:
    return StoreUnavailable(f"{name} is no lock file of this program. It was left as it is: move it away.")


def _unusable(folder: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"the data folder {folder} can't be used: {error.strerror}. Set DATA_DIR to a folder where this user may write "
        "and the disk has room."
    )
