"""Erasing a person for good from everything below the data home; a person is (account_id, user_id).

Belongs here: finding and removing what is there. Does not: keeping the person out of what comes in again (`erased.py`).

Contacts lose the person's rows. Usage keeps its rows, under a random key in the place of the user id, so that clicks
and different users stay as they were. The person is put on the list first, so that whatever is written meanwhile is
written without them; then each file is replaced whole by a rename. Nothing rests on what a run before had done: one
that was killed is run again, from the start, and a second run finds nothing.

DuckDB leaves what was deleted in its file until the place is needed: the warehouse is copied to a new one.

What killed processes left is removed first, place by place. At the end everything below the home is searched, also in
files that nobody knows: where the person stands still, the erasure fails and names the file.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import Settings, Sources
from usage_pipeline.config.source_schemas import CONTACTS
from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.made_of import forget_all
from usage_pipeline.core.names import UnknownNameError, resolve
from usage_pipeline.ingestion.cells import Reading
from usage_pipeline.ingestion.deliveries import deliveries_of_contacts
from usage_pipeline.ingestion.facts import facts_lock, facts_path, read_manifests
from usage_pipeline.ingestion.reference import person_columns
from usage_pipeline.ingestion.sources import RAW, SourceError, columns_of, mapped_columns, match_columns, quoted
from usage_pipeline.observability.explain import accounts_of
from usage_pipeline.operations.data_home import clean_facts, clean_history, clean_warehouse, place_of, walk
from usage_pipeline.outcomes.records import files_in, forget_note, kept_folder, read
from usage_pipeline.privacy.encryption import (
    ContactsKeyError,
    count_parquet,
    open_database,
    open_parquet,
    open_to_write,
    parquet_rows,
    rewrite,
    write_contacts,
)
from usage_pipeline.privacy.erased import Erased, forget_users, remember, replace_users
from usage_pipeline.privacy.traces import UnreadableError, rows_that_tell, tells_of
from usage_pipeline.publishing.builds import Build, BuildStore
from usage_pipeline.resources import warehouse_of

Progress = Callable[[str], None]
# a shorter id stands in every log by chance
_TELLING = 5
_IS_PERSON = "user_id = $user AND (account_id = $account OR account_id IS NULL)"
# digits of the shortest telephone number that tells a person
_PHONE_DIGITS = 7
# compressed: of the logs and states of others they are not looked into
_TABLES = (".parquet", ".duckdb", ".skops")


class EraseError(Exception):
    """The person is not erased, or not everywhere; the message says why, or where."""


@dataclass
class Erasure:
    """What was found, by place (rows), and what is left to somebody else, in words."""

    account: str
    user: str
    key: str | None = None
    places: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        return sum(self.places.values())

    def as_text(self, *, dry: bool) -> list[str]:
        """What was found or removed by place, and what is left, a line each."""
        about = f"user {self.user} of account {self.account}"
        if dry:
            lines = [f"{about} stands in {self.found:,} rows; nothing was changed"]
        elif self.found:
            lines = [f"{about} is erased from {self.found:,} rows; their use is counted as {self.key}"]
        else:
            lines = [f"{about} was erased before; nothing of them was found"]
        lines += [f"  {rows:>9,} {'row ' if rows == 1 else 'rows'}  {place}" for place, rows in self.places.items()]
        return [*lines, "not reached:", *(f"  {note}" for note in self.notes)]


def erase(
    settings: Settings, account: str, user: str, *, dry: bool = False, progress: Progress = lambda _: None
) -> Erasure:
    """Erases a person, or with `dry` only says where they stand.

    Raises EraseError where nothing is known of such a person, UnclearNameError where the account's name is that of
    several, LockTimeoutError where a run holds what is wanted for too long.
    """
    home, sources, wait_seconds = settings.home, settings.sources, settings.ingest.wait_seconds
    account_id, near = _account(home, wait_seconds, account)
    user_id = user.strip()
    person = _Person(home, sources, settings.timezone, wait_seconds, account_id, user_id)
    with _whatever_cannot_be_read(account_id, user_id):
        seen = person.look()
    known_before = Erased.read(home.root).key_of(account_id, user_id)
    if not person.is_known and known_before is None:
        raise EraseError(near or person.not_found())
    words = [user_id, *sorted(person.details)]
    if dry:
        seen.key = known_before
        seen.notes = _not_reached(home.root, sources, words)
        return seen
    remember(home.root, account_id, user_id)
    with _whatever_cannot_be_read(account_id, user_id):
        done = person.remove(progress)
        person.must_be_gone()
    done.key = Erased.read(home.root).key_of(account_id, user_id)
    done.notes = _not_reached(home.root, sources, words)
    return done


@contextmanager
def _whatever_cannot_be_read(account: str, user: str) -> Iterator[None]:
    """Fails in words where a file is broken: the person may stand in it."""
    try:
        yield
    except ContactsKeyError as error:
        raise EraseError(f"user {user} of account {account} is not erased everywhere: {error}") from None
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        told = f"user {user} of account {account} is not erased everywhere: {error}"
        raise EraseError(f"{told}: mend or remove what cannot be read, and run this again") from error


def _account(home: DataHome, wait_seconds: float, text: str) -> tuple[str, str | None]:
    """The id of an account, by id or name; and what to say if nobody is found under an account that is not known.

    An account that only contacts name is known nowhere else, so a text that is no name is taken as an id.
    """
    if not home.warehouse_path.exists():
        return text.strip(), None
    with warehouse_of(home, wait_seconds).read() as connection:
        try:
            return resolve("account", text, accounts_of(connection)).key, None
        except UnknownNameError as error:
            return text.strip(), str(error)
        except duckdb.CatalogException:
            return text.strip(), None


class _Person:
    """One person, and every place below the home that can name them."""

    def __init__(
        self, home: DataHome, sources: Sources, timezone: str, wait_seconds: float, account: str, user: str
    ) -> None:
        self.home, self.sources, self.timezone, self.wait_seconds = home, sources, timezone, wait_seconds
        self.account, self.user = account, user
        self.values = {"account": account, "user": user}
        self.store = BuildStore(home.published_dir)
        # by which they can be told where there are no columns: addresses and numbers; and names, which others may have
        self.details: set[str] = set()
        self.names: set[str] = set()
        # whether a row names account and user both: one that names no account may be of anybody of that id
        self.is_known = False

    # ---------------------------------------------------------------- looking

    def look(self) -> Erasure:
        """Rows by place, and the addresses by which the person may stand elsewhere; changes nothing."""
        places = {
            "contacts as delivered (history)": sum(self._in_delivery(f) for f in self._deliveries()),
            "rejected rows (history)": sum(self._in_parquet(f) for f in self._rejected()),
            "facts": sum(self._in_parquet(f, or_none=False) for f in self._facts()),
        }
        if self.home.warehouse_path.exists():
            with warehouse_of(self.home, self.wait_seconds).read() as connection:
                places |= self._in_tables(connection, "warehouse")
        if self.home.private_contacts_path.exists():
            with (
                warehouse_of(self.home, self.wait_seconds).locked(),
                open_database(self.home.private_contacts_path) as connection,
            ):
                places |= self._in_tables(connection, "private contacts")
        for build in self.store.builds():
            if (file := self._contacts_of(build)).exists():
                with open_database(file) as connection:
                    places |= self._in_tables(connection, f"build {build.build_id}")
        # now that their addresses and names are known
        places["notes on outcomes"] = len(self._telling_notes())
        return Erasure(self.account, self.user, places={place: rows for place, rows in places.items() if rows})

    def not_found(self) -> str:
        """What to say where nothing is known of them, with the ids of the account that come near."""
        known: list[str] = []
        for file in (self.home.warehouse_path, self.home.private_contacts_path):
            if not file.exists():
                continue
            with warehouse_of(self.home, self.wait_seconds).locked(), open_database(file) as connection:
                for table, _ in _tables_with_users(connection):
                    sql = f"SELECT DISTINCT user_id FROM {table} WHERE account_id = $account AND user_id IS NOT NULL"
                    known += [row[0] for row in connection.execute(sql, {"account": self.account}).fetchall()]
        near = difflib.get_close_matches(self.user, sorted(set(known)), n=5, cutoff=0.5)
        hint = f"; near: {', '.join(near)}" if near else ""
        return f"nothing is known of user '{self.user}' of account {self.account}, and nobody was erased{hint}"

    def _telling_notes(self) -> list[Path]:
        """Records whose note tells of them: by an address or id that tells, or, of their own account, by their name."""
        found = []
        for folder in (kept_folder(self.home.history_dir), self.home.feedback_dir):
            for file in files_in(folder):
                record = read(file).record
                if record is None or record.note is None:
                    continue
                is_own = record.account_id == self.account
                words = {*self.details, self.user} if is_own or len(self.user) >= _TELLING else self.details
                if any(_is_word_of(word, record.note.text) for word in {*words, *(self.names if is_own else ())}):
                    found.append(file)
        return found

    def _forget_note(self, file: Path) -> None:
        """Raises EraseError where the note lies where Superset alone may write."""
        try:
            forget_note(file)
        except OSError as error:
            record_id = file.stem.rpartition("-")[2]
            raise EraseError(
                f"user {self.user} of account {self.account} is not erased everywhere: a note in {file} can be taken "
                f"out by Superset alone: `docker compose exec superset usage forget-notes {record_id}`, then this again"
            ) from error

    def _facts(self) -> list[Path]:
        return [facts_path(self.home.facts_dir, week) for week in read_manifests(self.home.facts_dir)]

    def _rejected(self) -> list[Path]:
        return sorted((self.home.history_dir / "rejected").glob("week=*/*.parquet"))

    def _deliveries(self) -> list[Path]:
        return deliveries_of_contacts(self.home.history_dir)

    def _reasons_to_hold_back(self) -> list[Path]:
        return sorted((self.home.history_dir / "reference" / CONTACTS.name / "held_back").glob("*.json"))

    def _contacts_of(self, build: Build) -> Path:
        return self.store.path(build.build_id) / "contacts.duckdb"

    def _in_parquet(self, file: Path, *, or_none: bool = True) -> int:
        users = pq.read_table(file, columns=["account_id"], filters=[("user_id", "=", self.user)])
        accounts: list[str | None] = users["account_id"].to_pylist()
        self.is_known |= self.account in accounts
        return accounts.count(self.account) + (accounts.count(None) if or_none else 0)

    def _in_delivery(self, file: Path) -> int:
        with duckdb.connect() as connection:
            open_parquet(connection, file, RAW)
            of_person = self._is_person(connection)
            rows = connection.execute(f"FROM {RAW} WHERE {of_person}", self.values).fetchall()
            named = self._is_person(connection, or_none=False)
            self.is_known |= connection.execute(f"FROM {RAW} WHERE {named} LIMIT 1", self.values).fetchone() is not None
            if name := self._name_column(connection):
                self._note_names(connection.execute(f"SELECT {name} FROM {RAW} WHERE {of_person}", self.values))
        for row in rows:
            self._note(row)
        return len(rows)

    def _name_column(self, connection: duckdb.DuckDBPyConnection) -> str | None:
        """SQL of the name in an open delivery; None where it delivers none, or cannot be mapped."""
        source = self.sources.contacts
        if source is None or not source.delivers("name"):
            return None
        with suppress(SourceError):
            reading = Reading.of(self.timezone, source)
            mapped = mapped_columns(match_columns(connection, source, CONTACTS, reading), CONTACTS)
            return dict(zip(CONTACTS.names, mapped, strict=True))["name"].removesuffix(" AS name")
        return None

    def _is_person(self, connection: duckdb.DuckDBPyConnection, *, or_none: bool = True) -> str:
        """SQL for whether a row of an open delivery is the person's; with `or_none`, may be."""
        source = self.sources.contacts
        if source is not None:
            # of a time when its columns were others, a delivery cannot be mapped
            with suppress(SourceError):
                reading = Reading.of(self.timezone, source)
                account, user = person_columns(match_columns(connection, source, CONTACTS, reading), CONTACTS)
                told = f"coalesce({account}, $account)" if or_none else account
                return f"{user} = $user AND {told} = $account"
        listed = ", ".join(f"trim(CAST({quoted(name)} AS VARCHAR))" for name in columns_of(connection))
        return f"$user IN ({listed}) AND $account IN ({listed})"

    def _in_tables(self, connection: duckdb.DuckDBPyConnection, where: str) -> dict[str, int]:
        places = {}
        for table, is_contacts in _tables_with_users(connection):
            rows = connection.execute(f"SELECT account_id, * FROM {table} WHERE {_IS_PERSON}", self.values).fetchall()
            places[f"{where}, {table}"] = len(rows)
            self.is_known |= any(account == self.account for account, *_ in rows)
            for row in rows if is_contacts else []:
                self._note(row)
            if is_contacts:
                self._note_names(connection.execute(f"SELECT name FROM {table} WHERE {_IS_PERSON}", self.values))
        return places

    def _note(self, values: Iterable[object]) -> None:
        """Keeps the person's addresses and telephone numbers in mind, to look for them in what is no table."""
        texts = [value.strip() for value in values if isinstance(value, str)]
        self.details |= {text for text in texts if text != self.user and ("@" in text or _is_phone(text))}

    def _note_names(self, found: duckdb.DuckDBPyConnection) -> None:
        texts = [str(name).strip() for (name,) in found.fetchall() if name is not None]
        self.names |= {text for text in texts if len(text) >= _TELLING}

    # ---------------------------------------------------------------- searching what is left

    def must_be_gone(self) -> None:
        """Looks into every file below the home, known or not. Raises EraseError naming those that tell of them."""
        wrong = [f"{place}: {rows:,} rows" for place, rows in self.look().places.items()]
        shared = self._shared()
        telling, names = sorted(self.details - shared), sorted(self.names - shared)
        foreign = _foreign_folders(self.home.root, self.sources)
        for file in walk(self.home.root):
            place = place_of(self.home.root, file)
            is_foreign = any(file.is_relative_to(folder) for folder in foreign)
            if file.is_symlink() or is_foreign or (place and place.personal == "logs"):
                continue
            is_known = place is not None and place.knows(PurePosixPath(file.relative_to(self.home.root)))
            user = [self.user] if len(self.user) >= _TELLING else []
            words = telling if is_known else [*telling, *names, *user]
            try:
                told = tells_of(file, words, None if is_known else (self.account, self.user))
            except UnreadableError as error:
                wrong.append(str(error))
                continue
            if told is not None:
                wrong.append(f"{file} holds {self._kind_of(told)}")
        if wrong:
            raise EraseError(
                f"user {self.user} of account {self.account} is erased from all that is known, and not from: "
                f"{'; '.join(wrong)}. Remove it by hand, all of it: another run knows their id and no address"
            )

    def _kind_of(self, told: str) -> str:
        """What was found, without saying it: messages go into logs."""
        kind = (
            "their name" if told in self.names else "a row of theirs" if told not in self.details else "their address"
        )
        return "their id" if told == self.user else kind

    def _shared(self) -> set[str]:
        """Of their details, those that stand in the contacts of others, now that their own rows are gone."""
        words = sorted(self.details | self.names)
        shared: set[str] = set()

        def look_into(connection: duckdb.DuckDBPyConnection, source: str) -> None:
            while left := [word for word in words if word not in shared]:
                if (word := rows_that_tell(connection, source, left)) is None:
                    return
                shared.add(word)

        for file in self._deliveries():
            with duckdb.connect() as connection:
                look_into(connection, parquet_rows(connection, file))
        private = self.home.private_contacts_path
        if words and private.exists():
            with warehouse_of(self.home, self.wait_seconds).locked(), open_database(private) as connection:
                for table in [table for table, is_contacts in _tables_with_users(connection) if is_contacts]:
                    look_into(connection, table)
        return shared

    # ---------------------------------------------------------------- removing

    def remove(self, progress: Progress) -> Erasure:
        """Takes the person out of every place; they stand on the list already."""
        home, wait, erased = self.home, self.wait_seconds, Erased.read(self.home.root)
        done = Erasure(self.account, self.user)
        with file_lock(home.history_lock, wait, what=str(home.history_dir), who="erase", progress=progress):
            _say(clean_history(home.history_dir), progress)
            place = "contacts as delivered (history)"
            done.places[place] = sum(self._rewrite_delivery(file) for file in self._deliveries())
            done.places["reasons to hold back (history)"] = sum(map(self._rewrite_reason, self._reasons_to_hold_back()))
            telling = self._telling_notes()
            for file in telling:
                self._forget_note(file)
            done.places["notes on outcomes"] = len(telling)
        with file_lock(facts_lock(home.facts_dir), wait, what=str(home.facts_dir), who="erase", progress=progress):
            # also what readers that were killed have spilled: nobody reads while this is held
            _say(clean_facts(home), progress)
            done.places["rejected rows (history)"] = sum(forget_users(file, erased) for file in self._rejected())
            done.places["facts"] = sum(replace_users(file, erased) for file in self._facts())
        warehouse = warehouse_of(home, wait)
        with warehouse.locked():
            _say(clean_warehouse(home), progress)
            databases = {
                "warehouse": home.warehouse_path,
                "private contacts": home.private_contacts_path,
            }
            for where, file in databases.items():
                if file.exists():
                    done.places |= self._rewrite_database(file, where, erased)
        with warehouse.locked():
            for build in self.store.builds():
                progress(f"build {build.build_id}")
                gone = self.store.rewrite_contacts(build, f"({_IS_PERSON}) IS NOT TRUE", self.values)
                done.places[f"build {build.build_id}, contacts"] = gone
        done.places = {place: rows for place, rows in done.places.items() if rows}
        return done

    def _rewrite_delivery(self, file: Path) -> int:
        with duckdb.connect() as connection:
            open_parquet(connection, file, RAW)
            is_other = f"({self._is_person(connection)}) IS NOT TRUE"
            rows = connection.execute(f"FROM {RAW} WHERE {is_other}", self.values).to_arrow_table()
        gone = count_parquet(file) - int(rows.num_rows)
        if gone:
            with atomic_write(file) as tmp_path:
                write_contacts(tmp_path, rows)
        return gone

    def _rewrite_reason(self, file: Path) -> int:
        """Takes the person's id and details out of the text beside a delivery that is held back; returns the places."""
        text, gone = file.read_text(encoding="utf-8"), 0
        for word in sorted({self.user, *self.details, *self.names}, key=len, reverse=True):
            # as JSON writes it, and as a whole word: ids can be short
            written = re.escape(json.dumps(word)[1:-1])
            text, count = re.subn(rf"(?<![\w@.-]){written}(?![\w@-])", "(erased)", text)
            gone += count
        if gone:
            with atomic_write(file) as tmp_path:
                tmp_path.write_text(text, encoding="utf-8")
        return gone

    def _rewrite_database(self, file: Path, where: str, erased: Erased) -> dict[str, int]:
        """Removes the person from every table that names users, and copies the file without what was deleted.

        The caller keeps others away from the file.
        """
        places: dict[str, int] = {}
        with_key = {**self.values, "key": erased.key_of(self.account, self.user)}
        with open_to_write(file) as connection:
            connection.execute("BEGIN")
            for table, is_contacts in _tables_with_users(connection):
                if is_contacts:
                    done = connection.execute(f"DELETE FROM {table} WHERE {_IS_PERSON}", self.values)
                else:
                    done = connection.execute(f"UPDATE {table} SET user_id = $key WHERE {_IS_PERSON}", with_key)
                counted = done.fetchone()
                places[f"{where}, {table}"] = int(counted[0]) if counted else 0
            forget_all(connection)
            connection.execute("COMMIT")
            # a log that was left beside the new file would be played into it
            connection.execute("CHECKPOINT")
        rewrite(file)
        return places


def _tables_with_users(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, bool]]:
    """Every table that names users, and whether it is one of contacts, which says more of a person than their id."""
    return connection.execute(
        "SELECT if(schema_name = 'main', '', schema_name || '.') || table_name, bool_or(column_name = 'email') "
        "FROM duckdb_columns() WHERE NOT internal AND database_name = current_database() GROUP BY ALL "
        "HAVING bool_or(column_name = 'user_id') AND bool_or(column_name = 'account_id') ORDER BY 1"
    ).fetchall()


def _is_word_of(word: str, text: str) -> bool:
    """Whether a text holds a word as a whole one, in capitals or not."""
    return re.search(rf"(?<![\w@.-]){re.escape(word)}(?![\w@-])", text, re.IGNORECASE) is not None


def _is_phone(text: str) -> bool:
    return sum(c.isdigit() for c in text) >= _PHONE_DIGITS and re.fullmatch(r"[\d\s()+./x-]+", text) is not None


def _say(lines: Iterable[str], progress: Progress) -> None:
    for line in lines:
        progress(line)


# ---------------------------------------------------------------- what is left to others


def _lake_paths(sources: Sources) -> list[str]:
    """Where people come from."""
    of_people = [source for source in (sources.usage, sources.contacts) if source]
    return list(dict.fromkeys(shape.path for source in of_people for shape in source.file_sets.values()))


def _foreign_folders(home: Path, sources: Sources) -> list[Path]:
    """The lake, where it lies below the home: it is somebody else's there too."""
    found = [Path(re.split(r"[*?\[{]", path)[0]) for path in _lake_paths(sources) if "://" not in path]
    return [path for path in found if path != home and path.is_relative_to(home)]


def _not_reached(home: Path, sources: Sources, words: list[str]) -> list[str]:
    """What a command of ours cannot erase, or has no right to, in words."""
    paths = _lake_paths(sources)
    lake = (
        f"the lake ({', '.join(paths)}) is somebody else's: ask for the person to be deleted there. Until then every "
        "delivery is kept out by the list of erased people"
    )
    notes = [lake, "backups and copies of the data home, and what people have downloaded from dashboards"]
    telling = [word for word in words if len(word) >= _TELLING]
    for file in _files_that_say(home, telling):
        notes.append(f"{file} still says the id or an e-mail address: a log or a state of Dagster or Superset")
    if short := [word for word in words if len(word) < _TELLING]:
        notes.append(f"logs were not searched for '{short[0]}', which is too short to tell a person by")
    return notes


def _files_that_say(home: Path, words: list[str]) -> list[Path]:
    """Files that are no tables and hold one of the words."""
    needles = [word.encode() for word in words]
    found = []
    for file in walk(home):
        place = place_of(home, file)
        if file.is_symlink() or file.suffix in _TABLES or not (place and place.personal == "logs"):
            continue
        with file.open("rb") as stream:
            before = b""
            while part := stream.read(1 << 24):
                # a word may lie across two parts
                if any(needle in before + part for needle in needles):
                    found.append(file)
                    break
                before = part[-200:]
    return found
