"""Reading a source: from its files, in somebody else's shape, to rows with our columns.

Belongs here: opening files, matching configured columns against those that exist, and the SQL that maps them.
Does not: what is done with the rows (`facts.py`, `reference.py`), or which files are wanted (`lake.py`, `weeks.py`).
"""

import difflib
from dataclasses import dataclass, field

import duckdb

from usage_pipeline.config import Expression, FileSet, Source
from usage_pipeline.lib.contract import SourceContract
from usage_pipeline.lib.lake import Lake, LakeFile

RAW = "raw_rows"


class SourceError(Exception):
    """A source cannot be read as configured. `problems` holds one sentence each, with the remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Mapping:
    """How a source's columns become ours.

    `expressions` holds an SQL expression for each of our columns that is delivered, `types` the DuckDB type it
    has over there; `ignored` are columns of theirs that nothing maps, `notes` what was not found but may be missing.
    """

    expressions: dict[str, str]
    types: dict[str, str]
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def quoted(identifier: str) -> str:
    """An SQL identifier, quoted: column names of a lake hold anything."""
    return '"' + identifier.replace('"', '""') + '"'


def first_line(error: Exception) -> str:
    """What DuckDB says of an error, without the query that it repeats below it."""
    return str(error).strip().splitlines()[0]


def open_files(connection: duckdb.DuckDBPyConnection, name: str, files: list[LakeFile], shape: FileSet) -> None:
    """Makes `files` a view called `name`. Raises duckdb.Error where a file cannot be read."""
    keys = [file.key for file in files]
    if shape.format == "parquet":
        # year and week come from the folder's name in weeks.py; DuckDB would read week=05 as the number 5
        relation = connection.read_parquet(keys, union_by_name=True, hive_partitioning=False)
    else:
        options = {"delimiter": shape.delimiter} if shape.delimiter else {}
        relation = connection.read_csv(keys, union_by_name=True, header=True, sample_size=-1, **options)  # type: ignore[arg-type]
    relation.create_view(name, replace=True)


def open_source(connection: duckdb.DuckDBPyConnection, lake: Lake, name: str, source: Source) -> list[LakeFile]:
    """Makes the rows of a source that is read whole a view called `raw_rows`; returns the files behind it.

    Raises LakeError where files are missing, SourceError where they or the query cannot be read.
    """
    opened: list[LakeFile] = []
    for set_name, shape in source.file_sets.items():
        files = lake.files(shape.path, shape.format)
        try:
            open_files(connection, set_name, files, shape)
        except duckdb.Error as error:
            raise SourceError([f"sources.{name}: {shape.path}: cannot be read: {first_line(error)}"]) from error
        opened += files
    query = source.query or "SELECT * FROM files"
    try:
        connection.sql(query).create_view(RAW, replace=True)
    except duckdb.Error as error:
        raise SourceError([f"sources.{name}.query: {first_line(error)}; correct the query"]) from error
    return opened


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
    existing = columns_of(connection, view)
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
        elif found := by_lower.get(theirs.lower()):
            expressions[ours], types[ours] = quoted(found), existing[found]
            used.add(found)
        else:
            near = difflib.get_close_matches(theirs, list(existing), n=1, cutoff=0.6)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            sentence = f"{key}: there is no column '{theirs}'{hint}; columns that exist: {', '.join(existing)}"
            (problems if ours in contract.required else notes).append(sentence)
    if problems:
        raise SourceError(problems)
    return Mapping(expressions, types, [name for name in existing if name not in used], notes)


def mapped_columns(mapping: Mapping, contract: SourceContract) -> list[str]:
    """The columns of the contract as SQL, each of our type, NULL where not delivered.

    A value that cannot be converted becomes NULL: whoever needs it rejects the row with the reason.
    """
    columns = []
    for column in contract.columns:
        expression = mapping.expressions.get(column.name, "NULL")
        if column.type == "VARCHAR":
            # an empty cell is nothing, and an id does not begin or end with a space
            expression = f"nullif(trim(CAST({expression} AS VARCHAR)), '')"
        columns.append(f"TRY_CAST({expression} AS {column.type}) AS {column.name}")
    return columns


def day_expression(mapping: Mapping, timezone: str, partition_timezone: str | None) -> str:
    """SQL for the day, in the configured zone, that a usage row happened on; NULL where only week folders come.

    A time with a zone is moved into ours. A time without one is taken as it stands, or, where the folders are
    cut in a zone of their own, as a time of that zone.
    """
    if "event_time" not in mapping.expressions:
        return "CAST(NULL AS DATE)"
    expression, kind = mapping.expressions["event_time"], mapping.types["event_time"]
    zone = "'" + timezone.replace("'", "''") + "'"
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"CAST({expression} AT TIME ZONE {zone} AS DATE)"
    if kind != "DATE" and partition_timezone:
        theirs = "'" + partition_timezone.replace("'", "''") + "'"
        return f"CAST(TRY_CAST({expression} AS TIMESTAMP) AT TIME ZONE {theirs} AT TIME ZONE {zone} AS DATE)"
    return f"TRY_CAST(TRY_CAST({expression} AS TIMESTAMP) AS DATE)"
