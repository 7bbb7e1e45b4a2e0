"""The outbox: every message to chat and webhooks is written here before it is sent, and what became of it stands here.

Belongs here: that a message is there once, is tried a bounded number of times, and survives a process that is killed.
Does not: what is said (`messages.py`) and how it is handed over (`delivery.py`).

One SQLite file, `<home>/outbox/outbox.sqlite`, written by one process at a time. The key of a message (kind, day or
week, what it is about, address) is the same whatever run makes it, so a second run adds nothing. Of an address only the
name of its environment variable is kept, and the text only until it was sent.

What a killed process leaves: a message that nobody began to send is sent by the next round. One that was being sent may
have arrived: a webhook gets it again under the same id, by which it knows it; chat has no such id, so there it is kept
as failed, for a person to decide (`usage-pipeline notify send --again`).
"""

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from usage_pipeline.core.files import make_folder
from usage_pipeline.core.locks import file_lock

Kind = Literal["urgent", "digest", "alert"]
Say = Callable[[str], None]
# after each attempt that failed, until the next; after the last, none follows
WAITS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 30, 120, 300))
ATTEMPTS = len(WAITS) + 1
# what is older tells of numbers that may not hold any more: a restored backup, a machine that was down for days
TOO_OLD = timedelta(days=2)
KEEP_FAILED, KEEP_SENT = timedelta(days=14), timedelta(days=60)
_ROUND_SECONDS = 30
_SECONDS_TO_WAIT = 120
_TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    key TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    address TEXT NOT NULL,
    content TEXT,
    made_at TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next_at TEXT NOT NULL,
    said TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS urgent (account_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS looks (looked_at TEXT NOT NULL);
"""


class NotTakenError(Exception):
    """A message was not taken; the message says why, and the remedy."""


class NotSetError(NotTakenError):
    """The address is not known to this process: another one may know it."""


@dataclass(frozen=True)
class Message:
    """What one address is to be told: `content` is JSON that its channel understands."""

    kind: Kind
    # day or week, and what it is about
    period: str
    about: str
    address: str
    content: str

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.period}/{self.about}/{self.address}"


@dataclass(frozen=True)
class Entry:
    """A message in the outbox, and what became of it: waiting, sending, sent or failed. Moments are UTC."""

    key: str
    kind: str
    address: str
    content: str | None
    made_at: datetime
    state: str
    attempts: int
    next_at: datetime
    said: str


@dataclass(frozen=True)
class Channel:
    """What hands a message to an address: the key, the content; raises NotTakenError."""

    deliver: Callable[[str, str], None]
    # whether a receiver can know that it has got the same message before
    has_ids: bool


class Outbox:
    """The open outbox; `opened` makes one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, messages: Iterable[Message], now: datetime) -> int:
        """Adds what is not there yet; returns how many."""
        with self._connection:
            return self._insert(messages, now)

    def _insert(self, messages: Iterable[Message], now: datetime) -> int:
        at = _utc(now)
        rows = [(m.key, m.kind, m.address, m.content, at, "waiting", 0, at, "") for m in messages]
        sql = "INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        before = self._connection.total_changes
        self._connection.executemany(sql, rows)
        return self._connection.total_changes - before

    # -- which accounts are known to be Urgent

    def known_urgent(self) -> set[str] | None:
        """Accounts that were Urgent at the last look; None before the first."""
        if self._connection.execute("SELECT 1 FROM looks").fetchone() is None:
            return None
        return {account for (account,) in self._connection.execute("SELECT account_id FROM urgent")}

    def look(self, urgent: Collection[str], messages: Iterable[Message], now: datetime) -> int:
        """Remembers who is Urgent and adds what follows from it, both or neither; returns how many were added."""
        with self._connection:
            self._forget_look()
            self._connection.executemany("INSERT INTO urgent VALUES (?)", [(account,) for account in sorted(urgent)])
            self._connection.execute("INSERT INTO looks VALUES (?)", [_utc(now)])
            return self._insert(messages, now)

    def forget_look(self) -> None:
        """The next look is the first one again."""
        with self._connection:
            self._forget_look()

    def _forget_look(self) -> None:
        self._connection.execute("DELETE FROM urgent")
        self._connection.execute("DELETE FROM looks")

    # -- what became of messages

    def entries(self, *states: str) -> list[Entry]:
        """Messages in these states: digests last, else oldest first."""
        marks = ", ".join("?" for _ in states)
        rows = self._connection.execute(
            "SELECT key, kind, address, content, made_at, state, attempts, next_at, said FROM messages "
            f"WHERE state IN ({marks}) ORDER BY kind = 'digest', made_at, key",
            states,
        )
        return [_entry(row) for row in rows]

    def set(self, key: str, **values: Any) -> None:
        named = ", ".join(f"{name} = ?" for name in values)
        with self._connection:
            self._connection.execute(f"UPDATE messages SET {named} WHERE key = ?", [*values.values(), key])

    def retry(self, now: datetime) -> int:
        """What failed is tried again from the first attempt on; returns how many."""
        with self._connection:
            done = self._connection.execute(
                "UPDATE messages SET state = 'waiting', attempts = 0, made_at = ?, next_at = ? WHERE state = 'failed'",
                [_utc(now)] * 2,
            )
        return done.rowcount

    def forget_old(self, now: datetime) -> None:
        with self._connection:
            for state, kept in (("sent", KEEP_SENT), ("failed", KEEP_FAILED)):
                self._connection.execute(
                    "DELETE FROM messages WHERE state = ? AND made_at < ?", [state, _utc(now - kept)]
                )


@contextmanager
def opened(path: Path) -> Iterator[Outbox]:
    """The outbox, for this process alone. Raises LockTimeoutError where another one has it for minutes."""
    make_folder(path.parent)
    with (
        file_lock(outbox_lock(path), _SECONDS_TO_WAIT, what="the outbox", who="notify"),
        closing(sqlite3.connect(path)) as connection,
    ):
        # what was sent leaves no trace in the file
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_TABLES)
        yield Outbox(connection)


def outbox_lock(path: Path) -> Path:
    return path.parent / ".lock"


def counts(path: Path) -> dict[str, int]:
    """Messages that wait, and those that failed, by state; nothing before the first was written."""
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        found = dict(connection.execute("SELECT state, count(*) FROM messages GROUP BY state").fetchall())
    return {"waiting": found.get("waiting", 0) + found.get("sending", 0), "failed": found.get("failed", 0)}


# ---------------------------------------------------------------- sending


def send_due(outbox: Outbox, channels: Mapping[str, Channel], now: Callable[[], datetime], say: Say) -> int:
    """Tries every message that is due, for half a minute at most; returns how many were taken.

    An address that does not take one message is asked again in the next round. `channels`: by name of the address.
    """
    if not channels:
        return 0
    _settle(outbox, channels, now())
    outbox.forget_old(now())
    end, away, taken = time.monotonic() + _ROUND_SECONDS, set[str](), 0
    for entry in outbox.entries("waiting"):
        if time.monotonic() >= end:
            break
        at = now()
        if entry.next_at > at or entry.address in away:
            continue
        if words := _why_never(entry, channels, at):
            outbox.set(entry.key, state="failed", said=words)
            say(f"{entry.key} is given up: {words}")
            continue
        try:
            _send(outbox, entry, channels[entry.address], at)
        except NotTakenError as error:
            away.add(entry.address)
            say(f"{entry.key} was not taken: {error}")
        else:
            taken += 1
            say(f"{entry.key} was taken")
    return taken


def _send(outbox: Outbox, entry: Entry, channel: Channel, at: datetime) -> None:
    attempts = entry.attempts + 1
    outbox.set(entry.key, state="sending", attempts=attempts)
    try:
        channel.deliver(entry.key, str(entry.content))
    except NotSetError as error:
        outbox.set(entry.key, state="waiting", attempts=entry.attempts, said=str(error))
        raise
    except NotTakenError as error:
        if attempts < ATTEMPTS:
            next_at = _utc(at + WAITS[attempts - 1])
            outbox.set(entry.key, state="waiting", said=str(error), next_at=next_at)
        else:
            outbox.set(entry.key, state="failed", said=str(error))
        raise
    outbox.set(entry.key, state="sent", content=None, said="")


def _settle(outbox: Outbox, channels: Mapping[str, Channel], at: datetime) -> None:
    """What was being sent when a process was killed: the lock is ours, so that process is gone."""
    for entry in outbox.entries("sending"):
        channel = channels.get(entry.address)
        if channel is None or channel.has_ids:
            outbox.set(entry.key, state="waiting", next_at=_utc(at))
        else:
            outbox.set(entry.key, state="failed", said="the process ended while it was sent: it may have arrived")


def _why_never(entry: Entry, channels: Mapping[str, Channel], at: datetime) -> str:
    if entry.address not in channels:
        return f"the configuration does not name {entry.address} any more"
    if at - entry.made_at > TOO_OLD:
        return f"it waited for {TOO_OLD.days} days" + (f"; at last {entry.said}" if entry.said else "")
    if entry.attempts >= ATTEMPTS:
        return "every attempt was ended before its answer came"
    return ""


def _utc(moment: datetime) -> str:
    # of one zone, so that texts sort as moments do
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _entry(row: tuple[Any, ...]) -> Entry:
    key, kind, address, content, made_at, state, attempts, next_at, said = row
    moments = (datetime.fromisoformat(made_at), datetime.fromisoformat(next_at))
    return Entry(key, kind, address, content, moments[0], state, attempts, moments[1], said)
