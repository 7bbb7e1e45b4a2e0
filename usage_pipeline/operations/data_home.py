"""The data home: every place below it, what lies there, and who may touch it. Written here once, for all who ask.

Belongs here: the list of places, and cleaning what a killed process left. Does not: what is written into a place (the
module that writes it), and taking a person out of it (`erase.py`).

The list serves `backup` (what is packed), `erase` (where a person may stand), `doctor` (what nobody knows) and every
refresh, which begins by removing what is unfinished. That is done under the lock that the writers of a place hold, so
that nothing of a living process goes; where a place has no lock, what is unfinished is left alone while it is young.
Whoever adds a place below the home adds it here: a test compares the list with a home that everything has written to.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.files import is_tmp_path, remove
from usage_pipeline.core.locks import LockTimeoutError, file_lock
from usage_pipeline.core.numbered import unfinished
from usage_pipeline.core.processes import has_ended
from usage_pipeline.ingestion.deliveries import deliveries_of_contacts
from usage_pipeline.ingestion.facts import facts_lock
from usage_pipeline.ingestion.sources import OWNER
from usage_pipeline.observability.status import status_locked
from usage_pipeline.outcomes.database import outcomes_lock
from usage_pipeline.privacy.encryption import ContactsKeyError, encrypt_plain, open_to_write
from usage_pipeline.publishing.builds import BuildStore
from usage_pipeline.publishing.history import KINDS, interrupted_withdrawals
from usage_pipeline.resources import warehouse_of

# no: never; ours: `erase` takes people out of it; logs: it may tell of them, and is not ours to rewrite
Personal = Literal["no", "ours", "logs"]
Progress = Callable[[str], None]
# of what has no lock, and of copies that readers outside of a run may have open
_YOUNG_SECONDS = 600


@dataclass(frozen=True)
class Place:
    """A top folder (or file) below the home, and the files that belong there, as patterns below it."""

    name: str
    what: str
    is_backed_up: bool
    personal: Personal
    # of paths below the home, slashes between; `*` is one name, `**` any number of them
    files: tuple[str, ...] = ("**",)
    # of these, those that nobody writes to once they are there
    sealed: tuple[str, ...] = ()
    # a link to a neighbour, which says what is shown
    link: str = ""

    @property
    def is_file(self) -> bool:
        return not self.files

    def seals(self, path: PurePosixPath) -> bool:
        return any(_matches("/".join(path.parts[1:]), pattern) for pattern in self.sealed)

    def knows(self, path: PurePosixPath) -> bool:
        """Whether a file of this path (below the home) is one that belongs here."""
        if len(path.parts) == 1:
            return self.is_file
        below = "/".join(path.parts[1:])
        return any(_matches(below, pattern) for pattern in (*self.files, ".lock", ".holder", "*.lock", "*.holder"))


_OF_BUILDS = ("*/warehouse.duckdb", "*/contacts.duckdb", "*/build.json", "*/history/*/*.parquet")
PLACES = (
    Place("facts", "usage of each week, its manifest inside", True, "ours", ("week=*/facts.parquet",)),
    Place(
        "history",
        "what is kept for good: deliveries, snapshots, small tables of builds, closed months, rejected rows",
        True,
        "ours",
        (
            "reference/*/*.parquet",
            "reference/*/held_back/*.parquet",
            "reference/*/held_back/*.json",
            "rejected/week=*/*.parquet",
            "account_applications/*.parquet",
            "builds/*/*.parquet",
            "outcomes/*.json",
            "outcomes/restored.txt",
            *(
                f"{kind}/{place}"
                for kind in KINDS.values()
                for place in ("*.parquet", "pending/*.parquet", "withdrawn/*.parquet", "withdrawn/*.json")
            ),
        ),
    ),
    Place("models", "what was learned each month, with its card", True, "no", ("*/*",)),
    Place(
        "warehouse",
        "the private database, and that of contacts",
        True,
        "ours",
        ("warehouse.duckdb", "warehouse.duckdb.wal", "contacts.duckdb", "contacts.duckdb.wal"),
    ),
    Place(
        "published",
        "builds that pages read, and workbooks of closed months",
        True,
        "ours",
        (
            "current",
            "pinned",
            *_OF_BUILDS,
            "kpi-sheets/*/*",
        ),
        sealed=_OF_BUILDS,
        link="current",
    ),
    Place(
        "status",
        "how data and runs are, after each run",
        True,
        "no",
        ("current", "*/usage_status.duckdb", "usage_pipeline.prom"),
        sealed=("*/usage_status.duckdb",),
        link="current",
    ),
    Place(
        "feedback", "outcomes of calls, as people record them on pages; history has a copy", False, "ours", ("*.json",)
    ),
    Place(
        "outcomes",
        "the call list with its outcomes, made anew after each",
        True,
        "no",
        ("current", "*/usage_outcomes.duckdb", "*/made_of"),
        sealed=("*/usage_outcomes.duckdb", "*/made_of"),
        link="current",
    ),
    Place("erased", "hashes of those who were erased", True, "no", ("people.json",)),
    Place("inputs", "what the last refresh was made of", True, "no", ()),
    Place("mail", "who was sent what, and open incidents", True, "logs", ("digests/*.json", "incidents.json")),
    Place(
        "outbox",
        "what chat and webhooks are to be told, and what became of it",
        True,
        "logs",
        ("outbox.sqlite", "outbox.sqlite-journal"),
    ),
    # not in a backup: a restore would bring back what was revoked
    Place("api", "hashes of the tokens of programs", False, "no", ("tokens.json",)),
    Place("crm", "which build the CRM files were written of last", True, "logs", ("delivered.json",)),
    Place("dagster", "runs and their logs", True, "logs"),
    Place("run", "servers: their logs, secrets and databases", True, "logs"),
    Place("spill", "what does not fit in memory, and copies of files that are being read", False, "ours"),
    Place("demo", "the lake of a demo", True, "logs"),
)
_BY_NAME = {place.name: place for place in PLACES}
# what is made again at once, or means nothing elsewhere
_NOT_BACKED_UP = (".lock", ".holder", ".log", ".tmp")


def place_of(home: Path, path: Path) -> Place | None:
    """The place that a path lies in; None where nobody knows it."""
    return _BY_NAME.get(path.relative_to(home).parts[0])


def walk(folder: Path) -> Iterator[Path]:
    """Every file and link below a folder, in order; what goes meanwhile is passed over."""
    if folder.is_symlink() or folder.is_file():
        yield folder
        return
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_symlink() or path.is_file():
            yield path


def files_to_back_up(home: Path, place: Place) -> Iterator[Path]:
    """The files and links of a place that a backup takes: none that is unfinished, no lock, no log, no cache."""
    for path in walk(home / place.name):
        parts = path.relative_to(home).parts
        is_cache = parts[:3] == ("run", "superset", "results")
        if not path.name.endswith(_NOT_BACKED_UP) and not is_cache and not any(is_tmp_path(part) for part in parts):
            yield path


def unknown(home: Path) -> list[Path]:
    """What lies below the home and belongs to no place; of a folder that is unknown as a whole, the folder alone."""
    found = []
    for top in sorted(home.iterdir()) if home.is_dir() else ():
        place = _BY_NAME.get(top.name)
        if place is None:
            found += [] if is_tmp_path(top.name) else [top]
            continue
        for path in [] if place.files == ("**",) else walk(top):
            below = PurePosixPath(path.relative_to(home))
            if not place.knows(below) and not _is_left_over(below):
                found.append(path)
    return found


def open_to_others(home: Path) -> list[tuple[Path, int]]:
    """The home and what lies in its places, where group or others have a right to it, each with its mode."""
    tops = [home / place.name for place in PLACES]
    walks = (step for top in tops for step in os.walk(top))
    inside = (Path(folder) / name for folder, folders, files in walks for name in sorted([*folders, *files]))
    found = []
    for path in (home, *tops, *inside):
        with suppress(FileNotFoundError):  # a run may be at it
            state = path.lstat()
            if state.st_mode & 0o077 and not stat.S_ISLNK(state.st_mode):
                found.append((path, stat.S_IMODE(state.st_mode)))
    return found


# by DuckDB, beside the private databases
_SPILLED = ("warehouse.duckdb.tmp", "contacts.duckdb.tmp")


def _is_left_over(path: PurePosixPath) -> bool:
    """Whether a path is one that `clean` takes away, or a living process has under way."""
    hidden = any(is_tmp_path(part) for part in path.parts)
    in_store = path.parts[0] in ("published", "status", "outcomes") and any(
        part.startswith(".") for part in path.parts[1:]
    )
    return hidden or in_store or any(part in _SPILLED for part in path.parts)


def _matches(path: str, pattern: str) -> bool:
    if pattern == "**":
        return True
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[^/]*"), path) is not None


# ---------------------------------------------------------------- cleaning


def clean(home: DataHome, progress: Progress = lambda _: None, *, seconds: float = 10) -> int:
    """Removes what killed processes left below the home, and brings to its end what can be; returns how much it was.

    A place that somebody writes to for longer than `seconds` is left to the next refresh.
    """
    locks: list[tuple[AbstractContextManager[None], Callable[[], list[str]]]] = [
        (_held(facts_lock(home.facts_dir), seconds), lambda: clean_facts(home, young=_YOUNG_SECONDS)),
        (_held(home.history_lock, seconds), lambda: clean_history(home.history_dir)),
        (warehouse_of(home, seconds).locked(), lambda: clean_warehouse(home)),
        (status_locked(home.status_path), lambda: _clean_shown(home.status_path)),
        (_held(outcomes_lock(home.outcomes_path), seconds), lambda: _clean_shown(home.outcomes_path)),
    ]
    done = _clean_the_rest(home)
    for held, work in locks:
        try:
            with held:
                done += work()
        except (LockTimeoutError, ContactsKeyError) as error:
            progress(f"not looked at for what is unfinished: {error}")
    for line in done:
        progress(line)
    return len(done)


def _held(lock: Path, seconds: float) -> AbstractContextManager[None]:
    return file_lock(lock, seconds, what=str(lock.parent), who="cleaning")


def clean_facts(home: DataHome, *, young: float = 0) -> list[str]:
    """Facts, rejected rows, written under the same lock, and what readers spilled `young` seconds ago or before.

    The caller holds `facts_lock`.
    """
    done = _remove(_unfinished_below(home.facts_dir) + _unfinished_below(home.history_dir / "rejected"))
    spill = home.spill_dir
    left = [p for p in (spill.iterdir() if spill.is_dir() else ()) if _age(p) >= young or _is_orphan(p)]
    return done + _remove(left)


def _is_orphan(spilled: Path) -> bool:
    """Whether copies of lake files were made by a process of this machine that is gone, as is written beside them."""
    try:
        return has_ended((spilled / OWNER).read_text(encoding="utf-8")) is True
    except (OSError, ValueError, KeyError):
        return False


def clean_history(history_dir: Path) -> list[str]:
    """The history without rejected rows; deliveries of contacts are encrypted where a key has come since.

    The caller holds `DataHome.history_lock`. Raises ContactsKeyError where the key is none.
    """
    folders = [p for p in (history_dir.iterdir() if history_dir.is_dir() else ()) if p.is_dir()]
    left = [path for folder in folders if folder.name != "rejected" for path in _unfinished_below(folder)]
    encrypted = [line for file in deliveries_of_contacts(history_dir) for line in encrypt_plain(file)]
    return [*_remove([*left, *interrupted_withdrawals(history_dir)]), *encrypted]


def clean_warehouse(home: DataHome) -> list[str]:
    """The warehouse, and models and builds, which are written under the same lock. The caller holds it.

    Contacts are encrypted where a key has come since. Raises ContactsKeyError where theirs is another.
    """
    path, done = home.warehouse_path, []
    left = [*_unfinished_below(path.parent), *_unfinished_below(home.models_dir)]
    left += [spilled for name in _SPILLED if (spilled := path.with_name(name)).exists()]
    for file in (path, home.private_contacts_path):
        log = file.with_name(f"{file.name}.wal")
        if log.exists() and not file.exists():
            left.append(log)
        elif log.exists():
            # it holds what was committed: DuckDB takes it in
            with open_to_write(file) as connection:
                connection.execute("CHECKPOINT")
            done.append(f"{log} was left by a process that was killed: taken in")
    done = _remove(left) + done + BuildStore(home.published_dir).finish()
    return done + [line for file in databases_of_contacts(home) for line in encrypt_plain(file)]


def databases_of_contacts(home: DataHome) -> list[Path]:
    """Every database below the home that holds names, addresses and telephone numbers; written under one lock."""
    of_builds = sorted(home.published_dir.glob("[0-9]*/contacts.duckdb"))
    return [file for file in (home.private_contacts_path, *of_builds) if file.exists()]


def _clean_shown(shown: Path) -> list[str]:
    return _remove(unfinished(shown.parent.parent))


def _clean_the_rest(home: DataHome) -> list[str]:
    """Of places whose writers hold no lock, or a lock of their own; nothing there names a person."""
    tops = [path for path in (home.root.iterdir() if home.root.is_dir() else ()) if is_tmp_path(path.name)]
    folders = [home.mail_dir, home.root / "erased", home.published_dir / "kpi-sheets"]
    left = [*tops, *(path for folder in folders for path in _unfinished_below(folder))]
    return _remove([path for path in left if _age(path) >= _YOUNG_SECONDS])


def _unfinished_below(folder: Path) -> list[Path]:
    """The topmost unfinished files and folders."""
    found: list[Path] = []
    for path in sorted(folder.rglob(".*")) if folder.is_dir() else ():
        if is_tmp_path(path.name) and not any(parent in found for parent in path.parents):
            found.append(path)
    return found


def _age(path: Path) -> float:
    """Seconds since anything in it was written; 0 where it has just gone."""
    with suppress(OSError):
        newest = max((inside.lstat().st_mtime for inside in path.rglob("*")), default=0) if path.is_dir() else 0
        return time.time() - max(newest, path.lstat().st_mtime)
    return 0


def _remove(paths: list[Path]) -> list[str]:
    for path in paths:
        remove(path)
    return [f"{path} was left by a process that was killed: removed" for path in paths]
