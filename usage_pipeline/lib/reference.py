"""Reference data: accounts, subscriptions, contacts, applications.

Every delivery is kept in the ledger as it came, in the source's own columns, because it cannot be had again later:
what was known of a contract in March is gone from the source in April. The tables of the `ref` schema are the
newest delivery, mapped; rows that cannot be used are kept aside with the reason.

People who were erased are left out of contacts before they are kept. A delivery that equals the one before is not
written again. A source that is not configured gives an empty table.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.config import Settings
from usage_pipeline.lib.contract import END_REASONS, SourceContract
from usage_pipeline.lib.erased import Erased
from usage_pipeline.lib.files import put_whole
from usage_pipeline.lib.lake import Lake
from usage_pipeline.lib.locks import exclusive
from usage_pipeline.lib.sources import RAW, Mapping, mapped_columns, match_columns, open_source

# the key of each reference table; subscriptions have none: several spells of one application are normal
_KEYS = {"accounts": "account_id", "contacts": "account_id, user_id", "applications": "application"}

NEVER_BEGAN = "ended before it began"


@dataclass(frozen=True)
class Delivery:
    """What a reference source delivered."""

    file: Path | None
    rows: int
    is_new: bool
    mapping: Mapping | None


@dataclass(frozen=True)
class Loaded:
    """What became of a delivery: rows in the table, and rows kept aside by reason."""

    rows: int
    rejected: dict[str, int]


def deliveries(settings: Settings, name: str) -> list[Path]:
    """Every delivery of a source that the ledger keeps, oldest first."""
    return sorted((settings.ledger_dir / "reference" / name).glob("*.parquet"))


def take_delivery(settings: Settings, contract: SourceContract) -> Delivery:
    """Reads a reference source and keeps it in the ledger, unless it equals the delivery before.

    Raises LakeError or SourceError, naming the key and the remedy.
    """
    source = settings.sources.get(contract.name)
    if source is None:
        return Delivery(None, 0, False, None)
    lake = Lake(settings)
    connection = lake.connect()
    # an erasure that begins now waits, and then finds what was kept here
    lock = exclusive(ledger_lock(settings), settings.ingest.wait_seconds, what=str(settings.ledger_dir))
    try:
        open_source(connection, lake, contract.name, source)
        mapping = match_columns(connection, source, contract)
        with lock:
            return _keep(connection, settings, contract, mapping)
    finally:
        connection.close()


def ledger_lock(settings: Settings) -> Path:
    """Held by whoever writes deliveries or takes people out of them."""
    return settings.ledger_dir / ".lock"


def _keep(
    connection: duckdb.DuckDBPyConnection, settings: Settings, contract: SourceContract, mapping: Mapping
) -> Delivery:
    """Writes the rows that are open to the ledger, unless they equal the delivery before."""
    erased = Erased.read(settings.home)
    if contract.name == "contacts" and erased:
        rows = _without_people(connection, mapping, contract, erased)
    else:
        rows = connection.execute(f"SELECT * FROM {RAW}").to_arrow_table()
    # of all rows: that a person was taken out makes no delivery new
    fingerprint = _fingerprint(connection)
    before = deliveries(settings, contract.name)
    if before and before[-1].stem.endswith(fingerprint):
        return Delivery(before[-1], rows.num_rows, False, mapping)
    # numbered, because two deliveries can be taken on one as_of
    name = f"{len(before) + 1:05d}_{settings.as_of:%Y%m%dT%H%M%S}_{fingerprint}.parquet"
    file = settings.ledger_dir / "reference" / contract.name / name
    with put_whole(file) as unfinished:
        pq.write_table(rows, unfinished, compression="zstd")
    return Delivery(file, rows.num_rows, True, mapping)


def person_columns(mapping: Mapping, contract: SourceContract) -> tuple[str, str]:
    """SQL of the account and of the user that a row of a contacts source is about."""
    mapped = dict(zip(contract.names, mapped_columns(mapping, contract), strict=True))
    return mapped["account_id"].removesuffix(" AS account_id"), mapped["user_id"].removesuffix(" AS user_id")


def _without_people(
    connection: duckdb.DuckDBPyConnection, mapping: Mapping, contract: SourceContract, erased: Erased
) -> pa.Table:
    """The rows of a contacts source, in its own columns, without those of erased people."""
    account, user = person_columns(mapping, contract)
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


def load_reference(connection: duckdb.DuckDBPyConnection, contract: SourceContract, delivery: Delivery) -> Loaded:
    """Replaces `ref.<name>` with a delivery, mapped and typed; rows that cannot be used go to `ref.<name>_rejected`."""
    columns = ", ".join(f"{c.name} {c.type}" for c in contract.columns)
    table = f"ref.{contract.name}"
    if delivery.file is None or delivery.mapping is None:
        connection.execute(f"CREATE OR REPLACE TABLE {table} ({columns})")
        connection.execute(f"CREATE OR REPLACE TABLE {table}_rejected ({columns}, reason VARCHAR)")
        return Loaded(0, {})
    connection.read_parquet(str(delivery.file)).create_view(RAW, replace=True)
    mapped = f"SELECT {', '.join(mapped_columns(delivery.mapping, contract))} FROM {RAW}"
    key = _KEYS.get(contract.name)
    place = f"row_number() OVER (PARTITION BY {key})" if key else "1"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE judged AS SELECT *, {_reason(contract)} AS reason "
        f"FROM (SELECT *, {place} AS place FROM ({mapped}))"
    )
    connection.execute(f"DROP VIEW {RAW}")
    # one that ended before it began makes no contract, and still tells that its account never started
    connection.execute(
        f"CREATE OR REPLACE TABLE {table} AS SELECT * EXCLUDE (place, reason) FROM judged "
        f"WHERE reason IS NULL OR reason = '{NEVER_BEGAN}'"
    )
    connection.execute(
        f"CREATE OR REPLACE TABLE {table}_rejected AS SELECT * EXCLUDE (place) FROM judged WHERE reason IS NOT NULL"
    )
    reasons = connection.execute("SELECT reason, count(*) FROM judged WHERE reason IS NOT NULL GROUP BY 1").fetchall()
    kept = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.execute("DROP TABLE judged")
    assert kept is not None
    return Loaded(kept[0], dict(reasons))


def _reason(contract: SourceContract) -> str:
    cases = [f"WHEN {name} IS NULL THEN 'no {name}, or one that cannot be read'" for name in contract.required]
    cases.append("WHEN place > 1 THEN 'same key as another row'")
    if contract.name == "subscriptions":
        known = ", ".join(f"'{reason}'" for reason in END_REASONS)
        cases.append(f"WHEN end_date < start_date THEN '{NEVER_BEGAN}'")
        cases.append(f"WHEN end_reason NOT IN ({known}) THEN 'end_reason is none of {known.replace(chr(39), '')}'")
    return f"CASE {' '.join(cases)} END"


def _fingerprint(connection: duckdb.DuckDBPyConnection) -> str:
    """Of the rows as delivered, whatever their order: equal deliveries have equal fingerprints."""
    found = connection.execute(f"SELECT count(*), sum(CAST(hash(r) AS HUGEINT)) FROM {RAW} AS r").fetchone()
    columns = connection.execute(f"DESCRIBE {RAW}").fetchall()
    return hashlib.sha256(repr((found, [c[:2] for c in columns])).encode()).hexdigest()[:12]
