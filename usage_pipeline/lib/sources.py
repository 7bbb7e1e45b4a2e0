"""Reading a source: from its files, in somebody else's shape, to rows with our columns.

Belongs here: opening files, matching configured columns against those that exist, and the SQL that maps them.
Does not: what is done with the rows (`facts.py`, `reference.py`), or which files are wanted (`lake.py`, `weeks.py`).
"""

import difflib
from dataclasses import dataclass, field

import duckdb
import pyarrow.parquet as pq

from usage_pipeline.config import Expression, FileSet, Source
from usage_pipeline.lib.contract import SourceColumn, SourceContract
from usage_pipeline.lib.lake import Lake, LakeError, LakeFile
from usage_pipeline.lib.sql import literal

RAW = "raw_rows"
PLACE = ("_file_", "_row_")
_WHOLE_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


class SourceError(Exception):
    """A source cannot be read as configured. `problems` holds one sentence each, with the remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Mapping:
    """How a source's columns become ours.

    `expressions` holds an SQL expression for each of our columns that is delivered, `types` the DuckDB type it
    has over there; `used` and `ignored` are columns of theirs that something or nothing maps, `notes` what was not
    found but may be missing, and what is converted.
    """

    expressions: dict[str, str]
    types: dict[str, str]
    used: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def quoted(identifier: str) -> str:
    """An SQL identifier, quoted: column names of a lake hold anything."""
    return '"' + identifier.replace('"', '""') + '"'


def first_line(error: Exception) -> str:
    """What DuckDB says of an error, without the query that it repeats below it."""
    return str(error).strip().splitlines()[0]


def open_files(
    connection: duckdb.DuckDBPyConnection, name: str, files: list[LakeFile], shape: FileSet, *, with_place: bool = False
) -> None:
    """Makes `files` a view called `name`. Raises duckdb.Error where a file cannot be read.

    `with_place` adds the columns of PLACE, file and row (from 1, below a header), for rows that are to be
    found again.
    """
    listed = ", ".join(literal(file.key) for file in files)
    place = ", filename = '_file_'" if with_place else ""
    if shape.format == "parquet":
        # year and week come from the folder's name in weeks.py; DuckDB would read week=05 as the number 5
        place += ", file_row_number = true" if with_place else ""
        rows = f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false{place})"
        columns = "* EXCLUDE (file_row_number), file_row_number + 1 AS _row_" if with_place else "*"
    else:
        delimiter = f", delim = {literal(shape.delimiter)}" if shape.delimiter else ""
        rows = f"read_csv([{listed}], union_by_name = true, header = true, sample_size = -1{delimiter}{place})"
        if with_place:
            # rows come in the order of the files; from 1 within each
            rows = f"(SELECT *, row_number() OVER () AS _row_ FROM {rows})"
        from_one = "_row_ - min(_row_) OVER (PARTITION BY _file_) + 1 AS _row_"
        columns = f"* REPLACE ({from_one})" if with_place else "*"
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(name)} AS SELECT {columns} FROM {rows}")


def open_source(
    connection: duckdb.DuckDBPyConnection, lake: Lake, name: str, source: Source, *, with_place: bool = False
) -> list[LakeFile]:
    """Makes the rows of a source that is read whole a view called `raw_rows`; returns the files behind it.

    Raises LakeError where files are missing, SourceError where they or the query cannot be read.
    """
    opened: list[LakeFile] = []
    for set_name, shape in source.file_sets.items():
        files = lake.files(shape.path, shape.format)
        try:
            open_files(connection, set_name, files, shape, with_place=with_place)
        except duckdb.Error as error:
            raise SourceError([f"sources.{name}: {shape.path}: cannot be read: {first_line(error)}"]) from error
        opened += files
    query = source.query or "SELECT * FROM files"
    try:
        connection.sql(query).create_view(RAW, replace=True)
    except duckdb.Error as error:
        raise SourceError([f"sources.{name}.query: {first_line(error)}; correct the query"]) from error
    return opened


def verify_checksums(lake: Lake, file: LakeFile, columns: list[str]) -> None:
    """Compares the pages of a Parquet file with the checksums that its writer left, where it left any.

    DuckDB does not look at them, and sums up garbage. Whether a writer left any shows in the header of its first
    page (https://parquet.apache.org/docs/file-format/data-pages/checksumming/), so that files without cost nothing.
    Raises SourceError where a page is not what was written, LakeError where the store does not answer.
    """
    try:
        with lake.open(file) as stream:
            if not _has_checksums(stream.read_at(64, 0)):
                return
            whole = pq.ParquetFile(stream, page_checksum_verification=True)
            for number in range(whole.num_row_groups):
                whole.read_row_group(number, columns=columns)
    except OSError as error:
        if "CRC" in str(error):
            raise SourceError(["a page is not what was written: its checksum is wrong; deliver it again"]) from error
        raise LakeError(f"{file.key}: {first_line(error)}") from error


def _has_checksums(head: bytes) -> bool:
    """Whether the first page's header, in Thrift's compact form, has its fourth field: the checksum."""
    at = 4
    for _ in range(3):  # type, size, compressed size: a byte of kind, then a number of one byte or more
        if head[at : at + 1] != b"\x15":
            return False
        at += 1
        while at < len(head) and head[at] & 0x80:
            at += 1
        at += 1
    return head[at : at + 1] == b"\x15"


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, in words for whoever delivers it."""
    said = first_line(error)
    if "is encrypted" in said:
        return "cannot be read: it is encrypted; deliver it as plain Parquet"
    if "TProtocolException" in said:
        return f"cannot be read: its footer is broken, or parts of it are encrypted; deliver it again ({said})"
    return f"cannot be read: {said}"


def columns_of(connection: duckdb.DuckDBPyConnection, view: str = RAW) -> dict[str, str]:
    """Column names and DuckDB types of a view."""
    rows = connection.execute(f"DESCRIBE SELECT * FROM {quoted(view)}").fetchall()
    return {row[0]: row[1] for row in rows}


def match_columns(
    connection: duckdb.DuckDBPyConnection, source: Source, contract: SourceContract, view: str = RAW
) -> Mapping:
    """Matches the configured columns against those that the files have; other case matches too.

    An optional column that the files lack is noted and NULL. Raises SourceError naming every required column
    that does not exist and every expression that cannot be computed, with the columns that do exist.
    """
    existing = {name: kind for name, kind in columns_of(connection, view).items() if name not in PLACE}
    by_lower = {name.lower(): name for name in existing}
    expressions: dict[str, str] = {}
    types: dict[str, str] = {}
    notes: list[str] = []
    problems: list[str] = []
    used: set[str] = set()
    for ours, theirs in source.columns.items():
        key = f"sources.{contract.name}.columns.{ours}"
        if isinstance(theirs, Expression):
            try:
                described = connection.execute(f"DESCRIBE SELECT ({theirs.sql}) AS x FROM {quoted(view)}").fetchone()
            except duckdb.Error as error:
                problems.append(f"{key}.sql: {first_line(error)}; columns that exist: {', '.join(existing)}")
                continue
            assert described is not None
            expressions[ours], types[ours] = f"({theirs.sql})", described[1]
            used |= {name for name in existing if name.lower() in theirs.sql.lower()}
            notes += _conversion(key, theirs.sql, described[1], contract, ours)
        elif found := by_lower.get(theirs.lower()):
            expressions[ours], types[ours] = quoted(found), existing[found]
            used.add(found)
            notes += _conversion(key, found, existing[found], contract, ours)
        else:
            near = difflib.get_close_matches(theirs, list(existing), n=1, cutoff=0.6)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            sentence = f"{key}: there is no column '{theirs}'{hint}; columns that exist: {', '.join(existing)}"
            if source.partitioned:
                sentence += f"; if it was named otherwise in some weeks, say so under sources.{contract.name}.earlier"
            (problems if ours in contract.needed else notes).append(sentence)
    if problems:
        raise SourceError(problems)
    ignored = [name for name in existing if name not in used]
    return Mapping(expressions, types, [name for name in existing if name in used], ignored, notes)


def _conversion(key: str, theirs: str, kind: str, contract: SourceContract, ours: str) -> list[str]:
    """Says where a count is no count over there: such a column can hold what is not a number."""
    wanted = contract.column(ours).type
    if wanted != "BIGINT" or kind in _WHOLE_NUMBERS:
        return []
    return [f"{key}: '{theirs}' is {kind} and is converted; a value that is not a whole number is not taken"]


def mapped_columns(mapping: Mapping, contract: SourceContract) -> list[str]:
    """The columns of the contract as SQL, each of our type, NULL where not delivered.

    A value that cannot be converted without loss becomes NULL: whoever needs it rejects the row with the reason.
    """
    return [f"{_converted(mapping, column)} AS {column.name}" for column in contract.columns]


def unreadable(mapping: Mapping, column: SourceColumn) -> str:
    """SQL for whether a row has a value in the column that cannot be converted."""
    expression = mapping.expressions.get(column.name)
    if expression is None or mapping.types[column.name] in _WHOLE_NUMBERS:
        return "FALSE"
    return f"({expression} IS NOT NULL AND {_converted(mapping, column)} IS NULL)"


def _converted(mapping: Mapping, column: SourceColumn) -> str:
    expression, kind = mapping.expressions.get(column.name, "NULL"), mapping.types.get(column.name, "")
    if column.type == "BIGINT" and kind in ("DOUBLE", "FLOAT"):
        # what is not whole is not a count; engines cast what is too large for one in ways of their own
        is_whole = f"{expression} = floor({expression}) AND abs({expression}) < 9.2e18"
        return f"CASE WHEN {is_whole} THEN CAST({expression} AS BIGINT) END"
    if column.type == "BIGINT" and kind not in _WHOLE_NUMBERS and expression != "NULL":
        # DuckDB rounds 3.7 to 4: what is not whole is not a count
        whole = f"TRY_CAST({expression} AS BIGINT)"
        return f"CASE WHEN TRY_CAST({expression} AS DOUBLE) = {whole} THEN {whole} END"
    if column.type == "TIMESTAMP" and kind == "TIMESTAMP WITH TIME ZONE":
        # a bare cast would take the zone of the machine
        return f"CAST({expression} AT TIME ZONE 'UTC' AS TIMESTAMP)"
    if column.type != "VARCHAR":
        return f"TRY_CAST({expression} AS {column.type})"
    if kind in ("DOUBLE", "FLOAT"):
        # a column of numbers with one gap arrives as floating point: account 12 is not account 12.0
        text = f"CAST(CAST({expression} AS HUGEINT) AS VARCHAR)"
        expression = f"CASE WHEN {expression} = floor({expression}) THEN {text} ELSE CAST({expression} AS VARCHAR) END"
    elif kind != "VARCHAR":
        expression = f"CAST({expression} AS VARCHAR)"
    # an empty cell is nothing, and an id does not begin or end with a space
    return f"nullif(trim({expression}), '')"


def day_expression(mapping: Mapping, timezone: str, partition_timezone: str | None) -> str:
    """SQL for the day, in the configured zone, that a usage row happened on; NULL where only week folders come.

    A time with a zone is moved into ours. A time without one is taken as it stands, or, where the folders are
    cut in a zone of their own, as a time of that zone.
    """
    if "event_time" not in mapping.expressions:
        return "CAST(NULL AS DATE)"
    expression, kind = mapping.expressions["event_time"], mapping.types["event_time"]
    zone = literal(timezone)
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"CAST({expression} AT TIME ZONE {zone} AS DATE)"
    if kind != "DATE" and partition_timezone:
        theirs = literal(partition_timezone)
        return f"CAST(TRY_CAST({expression} AS TIMESTAMP) AT TIME ZONE {theirs} AT TIME ZONE {zone} AS DATE)"
    return f"TRY_CAST(TRY_CAST({expression} AS TIMESTAMP) AS DATE)"
