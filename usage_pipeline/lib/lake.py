"""The lake: somebody else's files, read only. Lists what a path holds; never reads more than it is asked for.

Belongs here: listing files and week folders. Does not: opening the files (`sources.py`).
`list_files` and `list_week_folders` are the seam for `s3://`: nothing else in the product asks a store what it has.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from usage_pipeline.lib.weeks import WeekFolder

_YEAR = re.compile(r"year=(\d{4})")
_WEEK = re.compile(r"week=(\d{1,2})")
_SUFFIXES = {"parquet": (".parquet", ".parq"), "csv": (".csv", ".csv.gz", ".tsv")}


class LakeError(Exception):
    """The lake cannot be listed; the message names the place and the remedy."""


@dataclass(frozen=True, order=True)
class LakeFile:
    """One file of the lake, with what tells a rewritten file from the one that was read."""

    key: str
    size: int
    modified: str
    etag: str


def _file(path: Path) -> LakeFile:
    stat = path.stat()
    modified = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="seconds")
    # a folder has no ETag: size and time of change in nanoseconds stand for it
    return LakeFile(str(path), stat.st_size, modified, f"{stat.st_size:x}-{stat.st_mtime_ns:x}")


def _is_data(path: Path, file_format: str) -> bool:
    hidden = path.name.startswith((".", "_"))
    return path.is_file() and not hidden and path.name.endswith(_SUFFIXES[file_format])


def _local(path: str) -> Path:
    if "://" in path:
        raise LakeError(f"{path}: only folders can be read so far; copy or mount the bucket, and give its folder")
    return Path(path)


def list_files(path: str, file_format: str) -> list[LakeFile]:
    """Every data file of a path: a file, a folder (all files of the format below it) or a glob; sorted by key.

    Raises LakeError where the path does not exist or holds no file of the format.
    """
    local = _local(path)
    if local.is_file():
        return [_file(local)]
    if local.is_dir():
        found: Iterable[Path] = local.rglob("*")
    elif any(letter in path for letter in "*?["):
        found = Path(local.anchor).glob(str(local.relative_to(local.anchor)))
    else:
        raise LakeError(f"{path}: no such file or folder")
    files = sorted(_file(item) for item in found if _is_data(item, file_format))
    if not files:
        raise LakeError(f"{path}: holds no {file_format} file")
    return files


def list_week_files(path: str, file_format: str, folder: WeekFolder) -> list[LakeFile]:
    """The data files of one week folder, in both spellings (`week=1`, `week=01`); empty where there is none."""
    year = _local(path) / f"year={folder.year}"
    spellings = dict.fromkeys((f"week={folder.week}", f"week={folder.week:02d}"))
    below = (item for spelling in spellings for item in (year / spelling).rglob("*"))
    return sorted(_file(item) for item in below if _is_data(item, file_format))


def list_week_folders(path: str) -> list[WeekFolder]:
    """Every `year=/week=` folder of a lake, by name only: no file is listed.

    Raises LakeError where the path is no folder or holds no such folder.
    """
    root = _local(path)
    if not root.is_dir():
        raise LakeError(f"{path}: no such folder")
    found = set()
    for year in root.iterdir():
        if not (in_year := _YEAR.fullmatch(year.name)):
            continue
        for week in year.iterdir():
            if in_week := _WEEK.fullmatch(week.name):
                found.add(WeekFolder(int(in_year[1]), int(in_week[1])))
    if not found:
        raise LakeError(f"{path}: holds no year=YYYY/week=WW folder; where the files lie flat, say partitioned: false")
    return sorted(found)
