"""The data home as one file, and back: facts, ledger, models, warehouse, builds, status, the list of the erased.

Belongs here: what has to be kept to show the same pages and to go on from there. Does not: databases of Dagster and
Superset that lie in a server (`deploy/backup.sh` asks PostgreSQL for them). Not in it: what can be made again at once
(caches, spilled data), locks and logs. Which places there are stands in `data_home.py`.

Taken while nothing is written: locks are waited for, as by a run. A run that is under way waits between two of its
assets; facts, ledger, builds and the status are whole then, and the warehouse is as far as that run has come: where it
is put back, the next run makes the warehouse anew, and pages show the build until then.
"""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from usage_pipeline.config import Settings
from usage_pipeline.lib.data_home import PLACES, files_to_back_up, walk
from usage_pipeline.lib.deliveries import ledger_lock
from usage_pipeline.lib.facts import facts_lock
from usage_pipeline.lib.locks import exclusive
from usage_pipeline.lib.status import status_held
from usage_pipeline.resources import warehouse_of

# top folders below the home
_KEPT = {place.name: place for place in PLACES if place.is_backed_up}
_END = "end-of-backup"


class BackupError(Exception):
    """What is there stands in the way; the message says what, and the remedy."""


def back_up(settings: Settings, to: BinaryIO, progress: Callable[[str], None] = lambda _: None) -> int:
    """Writes the home to a stream as a tar file; returns the number of files.

    Raises BusyError where a run holds what is to be copied for longer than `ingest.wait_seconds`.
    """
    home, wait, files = settings.home, settings.ingest.wait_seconds, 0
    with ExitStack() as held:
        for lock in (facts_lock(settings), ledger_lock(settings)):
            held.enter_context(exclusive(lock, wait, what=str(lock.parent), who="backup", progress=progress))
        held.enter_context(warehouse_of(settings).held())
        with tarfile.open(fileobj=to, mode="w|") as archive:
            for name in _KEPT:
                # written after every run: not kept from it for as long as the rest takes
                with status_held(settings) if name == "status" else nullcontext():
                    files += sum(_add(archive, path, home) for path in _paths(home, name))
            # a tar file that was cut off between two files reads as a whole one
            archive.addfile(tarfile.TarInfo(_END))
    return files


def _paths(home: Path, name: str) -> Iterator[Path]:
    yield from files_to_back_up(home, _KEPT[name])


def _add(archive: tarfile.TarFile, path: Path, home: Path) -> bool:
    """Adds a file as it is when it is opened: another may take its place meanwhile. Returns whether it was there."""
    name = str(path.relative_to(home))
    if path.is_symlink():
        archive.add(path, name, recursive=False)
        return True
    try:
        stream = path.open("rb")
    except FileNotFoundError:  # of no use any more: what holds no lock is replaced whole
        return False
    with stream:
        archive.addfile(archive.gettarinfo(arcname=name, fileobj=stream), stream)
    return True


def restore(home: Path, source: BinaryIO) -> int:
    """Puts a backup into a home that holds nothing yet; returns the number of files.

    Raises BackupError where the home holds data already, or the stream is no backup.
    """
    there = [name for name in _KEPT if any(walk(home / name))]
    if there:
        raise BackupError(
            f"{home} holds {', '.join(there)} already: restore into an empty place, and move that away first"
        )
    files, is_whole = 0, False
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for member in archive:
                if is_whole := member.name == _END:
                    break
                if not _is_ours(member):
                    raise BackupError(f"{member.name}: no part of a data home; this is no backup of ours")
                archive.extract(member, home)
                files += 1
    except tarfile.TarError as error:
        raise BackupError(
            f"not readable as a backup, it may be cut off: {error}; what was put into {home} is not whole"
        ) from error
    if not is_whole:
        raise BackupError(f"the backup is cut off; what was put into {home} is not whole")
    return files


def _is_ours(member: tarfile.TarInfo) -> bool:
    """A file below one of our folders, or a link to its neighbour: nothing that leads out of the home."""
    parts = PurePosixPath(member.name).parts
    if parts[0] not in _KEPT or ".." in parts:
        return False
    return member.isfile() or (member.issym() and "/" not in member.linkname and member.linkname not in ("", ".."))
