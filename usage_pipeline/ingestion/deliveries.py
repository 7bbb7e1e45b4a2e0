"""Deliveries of reference sources that cannot be right: found, held back, and accepted by a person.

Belongs here: comparing a delivery with the one in force, keeping what is held back, and what is said of it. Does not:
reading a source and loading a delivery (`reference.py`), nor where it is shown (`health.py`, `judgement.py`).

The newest delivery that is held back lies in `history/reference/<source>/held_back/`: the rows as they came, as
Parquet,
and `held_back.json` with the reasons. A source that is missing, or cannot be read, is held back too: then there are no
rows to keep, and those that were held back before stay. A delivery that is taken clears the folder; an accepted one
moves out of it, and the next refresh loads it. Reasons name ids of accounts and applications, never of contacts.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import DeliverySettings, Source, Sources
from usage_pipeline.config.source_schemas import CONTACTS, REFERENCE, SourceSchema
from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.formatting import as_text, counted, day
from usage_pipeline.core.locks import file_lock
from usage_pipeline.ingestion.sources import Mapping, mapped_columns
from usage_pipeline.privacy.encryption import count_parquet, write_contacts

SOURCES = tuple(schema.name for schema in REFERENCE)
# what tells the rows of a source apart over time; known causes have nothing that does
_KEYS = {
    "accounts": ("account_id",),
    "subscriptions": ("account_id",),
    "contacts": ("account_id", "user_id"),
    "applications": ("application",),
}
# what is compared with usage; a subscription without an application is one to all of them
_IN_USE = {
    "accounts": ("account_id",),
    "subscriptions": ("account_id", "application"),
    "contacts": ("account_id",),
    "applications": ("application",),
}
_IN_USE_WORDS = {"subscriptions": "accounts and applications", "applications": "applications"}
_USAGE_WEEKS = 8
# ids of usage that have to be known before, where too few are in use to go by shares
_FEWEST_MATCHED = 3
_EXAMPLES = 3


class NoDeliveryError(Exception):
    """There is no delivery to go on with, or none to accept; the message is one sentence with the remedy."""


# ---------------------------------------------------------------- what is kept


def deliveries(history_dir: Path, name: str) -> list[Path]:
    """Every delivery of a source that was taken, oldest first; the last one is in force."""
    return sorted(_folder(history_dir, name).glob("*.parquet"))


def delivered_at(file: Path) -> datetime:
    """The `as_of` of the run that read a delivery."""
    return datetime.strptime(file.stem.split("_")[1], "%Y%m%dT%H%M%S")


def write_delivery(history_dir: Path, as_of: datetime, name: str, rows: pa.Table, fingerprint: str) -> Path:
    """Puts a delivery in force, and clears what was held back."""
    file = _folder(history_dir, name) / _file_name(history_dir, as_of, name, fingerprint)
    _write(file, name, rows)
    clear(history_dir, name)
    return file


def _folder(history_dir: Path, name: str) -> Path:
    return history_dir / "reference" / name


def _file_name(history_dir: Path, as_of: datetime, name: str, fingerprint: str) -> str:
    # numbered, because two deliveries can be taken on one as_of
    number = len(deliveries(history_dir, name)) + 1
    return f"{number:05d}_{as_of:%Y%m%dT%H%M%S}_{fingerprint}.parquet"


def _write(file: Path, name: str, rows: pa.Table) -> None:
    with atomic_write(file) as tmp_path:
        if name == CONTACTS.name:
            write_contacts(tmp_path, rows)
        else:
            pq.write_table(rows, tmp_path, compression="zstd")


def deliveries_of_contacts(history_dir: Path) -> list[Path]:
    """Every file of the history that holds names, addresses and telephone numbers: in force, before it, held back."""
    return [*deliveries(history_dir, CONTACTS.name), *held_back_files(history_dir, CONTACTS.name)]


# ---------------------------------------------------------------- what is held back


@dataclass(frozen=True)
class HeldBack:
    """What is held back of a source: `file` and its `problems`, or what is `missing`, or the one after the other.

    `since` is the `as_of` of the run that found it first; `in_force` is the delivery that stands meanwhile.
    """

    source: str
    since: datetime
    missing: str | None
    file: Path | None
    problems: tuple[str, ...]
    in_force: Path

    @property
    def found(self) -> str:
        """What is wrong, and what stands meanwhile."""
        stays = f"the one of {day(delivered_at(self.in_force))} stays in force"
        if self.missing:
            before = ""
            if self.file:
                before = f", and {self._file_found} before that"
            return f"no delivery since {day(self.since)}: {self.missing}{before}; {stays}"
        return f"{self._file_found}; {stays}"

    @property
    def _file_found(self) -> str:
        assert self.file is not None
        return f"the delivery of {day(delivered_at(self.file))} is held back: {', and '.join(self.problems)}"

    @property
    def remedy(self) -> str:
        accept = f"if it is right, take it with `usage-pipeline deliveries accept {self.source}`"
        if self.missing is None:
            return f"deliver it again, or, {accept}"
        return f"deliver it again; of the one before, {accept}" if self.file else "deliver it again"

    def __str__(self) -> str:
        return f"{self.found}; {self.remedy}"


def read_held_back(history_dir: Path, sources: Sources, name: str) -> HeldBack | None:
    """What is held back of a source; None where the newest delivery is in force, or the source is not configured."""
    return _held_back(history_dir, name) if sources.get(name) else None


def _held_back(history_dir: Path, name: str) -> HeldBack | None:
    known, taken = _state(history_dir, name), deliveries(history_dir, name)
    if known is None or not taken:
        return None
    file = _held_folder(history_dir, name) / known["file"] if known["file"] else None
    if file is not None and not file.exists():
        # accepted, by a run that was killed right after
        file = None
    if file is None and known["missing"] is None:
        return None
    since = datetime.fromisoformat(known["since"])
    return HeldBack(name, since, known["missing"], file, tuple(known["problems"]), taken[-1])


def all_held_back(history_dir: Path, sources: Sources) -> Iterator[HeldBack]:
    for name in SOURCES:
        if held_back := read_held_back(history_dir, sources, name):
            yield held_back


def held_back_files(history_dir: Path, name: str) -> list[Path]:
    """Every file of rows that are held back."""
    return sorted(_held_folder(history_dir, name).glob("*.parquet"))


def hold_back(
    history_dir: Path, as_of: datetime, name: str, rows: pa.Table, fingerprint: str, problems: list[str]
) -> HeldBack:
    """Keeps a delivery beside those in force; one that is held back already is not written again."""
    before = _held_back(history_dir, name)
    if before and before.file and before.file.stem.endswith(fingerprint):
        file = before.file
    else:
        file = _held_folder(history_dir, name) / _file_name(history_dir, as_of, name, fingerprint)
        _write(file, name, rows)
    _remember(history_dir, name, None, file, problems, delivered_at(file))
    for other in held_back_files(history_dir, name):
        if other != file:
            other.unlink()
    return _must_read(history_dir, name)


def report_missing(history_dir: Path, as_of: datetime, name: str, reason: str) -> HeldBack:
    """Remembers why there is nothing to take; what was held back before stays, to be accepted."""
    before = _held_back(history_dir, name)
    now = as_of.replace(tzinfo=None)
    since = before.since if before and before.missing else now
    _remember(
        history_dir,
        name,
        reason,
        before.file if before else None,
        list(before.problems) if before else [],
        since,
    )
    return _must_read(history_dir, name)


def clear(history_dir: Path, name: str) -> None:
    """Forgets what was held back: a delivery was taken."""
    shutil.rmtree(_held_folder(history_dir, name), ignore_errors=True)


def accept(
    home: DataHome, sources: Sources, wait_seconds: float, name: str, progress: Callable[[str], None] = lambda _: None
) -> Path:
    """Puts the delivery that is held back in force; the next refresh loads it.

    Raises NoDeliveryError where there is none, LockTimeoutError where a run writes deliveries for too long.
    """
    if name not in SOURCES:
        raise NoDeliveryError(f"'{name}' is no reference source: name one of {', '.join(SOURCES)}")
    lock = file_lock(home.history_lock, wait_seconds, what=str(home.history_dir), progress=progress)
    with lock:
        held_back = read_held_back(home.history_dir, sources, name)
        if held_back is None:
            raise NoDeliveryError(f"nothing of {as_text(name)} is held back: there is nothing to accept")
        if held_back.file is None:
            raise NoDeliveryError(f"there is nothing to accept of {as_text(name)}: {held_back}")
        number = f"{len(deliveries(home.history_dir, name)) + 1:05d}"
        file = _folder(home.history_dir, name) / f"{number}_{held_back.file.name.partition('_')[2]}"
        held_back.file.replace(file)
        clear(home.history_dir, name)
    return file


def describe(history_dir: Path, sources: Sources, name: str) -> list[str]:
    """What is in force of a source, and what is held back, a line each."""
    if sources.get(name) is None:
        return [f"{name}: not configured"]
    taken = deliveries(history_dir, name)
    if not taken:
        return [f"{name}: nothing taken yet"]
    rows = counted(count_parquet(taken[-1]), "row", "rows")
    kept = counted(len(taken), "delivery", "deliveries")
    lines = [f"{name}: in force is the delivery of {day(delivered_at(taken[-1]))}, {rows}; {kept} kept"]
    held_back = read_held_back(history_dir, sources, name)
    return [*lines, *([f"  {held_back}"] if held_back else [])]


def _held_folder(history_dir: Path, name: str) -> Path:
    return _folder(history_dir, name) / "held_back"


def _state_file(history_dir: Path, name: str) -> Path:
    return _held_folder(history_dir, name) / "held_back.json"


def _state(history_dir: Path, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(_state_file(history_dir, name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def _remember(
    history_dir: Path, name: str, missing: str | None, file: Path | None, problems: list[str], since: datetime
) -> None:
    content = {
        "since": since.isoformat(),
        "missing": missing,
        "file": file.name if file else None,
        "problems": problems,
    }
    with atomic_write(_state_file(history_dir, name)) as tmp_path:
        tmp_path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _must_read(history_dir: Path, name: str) -> HeldBack:
    found = _held_back(history_dir, name)
    assert found is not None
    return found


# ---------------------------------------------------------------- what is wrong with a delivery


@dataclass(frozen=True)
class Comparison:
    """A delivery beside the one before: rows, keys, and ids in use that each of them knows.

    `keys_before` is None where keys cannot be compared, `in_use` 0 where usage cannot.
    """

    rows_before: int
    rows: int
    keys_before: int | None = None
    keys_gone: int = 0
    examples: tuple[str, ...] = ()
    in_use: int = 0
    matched_before: int = 0
    matched: int = 0


def find_problems(limits: DeliverySettings, found: Comparison, in_use: str = "accounts") -> list[str]:
    """Why a delivery cannot be right, a phrase each; none where it is taken. `in_use` names what usage is of."""
    problems = []
    is_judged = found.rows_before >= limits.min_rows
    share = found.rows / found.rows_before if found.rows_before else 1.0
    smallest, largest = limits.min_share * found.rows_before, limits.max_share * found.rows_before
    if is_judged and not smallest <= found.rows <= largest:
        problems.append(
            f"it has {counted(found.rows, 'row', 'rows')}, {_percent(share)} of the {found.rows_before:,} before "
            f"({_percent(limits.min_share)} to {_percent(limits.max_share)} are taken)"
        )
    keys = found.keys_before or 0
    if is_judged and found.keys_gone > limits.max_keys_gone * keys:
        examples = f", such as {', '.join(found.examples)}" if found.examples else ""
        problems.append(
            f"{found.keys_gone:,} of the {keys:,} keys before are gone{examples} "
            f"(up to {_percent(limits.max_keys_gone)} may be)"
        )
    if _matches_far_worse(limits, found):
        before, now = (_percent(matched / found.in_use) for matched in (found.matched_before, found.matched))
        problems.append(
            f"it knows {now} of the {found.in_use:,} {in_use} in use, the one before {before} "
            f"(up to {_percent(limits.max_match_lost)} less are taken)"
        )
    return problems


def _matches_far_worse(limits: DeliverySettings, found: Comparison) -> bool:
    if found.in_use >= limits.min_rows:
        return found.matched_before - found.matched > limits.max_match_lost * found.in_use
    # a share of few says little; that none is left of several says that ids are written in another way
    return found.matched == 0 and found.matched_before >= _FEWEST_MATCHED


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def compare(
    connection: duckdb.DuckDBPyConnection,
    facts_dir: Path,
    schema: SourceSchema,
    delivered: tuple[pa.Table, Mapping],
    before: tuple[pa.Table, Mapping | None],
) -> Comparison:
    """Compares two deliveries, each given by its rows and their mapping; where the one before has none, only rows."""
    rows, rows_before = delivered[0].num_rows, before[0].num_rows
    only_rows = Comparison(rows_before, rows)
    if schema.name not in _KEYS or before[1] is None:
        return only_rows
    try:
        _open(connection, schema, "before", before[0], before[1])
    except duckdb.Error:
        return only_rows
    _open(connection, schema, "delivered", *delivered)
    keys = ", ".join(_KEYS[schema.name])
    gone = f"FROM before_keys ANTI JOIN delivered_keys USING ({keys})"
    examples = []
    if schema.name != "contacts":
        examples = connection.execute(f"SELECT {keys} {gone} ORDER BY ALL LIMIT {_EXAMPLES}").fetchall()
    in_use = _open_usage(connection, facts_dir, schema)
    return Comparison(
        rows_before,
        rows,
        _count(connection, "FROM before_keys"),
        _count(connection, gone),
        tuple(str(key) for (key,) in examples),
        in_use,
        _matched(connection, schema, "before") if in_use else 0,
        _matched(connection, schema, "delivered") if in_use else 0,
    )


def problems_of(source: Source, schema: SourceSchema, found: Comparison) -> list[str]:
    """What is wrong with a delivery by the limits of its source."""
    return find_problems(source.deliveries, found, _IN_USE_WORDS.get(schema.name, "accounts"))


def _open(
    connection: duckdb.DuckDBPyConnection, schema: SourceSchema, side: str, rows: pa.Table, mapping: Mapping
) -> None:
    """Makes `<side>_keys` and `<side>_ids`, what the rows have to compare with the other side and with usage."""
    connection.register(f"{side}_rows", rows)
    mapped = f"(SELECT {', '.join(mapped_columns(mapping, schema))} FROM {side}_rows)"
    for table, names in (("keys", _KEYS[schema.name]), ("ids", _IN_USE[schema.name])):
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {side}_{table} AS "
            f"SELECT DISTINCT {', '.join(names)} FROM {mapped} WHERE {names[0]} IS NOT NULL"
        )
    connection.unregister(f"{side}_rows")


def _open_usage(connection: duckdb.DuckDBPyConnection, facts_dir: Path, schema: SourceSchema) -> int:
    """Makes `usage_ids`, what the newest weeks on record use; returns how many there are."""
    files = sorted(facts_dir.glob("week=*/facts.parquet"))[-_USAGE_WEEKS:]
    names = ", ".join(_IN_USE[schema.name])
    # facts that cannot be read are reported by those that need them
    with suppress(duckdb.Error):
        if files:
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE usage_ids AS SELECT DISTINCT {names} "
                "FROM read_parquet($files, hive_partitioning = false)",
                {"files": [str(file) for file in files]},
            )
            return _count(connection, "FROM usage_ids")
    return 0


def _matched(connection: duckdb.DuckDBPyConnection, schema: SourceSchema, side: str) -> int:
    first, *others = _IN_USE[schema.name]
    same = [f"usage_ids.{first} = known.{first}"]
    same += [f"(known.{name} IS NULL OR usage_ids.{name} = known.{name})" for name in others]
    return _count(connection, f"FROM usage_ids SEMI JOIN {side}_ids AS known ON {' AND '.join(same)}")


def _count(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    found = connection.execute(f"SELECT count(*) {rows}").fetchone()
    assert found is not None
    return int(found[0])
