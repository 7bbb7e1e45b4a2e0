"""The data home as one file, and back: facts, history, models, warehouse, builds, status, the list of the erased.

Belongs here: what has to be kept to show the same pages and to go on from there. Does not: databases of Dagster and
Superset that lie in a server (`deploy/backup.sh` asks PostgreSQL for them). Not in it: what can be made again at once
(caches, spilled data), locks and logs. Which places there are stands in `data_home.py`.

Taken while nothing is written: locks are waited for, as by a run. A run that is under way waits between two of its
assets; facts, history, builds and the status are whole then, and the warehouse is as far as that run has come: where it
is put back, the next run makes the warehouse anew, and pages show the build until then.

An archive may come from anybody: `restore` makes regular files and folders and the links `current`, for their owner
only, and takes nothing over from a member but its name and its bytes.
"""

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.files import FILE, SEALED, make_folder
from usage_pipeline.core.locks import file_lock
from usage_pipeline.ingestion.facts import facts_lock
from usage_pipeline.notifications.outbox import outbox_lock
from usage_pipeline.observability.status import status_locked
from usage_pipeline.operations.data_home import PLACES, files_to_back_up, walk
from usage_pipeline.outcomes.database import outcomes_lock
from usage_pipeline.outcomes.records import bring_back, keep
from usage_pipeline.resources import warehouse_of

# top folders below the home
_KEPT = {place.name: place for place in PLACES if place.is_backed_up}
_END = "end-of-backup"


class BackupError(Exception):
    """What is there stands in the way; the message says what, and the remedy."""


def back_up(home: DataHome, wait_seconds: float, to: BinaryIO, progress: Callable[[str], None] = lambda _: None) -> int:
    """Writes the home to a stream as a tar file; returns the number of files.

    Raises LockTimeoutError where a run holds what is to be copied for longer than `ingest.wait_seconds`.
    """
    files = 0
    with ExitStack() as held:
        for lock in (facts_lock(home.facts_dir), home.history_lock):
            held.enter_context(file_lock(lock, wait_seconds, what=str(lock.parent), who="backup", progress=progress))
        held.enter_context(warehouse_of(home, wait_seconds).locked())
        # Superset's folder of outcomes is not packed: history has a copy of each
        keep(home.feedback_dir, home.history_dir)
        with tarfile.open(fileobj=to, mode="w|") as archive:
            for name in _KEPT:
                # written after every run, or answer: not kept from it for as long as the rest takes
                with _of_its_own(home, wait_seconds, name):
                    files += sum(_add(archive, path, home.root, progress) for path in _paths(home.root, name))
            # a tar file that was cut off between two files reads as a whole one
            archive.addfile(tarfile.TarInfo(_END))
    return files


def _of_its_own(home: DataHome, wait_seconds: float, place: str) -> AbstractContextManager[None]:
    """The lock of a place that is written between runs too."""
    if place == "status":
        return status_locked(home.status_path)
    if place == "outcomes":
        lock = outcomes_lock(home.outcomes_path)
        return file_lock(lock, wait_seconds, what=str(lock.parent), who="backup")
    if place == "outbox":
        return file_lock(outbox_lock(home.outbox_path), wait_seconds, what="the outbox", who="backup")
    return nullcontext()


def _paths(home: Path, name: str) -> Iterator[Path]:
    yield from files_to_back_up(home, _KEPT[name])


def _add(archive: tarfile.TarFile, path: Path, home: Path, progress: Callable[[str], None]) -> bool:
    """Adds a file as it is when it is opened: another may take its place meanwhile. Returns whether it was added."""
    name = str(path.relative_to(home))
    if path.is_symlink():
        if not _is_our_link(PurePosixPath(name), str(path.readlink())):
            progress(f"{path} is a link, and none of ours: left out")
            return False
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

    Outcomes that people have recorded there stay, and those of the backup come beside them.

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
                _put(archive, member, home)
                files += not member.isdir()
    # what a header that makes no sense raises differs with the place in it
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise BackupError(
            f"not readable as a backup, it may be cut off: {error}; what was put into {home} is not whole"
        ) from error
    if not is_whole:
        raise BackupError(f"the backup is cut off; what was put into {home} is not whole")
    bring_back(home / "feedback", home / "history")
    return files


def _put(archive: tarfile.TarFile, member: tarfile.TarInfo, home: Path) -> None:
    """Makes what a member says below the home. Raises BackupError, naming the member, where it is none of ours."""
    path = PurePosixPath(member.name)
    if problem := _problem_of(member, path, home):
        raise BackupError(f"{member.name!r} is {problem}: no part of a data home, and this is no backup of ours")
    target = home / path
    try:
        make_folder(target if member.isdir() else target.parent)
        if member.issym():
            target.symlink_to(member.linkname)
        elif not member.isdir():
            _write(archive, member, target, SEALED if _KEPT[path.parts[0]].seals(path) else FILE)
    except (OSError, ValueError) as error:
        raise BackupError(
            f"{member.name!r} cannot be put into {home}: {error}; what was put there is not whole"
        ) from error


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, mode: int) -> None:
    content = archive.extractfile(member)
    assert content is not None
    # a member that comes twice is refused: the second may be anybody's
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE), "wb") as stream:
        shutil.copyfileobj(content, stream)
        os.fchmod(stream.fileno(), mode)
    os.utime(target, (member.mtime, member.mtime))


def _problem_of(member: tarfile.TarInfo, path: PurePosixPath, home: Path) -> str:
    """What is wrong with a member; empty where it is a file or folder of one of our places, or its link `current`."""
    place = _KEPT.get(path.parts[0]) if path.parts else None
    if place is None or ".." in path.parts:
        return "outside of every place that a backup holds"
    # the home itself may be reached by a link of its owner
    if any((home / folder).is_symlink() for folder in path.parents if folder.parts):
        return "behind a link"
    if member.issym():
        return "" if _is_our_link(path, member.linkname) else f"a link to {member.linkname!r}"
    if member.issparse() or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        return "neither a file nor a folder"
    is_place_itself = len(path.parts) == 1 and not member.isdir()
    return "in the place of a folder, or the other way round" if is_place_itself != place.is_file else ""


def _is_our_link(path: PurePosixPath, target: str) -> bool:
    """Whether a link is the one by which a place says what is shown, and leads to a neighbour."""
    place = _KEPT.get(path.parts[0])
    is_neighbour = target not in ("", ".", "..") and "/" not in target
    return place is not None and path.parts[1:] == (place.link,) and is_neighbour
