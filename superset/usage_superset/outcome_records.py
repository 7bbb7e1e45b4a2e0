"""Records of what came of calls: one file a record, written once, each naming the hash of the one before.

Belongs here: the form of a record, writing one, reading those of an account, taking a note out. Does not: who may
(`outcome_form.py`). The standard library alone: the pipeline reads the same files with code of its own
(`usage_pipeline/outcomes/records.py`), and a test holds the two together.

A file appears whole or not at all, under a name that nothing had before: two people at once make two files that name
the same one before, and both count. The note is outside of the hash, which holds a digest of it: a note that names a
person can be taken out, and the chain stays whole.

Where Superset alone may write, `python -m usage_superset.outcome_records forget ID ...` takes the notes of records out,
and `... bring-back` puts those of a backup beside what is there; `usage-pipeline outcomes export` pipes them in.
"""

import hashlib
import json
import os
import re
import secrets
import sys
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SCHEMA = 1
FIRST = ""
STATUSES = ("open", "done", "snoozed")
WHY_NOT = ("known already", "no problem", "wrong numbers", "expected, such as a season", "not worth a call", "other")
NOTE_LENGTH = 1000
_ID = re.compile("[0-9a-f]{32}")


def hash_of(record: dict[str, Any]) -> str:
    """What the next record names: of everything but the note itself."""
    body = {key: value for key, value in record.items() if key != "note"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_of_note(nonce: str, text: str) -> str:
    """Tells whether a note is the one that was written; without the nonce, which goes with it, it tells nothing."""
    return hashlib.sha256(f"{nonce}\n{text}".encode()).hexdigest()


def account_part(account_id: str) -> str:
    """The part of a file's name by which the records of an account are found."""
    return hashlib.sha256(account_id.encode()).hexdigest()[:12]


def write_record(folder: Path, answer: dict[str, Any], note: str, now: datetime) -> dict[str, Any]:
    """Writes an answer with who, when and the hash of the record before; returns the record.

    Raises OSError where it cannot be written: then there is nothing of it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    nonce = secrets.token_hex(16)
    record = answer | {
        "schema": SCHEMA,
        "id": uuid.uuid4().hex,
        "previous": _newest_hash(folder),
        "recorded_at": now.astimezone(UTC).isoformat(timespec="microseconds"),
        "note_digest": digest_of_note(nonce, note) if note else None,
        "note": {"nonce": nonce, "text": note} if note else None,
    }
    _create(folder / name_of(record), record)
    return record


def name_of(record: dict[str, Any]) -> str:
    """The name of a record's file: names sort by time."""
    moment = datetime.fromisoformat(record["recorded_at"])
    return f"{moment:%Y%m%dT%H%M%S%fZ}-{account_part(record['account_id'])}-{record['id']}.json"


def records_of(folder: Path, account_id: str) -> list[dict[str, Any]]:
    """The records of an account that can be read, oldest first."""
    found = [_read(file) for file in sorted(folder.glob(f"*-{account_part(account_id)}-*.json"))]
    return [record for record in found if record is not None and record.get("account_id") == account_id]


def forget_note(folder: Path, record_id: str) -> bool:
    """Takes the note out of a record; returns whether there was one."""
    for file in folder.glob(f"*-{record_id}.json"):
        record = _read(file)
        if record is None or not record.get("note"):
            continue
        made = _written_beside(file, record | {"note": None})
        made.replace(file)
        _sync(folder)
        return True
    return False


def bring_back(folder: Path, lines: Iterable[str]) -> int:
    """Writes records of a backup, a JSON object a line, that are not there; replaces none. Returns how many.

    Raises ValueError, naming the line, where one is no record: those before it are there then.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    brought = 0
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            name = name_of(record)
            if not _ID.fullmatch(record["id"]):
                raise ValueError(record["id"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"line {number} is no record of an outcome: {error}") from error
        if not (folder / name).exists():
            _create(folder / name, record)
            brought += 1
    return brought


def _newest_hash(folder: Path) -> str:
    for file in sorted(folder.glob("*.json"), reverse=True):
        if (record := _read(file)) is not None:
            return hash_of(record)
    return FIRST


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # said by the pipeline, which looks at all of them
        return None
    return found if isinstance(found, dict) else None


def _create(file: Path, record: dict[str, Any]) -> None:
    made = _written_beside(file, record)
    try:
        os.link(made, file)  # fails where the name is taken
    finally:
        made.unlink()
    _sync(file.parent)


def _written_beside(file: Path, record: dict[str, Any]) -> Path:
    """A hidden file with the record, whose bytes are on the disk."""
    made = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=1, ensure_ascii=False)
        stream.flush()
        os.fsync(stream.fileno())
    return made


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    folder = Path(os.environ["USAGE_FEEDBACK"])
    if arguments == ["bring-back"]:
        try:
            brought = bring_back(folder, sys.stdin)
        except ValueError as error:
            print(f"superset: {error}", file=sys.stderr)
            return 1
        print(f"  superset: {brought} outcomes of the backup are on the form again")
        return 0
    if len(arguments) < 2 or arguments[0] != "forget":
        print("superset: say whose note goes: forget ID ...; or bring-back, with records piped in", file=sys.stderr)
        return 2
    gone = [record_id for record_id in arguments[1:] if record_id.isalnum() and forget_note(folder, record_id)]
    print(f"  superset: {len(gone)} notes were taken out")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
