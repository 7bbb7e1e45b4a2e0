"""Who was erased: a list of salted hashes that keeps them out of everything that comes in again.

Belongs here: the list, and taking people out of rows that have just been read. Does not: taking them out of what is
there already (`erase.py`).

The lake is somebody else's and delivers an erased person again, so the list must know them, and must not name them:
it holds keyed hashes, and the salt lies with it in a file for its owner only. Each person has one random key, which
stands for them in usage, so that different people are counted as before. Whoever holds the file and guesses an id can
still find that it was erased: without that nothing could be kept out.

One file, `<home>/erased/people.json`, replaced whole.
"""

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.locks import file_lock

_PLACE = Path("erased") / "people.json"
_PERSON = ["account_id", "user_id"]
_SECONDS_TO_WAIT = 60


@dataclass(frozen=True)
class Erased:
    """The list. `keys` by the hash of account and user; `users` are hashes of the user alone, for rows that name no
    account."""

    salt: bytes
    keys: dict[str, str]
    users: frozenset[str]

    @classmethod
    def read(cls, home: Path) -> "Erased":
        """The list of a data home; empty where nobody was erased."""
        file = home / _PLACE
        if not file.exists():
            return cls(b"", {}, frozenset())
        known = json.loads(file.read_text(encoding="utf-8"))
        people = known["people"]
        return cls(
            bytes.fromhex(known["salt"]), {p["person"]: p["key"] for p in people}, frozenset(p["user"] for p in people)
        )

    def __bool__(self) -> bool:
        return bool(self.keys)

    def key_of(self, account: str | None, user: str | None) -> str | None:
        """What stands for an erased person in usage; None for anybody else."""
        if user is None or account is None:
            return None
        return self.keys.get(_hash(self.salt, account, user))

    def is_erased(self, account: str | None, user: str | None) -> bool:
        """Whether a row may be of an erased person: one that names no account may be of anybody of that id."""
        if user is None or not self:
            return False
        if account is None:
            return _hash(self.salt, user) in self.users
        return self.key_of(account, user) is not None


def remember(home: Path, account: str, user: str) -> str:
    """Puts a person on the list, unless they stand there, and returns their key."""
    folder = (home / _PLACE).parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # of two at once, none may write the list without the other's person
    with file_lock(folder / ".lock", _SECONDS_TO_WAIT, what=str(folder), who="erase"):
        return _remember(home, account, user)


def _remember(home: Path, account: str, user: str) -> str:
    known = Erased.read(home)
    if key := known.key_of(account, user):
        return key
    salt, key = known.salt or secrets.token_bytes(32), f"erased-{secrets.token_hex(8)}"
    file = home / _PLACE
    before = json.loads(file.read_text(encoding="utf-8"))["people"] if file.exists() else []
    person = {"person": _hash(salt, account, user), "user": _hash(salt, user), "key": key}
    with atomic_write(file) as tmp_path:
        descriptor = os.open(tmp_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            json.dump({"salt": salt.hex(), "people": [*before, person]}, output, indent=1)
    return key


def _hash(salt: bytes, *parts: str) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), key=salt, digest_size=16).hexdigest()


def replace_users(file: Path, erased: Erased) -> int:
    """Puts the keys of erased people in the place of their user ids in a file of facts; returns the rows changed."""
    return _rewrite(file, erased, keep_key=True)


def forget_users(file: Path, erased: Erased) -> int:
    """Empties the user ids of erased people in a file of rejected rows, which name their row in the lake beside it."""
    return _rewrite(file, erased, keep_key=False)


def _rewrite(file: Path, erased: Erased, *, keep_key: bool) -> int:
    if not erased:
        return 0
    ids = pq.read_table(file, columns=_PERSON).group_by(_PERSON).aggregate([]).to_pylist()
    people = [(p["account_id"], p["user_id"]) for p in ids if erased.is_erased(p["account_id"], p["user_id"])]
    if not people:
        return 0
    table, changed = pq.read_table(file), 0
    users = table["user_id"].cast(pa.string())
    for account, user in people:
        accounts = table["account_id"]
        of_account = pc.is_null(accounts) if account is None else pc.fill_null(pc.equal(accounts, account), False)
        mask = pc.and_(of_account, pc.fill_null(pc.equal(users, user), False))
        changed += pc.sum(mask).as_py() or 0
        key = erased.key_of(account, user) if keep_key else None
        users = pc.if_else(mask, pa.scalar(key, pa.string()), users)
    table = table.set_column(table.schema.get_field_index("user_id"), "user_id", users)
    metadata = {k: v for k, v in (pq.read_metadata(file).metadata or {}).items() if k != b"ARROW:schema"}
    with atomic_write(file) as tmp_path:
        schema = table.schema.remove_metadata()
        with pq.ParquetWriter(tmp_path, schema, compression="zstd", store_schema=False) as writer:
            writer.write_table(table.replace_schema_metadata(None))
            writer.add_key_value_metadata(metadata)
    return changed
