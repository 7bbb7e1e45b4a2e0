"""A folder that shows one of its numbered folders: made anew as a whole, and shown with one rename of `current`.

DuckDB goes on reading the old content of a path that is replaced while anybody in its process has it open: so each
content has a path of its own, and a few older ones are kept for those that still read them.
"""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from usage_pipeline.core.files import FOLDER, seal

_KEPT = 5


def show_new(folder: Path, write: Callable[[Path], None]) -> None:
    """Has `write` fill a new folder, seals it, and shows it. Whoever calls keeps others from doing the same."""
    made = folder / f"{_next_number(folder):06d}-{uuid.uuid4().hex[:8]}"
    made.mkdir(FOLDER)
    try:
        write(made)
        seal(made)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    link = folder / f".current.{made.name}"
    link.symlink_to(made.name)
    link.replace(folder / "current")
    for old in _written(folder)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def unfinished(folder: Path) -> list[Path]:
    """What a writer that was killed left. Whoever calls keeps others from writing."""
    if not folder.is_dir():
        return []
    link = folder / "current"
    shown = link.readlink().name if link.is_symlink() else ""
    # numbered by the writer that holds the lock: one after the newest was never shown
    return [*folder.glob(".current.*"), *(path for path in _written(folder) if shown and path.name > shown)]


def _written(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*-*"))


def _next_number(folder: Path) -> int:
    return max((int(made.name.split("-")[0]) for made in _written(folder)), default=0) + 1
