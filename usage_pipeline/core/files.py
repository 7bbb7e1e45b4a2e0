"""Files that are there whole or not at all, whenever a run is killed, the disk is full, or the power fails.

And files that are their owner's alone: what is written once and then only read is `SEALED`.

What a writer that was killed leaves has a name that nothing else has (`is_tmp_path`): whoever holds the lock of that
writer may remove it (`data_home.py`).
"""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# DuckDB puts a log and a folder beside the file that it writes
_BESIDE = (".wal", ".tmp")
SEALED, FILE, FOLDER = 0o400, 0o600, 0o700
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}(\.wal|\.tmp)?")


def keep_private() -> None:
    """What this process and its children write from now on is for its owner only; every entry point begins with it."""
    os.umask(0o077)


def make_folder(folder: Path) -> None:
    """A folder and those above it, as far as they are missing, for their owner only whatever the umask is."""
    for path in reversed((folder, *folder.parents)):
        if not path.is_dir():
            path.mkdir(FOLDER)


def seal(folder: Path) -> None:
    """Closes a folder to others, and all in it; its files are only read from now on."""
    for inside in (folder, *folder.rglob("*")):
        if not inside.is_symlink():
            inside.chmod(FOLDER if inside.is_dir() else SEALED)


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """A place beside the target to write a file or a folder to; put in place by one rename when the body ends.

    Where the body raises, nothing of it stays. What is in place is on the disk: a crash of the machine undoes no part.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    tmp_path = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        yield tmp_path
        sync_tree(tmp_path)
        tmp_path.replace(target)
    except BaseException:
        for path in (tmp_path, *(Path(f"{tmp_path}{end}") for end in _BESIDE)):
            remove(path)
        raise
    sync(target.parent)


def is_tmp_path(name: str) -> bool:
    """Whether a file or folder of this name is one that `atomic_write` did not come to the end of."""
    return _UNFINISHED.fullmatch(name) is not None


def sync_tree(path: Path) -> None:
    """`sync` of a file, or of a folder and of everything in it."""
    for inside in path.rglob("*") if path.is_dir() else ():
        if not inside.is_symlink():
            sync(inside)
    sync(path)


def sync(path: Path) -> None:
    """Waits until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
