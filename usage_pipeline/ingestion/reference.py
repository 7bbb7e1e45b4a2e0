"""Reference data: accounts, subscriptions, contacts, applications.

Every delivery is kept in the history as it came, in the source's own columns, because it cannot be had again later:
what was known of a subscription in March is gone from the source in April. The tables of the `ref` schema are the
newest delivery, mapped; rows that cannot be used are kept aside with the reason.

People who were erased are left out of contacts before they are kept. A delivery that equals the one before is not
written again. One that cannot be right, or cannot be read, is held back (`deliveries.py`), and the tables stay those of
the delivery before. A source that is not configured gives an empty table.
"""

import hashlib
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import CurrencySettings, Settings, Source
from usage_pipeline.config.source_schemas import CONTACTS, SourceSchema
from usage_pipeline.core.formatting import as_text, without_values
from usage_pipeline.core.locks import file_lock
from usage_pipeline.ingestion import cells
from usage_pipeline.ingestion.cells import Reading
from usage_pipeline.ingestion.deliveries import (
    HeldBack,
    NoDeliveryError,
    clear,
    compare,
    deliveries,
    hold_back,
    problems_of,
    report_missing,
    write_delivery,
)
from usage_pipeline.ingestion.lake import Lake, LakeError, connect
from usage_pipeline.ingestion.sources import (
    PLACE,
    RAW,
    Mapping,
    Nearby,
    SourceError,
    columns_of,
    first_line,
    mapped_columns,
    match_columns,
    open_source,
    quoted,
    settle,
)
from usage_pipeline.privacy.encryption import PERSONAL, contacts_key, count_parquet, keep_spill_private, open_parquet
from usage_pipeline.privacy.erased import Erased

# the key of each reference table; subscriptions have none: several subscription periods of one application are normal
_KEYS = {
    "accounts": "account_id",
    "contacts": "account_id, user_id",
    "applications": "application",
    "crm_outcomes": "account_id, recorded_at",
}

NEVER_BEGAN = "ended before it began"


@dataclass(frozen=True)
class Delivery:
    """The delivery of a reference source that is in force.

    `held_back` says why a later one is not, with the remedy; None where this is the newest.
    """

    file: Path | None
    rows: int
    is_new: bool
    mapping: Mapping | None
    held_back: str | None = None


@dataclass(frozen=True)
class Loaded:
    """What became of a delivery: rows in the table, rows kept aside by reason, and cells that cannot be read by column.

    `notes` say what was read in one of several ways, and which setting changes it.
    """

    rows: int
    rejected: dict[str, int]
    notes: list[str] = field(default_factory=list)
    unreadable: dict[str, int] = field(default_factory=dict)


def take_delivery(settings: Settings, schema: SourceSchema) -> Delivery:
    """Reads a reference source and keeps it in the history, unless it equals the delivery before or cannot be right.

    What cannot be right, or cannot be read, is held back, and the delivery before is returned. Raises NoDeliveryError
    where there is none before, ContactsKeyError where what is kept of contacts cannot be opened.
    """
    source, as_of = settings.sources.get(schema.name), settings.clock.as_of
    if source is None:
        return Delivery(None, 0, False, None)
    is_secret = schema is CONTACTS and contacts_key() is not None
    nearby = Nearby(Lake(settings.store), settings.home.spill_dir, keeps_in_memory=is_secret)
    # an erasure that begins now waits, and then finds what was kept here
    lock = file_lock(settings.home.history_lock, settings.ingest.wait_seconds, what=str(settings.home.history_dir))
    try:
        with closing(connect()) as connection:
            if schema is CONTACTS:
                keep_spill_private(connection)
            reading = reading_of(settings.timezone, settings.currency, source)
            try:
                mapping = _read_whole(connection, nearby, reading, source, schema)
            except (LakeError, SourceError, duckdb.Error, OSError) as error:
                problems = error.problems if isinstance(error, SourceError) else [first_line(error)]
                reason = without_values("; ".join(problems))
                with lock:
                    return _without_delivery(settings.home.history_dir, as_of, reading, schema, source, reason)
            with lock:
                return _keep(connection, settings.home, as_of, reading, schema, source, mapping)
    finally:
        nearby.clear()


def reading_of(timezone: str, currency: CurrencySettings, source: Source) -> Reading:
    """How cells of a reference source are read; nothing of whole columns is settled yet."""
    return Reading.of(timezone, source, currency)


def settled_mapping(
    connection: duckdb.DuckDBPyConnection, reading: Reading, source: Source, schema: SourceSchema
) -> Mapping:
    """How the raw rows that are open become ours, with what their columns settle. Raises SourceError."""
    mapping = match_columns(connection, source, schema, reading)
    (settled,), notes = settle(connection, schema, [(RAW, mapping)])
    settled.notes.extend(notes)
    return settled


def _read_whole(
    connection: duckdb.DuckDBPyConnection, nearby: Nearby, reading: Reading, source: Source, schema: SourceSchema
) -> Mapping:
    """Makes `raw_rows` a copy of what the source holds now, every cell of which was read and mapped once.

    Raises LakeError, SourceError or duckdb.Error where that fails.
    """
    open_source(connection, nearby, schema, source, reading)
    connection.execute(f"CREATE TEMP TABLE delivered AS FROM {RAW}")
    connection.table("delivered").create_view(RAW, replace=True)
    mapping = settled_mapping(connection, reading, source, schema)
    mapped = ", ".join(mapped_columns(mapping, schema))
    connection.execute(f"SELECT count(COLUMNS(*)) FROM (SELECT {mapped} FROM {RAW})")
    return mapping


def _keep(
    connection: duckdb.DuckDBPyConnection,
    home: DataHome,
    as_of: datetime,
    reading: Reading,
    schema: SourceSchema,
    source: Source,
    mapping: Mapping,
) -> Delivery:
    """Writes the rows that are open to the history: in force, or held back; not where they are in force already."""
    erased = Erased.read(home.root)
    rows = _rows(connection, mapping, schema, erased)
    # of all rows: that a person was taken out makes no delivery new
    fingerprint = _fingerprint(connection)
    before = deliveries(home.history_dir, schema.name)
    if before and before[-1].stem.endswith(fingerprint):
        clear(home.history_dir, schema.name)
        return Delivery(before[-1], rows.num_rows, False, mapping)
    if before and not schema.adds:
        with connect() as other:
            if schema is CONTACTS:
                keep_spill_private(other)
            known = _read_taken(other, reading, before[-1], source, schema, erased)
            problems = problems_of(source, schema, compare(other, home.facts_dir, schema, (rows, mapping), known))
        if problems:
            held_back = hold_back(home.history_dir, as_of, schema.name, rows, fingerprint, problems)
            return _in_force(reading, schema, source, held_back)
    file = write_delivery(home.history_dir, as_of, schema.name, rows, fingerprint)
    return Delivery(file, rows.num_rows, True, mapping)


def _rows(
    connection: duckdb.DuckDBPyConnection, mapping: Mapping | None, schema: SourceSchema, erased: Erased
) -> pa.Table:
    if schema is CONTACTS and erased and mapping is not None:
        return _without_people(connection, mapping, schema, erased)
    return connection.execute(f"SELECT * FROM {RAW}").to_arrow_table()


def _read_taken(
    connection: duckdb.DuckDBPyConnection,
    reading: Reading,
    file: Path,
    source: Source,
    schema: SourceSchema,
    erased: Erased,
) -> tuple[pa.Table, Mapping | None]:
    """The rows of a delivery that was taken, and how they are mapped now; None where that does not fit them."""
    open_parquet(connection, file, RAW)
    try:
        mapping = settled_mapping(connection, reading, source, schema)
        return _rows(connection, mapping, schema, erased), mapping
    except (SourceError, duckdb.Error):
        return _rows(connection, None, schema, erased), None


def _without_delivery(
    history_dir: Path, as_of: datetime, reading: Reading, schema: SourceSchema, source: Source, reason: str
) -> Delivery:
    """The delivery in force, where there is nothing to take. Raises NoDeliveryError where none is in force."""
    if not deliveries(history_dir, schema.name):
        raise NoDeliveryError(
            f"no delivery of {as_text(schema.name)} can be read, and there is none before it: {reason}. Deliver it, "
            f"or take sources.{schema.name} out of the configuration"
        )
    return _in_force(reading, schema, source, report_missing(history_dir, as_of, schema.name, reason))


def _in_force(reading: Reading, schema: SourceSchema, source: Source, held_back: HeldBack) -> Delivery:
    """The delivery that stands while another is held back. Raises NoDeliveryError where it cannot be mapped now."""
    with connect() as connection:
        open_parquet(connection, held_back.in_force, RAW)
        try:
            mapping = settled_mapping(connection, reading, source, schema)
        except SourceError as error:
            raise NoDeliveryError(
                f"{as_text(schema.name)}: {held_back}. The one in force cannot be read as configured now: "
                f"{'; '.join(error.problems)}"
            ) from error
    rows = count_parquet(held_back.in_force)
    return Delivery(held_back.in_force, rows, False, mapping, str(held_back))


def person_columns(mapping: Mapping, schema: SourceSchema) -> tuple[str, str]:
    """SQL of the account and of the user that a row of a contacts source is about."""
    mapped = dict(zip(schema.names, mapped_columns(mapping, schema), strict=True))
    return mapped["account_id"].removesuffix(" AS account_id"), mapped["user_id"].removesuffix(" AS user_id")


def _without_people(
    connection: duckdb.DuckDBPyConnection, mapping: Mapping, schema: SourceSchema, erased: Erased
) -> pa.Table:
    """The rows of a contacts source, in its own columns, without those of erased people."""
    account, user = person_columns(mapping, schema)
    placed = f"(SELECT *, {account} AS _account_, {user} AS _user_ FROM {RAW}) AS placed"
    people = connection.execute(f"SELECT DISTINCT _account_, _user_ FROM {placed}").fetchall()
    gone = [(a, u) for a, u in people if erased.is_erased(a, u)]
    names = {"_account_": [a for a, _ in gone], "_user_": [u for _, u in gone]}
    connection.register("gone", pa.table({name: pa.array(ids, pa.string()) for name, ids in names.items()}))
    rows = connection.execute(
        f"SELECT placed.* EXCLUDE (_account_, _user_) FROM {placed} ANTI JOIN gone "
        "ON placed._account_ IS NOT DISTINCT FROM gone._account_ AND placed._user_ = gone._user_"
    ).to_arrow_table()
    connection.unregister("gone")
    return rows


def load_reference(connection: duckdb.DuckDBPyConnection, schema: SourceSchema, delivery: Delivery) -> Loaded:
    """Replaces `ref.<name>` with a delivery, mapped and typed; rows that cannot be used go to `ref.<name>_rejected`.

    Contacts are `personal.contacts`, in the file of their own.
    """
    columns = ", ".join(f"{c.name} {c.type}" for c in schema.columns)
    table = f"{PERSONAL if schema is CONTACTS else 'ref'}.{schema.name}"
    if delivery.file is None or delivery.mapping is None:
        connection.execute(f"CREATE OR REPLACE TABLE {table} ({columns})")
        connection.execute(f"CREATE OR REPLACE TABLE {table}_rejected ({columns}, reason VARCHAR)")
        return Loaded(0, {})
    # texts of the delivery are read by functions of ours; what has a zone is never moved by the machine's
    cells.install(connection)
    open_parquet(connection, delivery.file, RAW)
    mapping = delivery.mapping
    unread = {c.name: mapping.cell(c).unreadable for c in schema.columns if c.name in mapping.expressions}
    flags = [f"{sql} AS unread_{name}" for name, sql in unread.items()]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE judged AS SELECT *, {_reason(schema, list(unread))} AS reason "
        f"FROM ({placed_rows(connection, mapping, schema, *flags)})"
    )
    connection.execute(f"DROP VIEW {RAW}")
    ours = ", ".join(schema.names)
    # one that ended before it began makes no subscription, and still tells that its account never started
    connection.execute(
        f"CREATE OR REPLACE TABLE {table} AS SELECT {ours} FROM judged WHERE reason IS NULL OR reason = '{NEVER_BEGAN}'"
    )
    connection.execute(
        f"CREATE OR REPLACE TABLE {table}_rejected AS SELECT {ours}, reason FROM judged WHERE reason IS NOT NULL"
    )
    reasons = connection.execute("SELECT reason, count(*) FROM judged WHERE reason IS NOT NULL GROUP BY 1").fetchall()
    counts = ", ".join(f"count(*) FILTER (WHERE unread_{name})" for name in unread)
    cells_unread = connection.execute(f"SELECT {counts} FROM judged WHERE reason IS NULL").fetchone() or ()
    words = _unknown_words(connection, schema, mapping, delivery.file)
    kept = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.execute("DROP TABLE judged")
    assert kept is not None
    unreadable = {name: int(n) for name, n in zip(unread, cells_unread, strict=True) if n}
    return Loaded(kept[0], dict(reasons), words, unreadable)


def placed_rows(connection: duckdb.DuckDBPyConnection, mapping: Mapping, schema: SourceSchema, *others: str) -> str:
    """SQL of the mapped rows of `RAW` and their `place` among those of which only one counts: 1 counts.

    Subscriptions about the whole account run side by side, and would count twice where one row is delivered twice. Two
    that agree in what we read are two where another column of theirs, such as a number, tells them apart.
    """
    mapped = ", ".join([*mapped_columns(mapping, schema), *others])
    if schema.name == "subscriptions":
        theirs = ", ".join(quoted(name) for name in columns_of(connection) if name not in PLACE)
        same = f"row_number() OVER (PARTITION BY {theirs}) AS copy"
        place = "CASE WHEN application IS NULL THEN copy ELSE 1 END"
        return f"SELECT * EXCLUDE copy, {place} AS place FROM (SELECT {mapped}, {same} FROM {RAW})"
    key = _KEYS.get(schema.name)
    place = f"row_number() OVER (PARTITION BY {key})" if key else "1"
    return f"SELECT *, {place} AS place FROM (SELECT {mapped} FROM {RAW})"


def _unknown_words(
    connection: duckdb.DuckDBPyConnection, schema: SourceSchema, mapping: Mapping, file: Path
) -> list[str]:
    """Notes on words that nobody has told the meaning of: for the end of a subscription, for the status of a call."""
    if schema.name not in _WORD_COLUMNS or (column := _WORD_COLUMNS[schema.name][0]) not in mapping.expressions:
        return []
    _, effect, setting = _WORD_COLUMNS[schema.name]
    ours, _ = cells.WORDS[column]
    cell = mapping.cell(schema.column(column))
    open_parquet(connection, file, RAW)
    words = connection.execute(
        f"SELECT word, count(*) FROM (SELECT {cell.given} AS word, {cell.unreadable} AS is_unknown FROM {RAW}) "
        "WHERE is_unknown GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10"
    ).fetchall()
    connection.execute(f"DROP VIEW {RAW}")
    return [
        f"sources.{schema.name}.columns.{column}: '{word}' ({rows} rows) is none of {', '.join(ours)}; {effect}: "
        f"say which it is under sources.{schema.name}.{setting}"
        for word, rows in words
    ]


# the column whose words have a meaning of ours, what becomes of a row with another word, and the setting for it
_WORD_COLUMNS = {
    "subscriptions": ("end_reason", "the rows keep their days, and the reason is unknown", "end_reasons"),
    "crm_outcomes": ("call_status", "the rows are kept aside", "call_statuses"),
}

# columns that decide what a row means: where one cannot be read, the row is kept aside
DECIDING = {
    "subscriptions": ("application", "start_date", "end_date", "notice_date"),
    "known_causes": ("account_id", "application", "first_day", "last_day"),
    "crm_outcomes": ("snoozed_until",),
}


def _reason(schema: SourceSchema, delivered: list[str]) -> str:
    cases = [f"WHEN {name} IS NULL THEN 'no {name}, or one that cannot be read'" for name in schema.required]
    cases += [
        f"WHEN unread_{name} THEN '{name} cannot be read'"
        for name in DECIDING.get(schema.name, ())
        if name in delivered and name not in schema.required
    ]
    same = "same row once more" if schema.name == "subscriptions" else "same key as another row"
    cases.append(f"WHEN place > 1 THEN '{same}'")
    if schema.name == "subscriptions":
        cases.append(f"WHEN end_date < start_date THEN '{NEVER_BEGAN}'")
    return f"CASE {' '.join(cases)} END"


def _fingerprint(connection: duckdb.DuckDBPyConnection) -> str:
    """Of the rows as delivered, whatever their order: equal deliveries have equal fingerprints."""
    found = connection.execute(f"SELECT count(*), sum(CAST(hash(r) AS HUGEINT)) FROM {RAW} AS r").fetchone()
    columns = connection.execute(f"DESCRIBE {RAW}").fetchall()
    return hashlib.sha256(repr((found, [c[:2] for c in columns])).encode()).hexdigest()[:12]
