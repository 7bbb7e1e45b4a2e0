"""Records of what came of calls, as Superset's form writes them: read, kept in history, and looked over.

Belongs here: the form of a record, what is wrong with a folder of them, the copies below `history/outcomes`. Does not:
what follows from them (`answers.py`). The folder `feedback/` is Superset's: nothing here writes to it but taking out a
note of a person who is erased.

A record names the hash of the one before, so one in the middle that is gone or was changed is noticed by its successor;
the copy in history notices the newest one too, and says which. What counts is the copy, else the file. Two people at
once make two records that name the same one before: both are right.

A note is outside of the hash. One that is gone from both places was erased; one that is gone from one alone, or is not
the one that the digest tells of, is a change.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from usage_pipeline.core.files import atomic_write, make_folder

Status = Literal["open", "done", "snoozed"]
# of records that a backup brought back or a CRM delivered, and Superset's folder never had
_RESTORED = "restored.txt"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reason(_Part):
    """A reason of the row as it was issued."""

    application_key: str
    call_reason: str
    since: date | None
    urgency_rank: int


class Usefulness(_Part):
    """Whether the reasons of a kind were useful, and why not."""

    call_reason: str
    is_useful: bool
    why_not: str | None = None


class Note(_Part):
    nonce: str
    text: str


class Record(_Part):
    """What somebody recorded for a row of the call list."""

    version: Literal[1] = Field(alias="schema")
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    previous: str
    recorded_at: datetime
    recorded_by: str
    account_id: str
    account: str
    owner: str | None
    build_id: str
    as_of: datetime
    week: date
    urgency_rank: int
    reasons: tuple[Reason, ...]
    was_reached: bool | None
    status: Status
    snoozed_until: date | None
    useful: tuple[Usefulness, ...]
    note_digest: str | None
    note: Note | None

    @model_validator(mode="after")
    def _only_what_is_snoozed_has_a_day(self) -> "Record":
        if self.snoozed_until is not None and self.status != "snoozed":
            raise ValueError("only what is snoozed has a day")
        if self.note is not None and self.note_digest is None:
            raise ValueError("a note without its digest")
        return self


@dataclass(frozen=True)
class Problem:
    """What is wrong with a record, in words."""

    name: str
    words: str


@dataclass(frozen=True)
class Read:
    """A file, its record where it holds one, and the hash that the next one names."""

    file: Path
    record: Record | None
    own_hash: str
    words: str = ""


def hash_of(written: dict[str, Any]) -> str:
    """SHA-256 of a record as JSON: keys in order, no blanks, without its note."""
    rest = {key: written[key] for key in written if key != "note"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read(file: Path) -> Read:
    """Reads a file; what is wrong with it alone stands in `words`."""
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        record = Record(**written)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return Read(file, None, "", f"was changed: {where + ': ' if where else ''}{first['msg']}")
    except (OSError, ValueError, TypeError) as error:
        return Read(file, None, "", f"cannot be read: {error}")
    words = ""
    if not file.stem.endswith(f"-{record.id}"):
        words = "was changed: its name is that of another record"
    elif record.note is not None and record.note_digest != _digest(record.note):
        words = "was changed: the note is not the one that was written"
    return Read(file, record, hash_of(written), words)


def _digest(note: Note) -> str:
    return hashlib.sha256(f"{note.nonce}\n{note.text}".encode()).hexdigest()


def files_in(folder: Path) -> list[Path]:
    """Files of records, oldest first; hidden ones are not whole yet."""
    return sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))


def kept_folder(history_dir: Path) -> Path:
    return history_dir / "outcomes"


# ---------------------------------------------------------------- reading and looking over


def read_records(feedback_dir: Path, history_dir: Path) -> list[Record]:
    """Every record, oldest first: as it is kept in history, else as it lies in Superset's folder."""
    found = [read(file) for file in _counting(feedback_dir, history_dir)]
    return [item.record for item in found if item.record is not None and not item.words]


def _counting(feedback_dir: Path, history_dir: Path) -> list[Path]:
    """The file that counts of each record, oldest first."""
    files = {file.name: file for file in files_in(feedback_dir)}
    files |= {file.name: file for file in files_in(kept_folder(history_dir))}
    return [files[name] for name in sorted(files)]


def exported(feedback_dir: Path, history_dir: Path) -> Iterator[str]:
    """Every sound record as it was written, as one line of JSON, oldest first."""
    for file in _counting(feedback_dir, history_dir):
        if not read(file).words:
            yield json.dumps(json.loads(file.read_text(encoding="utf-8")))


def problems(feedback_dir: Path, history_dir: Path) -> list[Problem]:
    """What was changed or is missing, oldest first."""
    here = {file.name: read(file) for file in files_in(feedback_dir)}
    kept = {file.name: read(file) for file in files_in(kept_folder(history_dir))}
    found = [Problem(name, item.words) for name, item in here.items() if item.words]
    found += [Problem(name, f"its copy in history {item.words}") for name, item in kept.items() if item.words]
    for name, copy in kept.items():
        if name not in here:
            if name not in restored(history_dir):
                found.append(Problem(name, "is missing; its copy in history counts"))
        elif not here[name].words and not copy.words:
            found += _differences(name, here[name], copy)
    known = {item.own_hash for item in (*here.values(), *kept.values())} | {""}
    for name, item in {**here, **kept}.items():
        if item.record is not None and item.record.previous not in known:
            found.append(Problem(name, "names a record before it that is missing or was changed"))
    return sorted(found, key=lambda problem: problem.name)


def _differences(name: str, here: Read, copy: Read) -> Iterable[Problem]:
    if here.own_hash != copy.own_hash:
        yield Problem(name, "was changed; its copy in history counts")
    elif here.record and copy.record and (here.record.note is None) != (copy.record.note is None):
        yield Problem(name, "lost its note in one of two places; erase the person again, or put it back")


# ---------------------------------------------------------------- the copy in history


def keep(feedback_dir: Path, history_dir: Path) -> int:
    """Copies records that history does not have yet; returns how many. The caller holds `DataHome.history_lock`."""
    files = files_in(feedback_dir)
    known = restored(history_dir)
    # what has come back is Superset's again: from now on it can be missing
    if came := known.intersection(file.name for file in files):
        _write_restored(history_dir, known - came)
    return sum(_copy(file, kept_folder(history_dir)) for file in files if not read(file).words)


def bring_back(feedback_dir: Path, history_dir: Path) -> None:
    """After a restore: puts records that history has where Superset reads them, and replaces none.

    Where that cannot be written to (with Docker Compose Superset alone may), nobody says of them that they are missing.
    """
    with suppress(OSError):
        make_folder(feedback_dir)
        for file in files_in(kept_folder(history_dir)):
            _copy(file, feedback_dir)
    note_restored(feedback_dir, history_dir)


def _copy(file: Path, folder: Path) -> bool:
    """Copies a record into a folder, unless it is there; returns whether it was not. Raises OSError."""
    target = folder / file.name
    if target.exists():
        return False
    with atomic_write(target) as tmp_path:
        tmp_path.write_bytes(file.read_bytes())
    return True


def note_restored(feedback_dir: Path, history_dir: Path) -> None:
    """After a restore: of what is not in Superset's folder now, nobody says that it is missing."""
    here = {file.name for file in files_in(feedback_dir)}
    _write_restored(history_dir, {file.name for file in files_in(kept_folder(history_dir))} - here)


def _write_restored(history_dir: Path, names: set[str]) -> None:
    file = kept_folder(history_dir) / _RESTORED
    if not names:
        file.unlink(missing_ok=True)
        return
    with atomic_write(file) as tmp_path:
        tmp_path.write_text("\n".join(sorted(names)) + "\n", encoding="utf-8")


def add_restored(history_dir: Path, names: set[str]) -> None:
    """Of records that were never in Superset's folder, nobody says that they are missing there."""
    if names:
        _write_restored(history_dir, restored(history_dir) | names)


def restored(history_dir: Path) -> set[str]:
    """Names of records that a backup brought back or a CRM delivered."""
    file = kept_folder(history_dir) / _RESTORED
    return set(file.read_text(encoding="utf-8").split()) if file.exists() else set()


def forget_note(file: Path) -> None:
    """Takes the note out of a record. Raises OSError where it cannot be written to."""
    written = json.loads(file.read_text(encoding="utf-8"))
    with atomic_write(file) as tmp_path:
        tmp_path.write_text(json.dumps(written | {"note": None}, indent=1, ensure_ascii=False), encoding="utf-8")
