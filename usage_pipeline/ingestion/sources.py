"""Reading a source: from its files, in somebody else's shape, to rows with our columns.

Belongs here: bringing files near, opening them as views, matching configured columns against those that exist, and
what whole columns settle. Does not: what a cell of some type means (`cells.py`), what is done with the rows
(`facts.py`, `reference.py`), or which files are wanted (`lake.py`, `weeks.py`).

Files are opened under names of our own, where all of their bytes are: whatever a library says of them then is about the
file, and no letter of a foreign name is taken for a pattern.
"""

import csv
import difflib
import gzip
import io
import os
import re
import shutil
import uuid
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.config.settings import Expression, FileSet, Source
from usage_pipeline.config.source_schemas import SOURCE_SCHEMAS, SourceColumn, SourceSchema
from usage_pipeline.core.formatting import counted
from usage_pipeline.core.processes import describe_this_process
from usage_pipeline.core.sql import literal
from usage_pipeline.ingestion import cells
from usage_pipeline.ingestion.cells import Cell, Reading
from usage_pipeline.ingestion.lake import FileError, Lake, LakeFile, Listing, NotReadError

RAW = "raw_rows"
# the column of amounts that `currency` is about
MONEY = "annual_value"
PLACE = ("_file_", "_row_")
# beside copies of lake files: the process that they are for
OWNER = "process.json"
_MOST_TEXTS = 100_000
_NUMBERS = {c.name for schema in SOURCE_SCHEMAS.values() for c in schema.columns if c.type in ("BIGINT", "DOUBLE")}
# currencies that a sentence names
_NAMED = 5
_CHUNK = 1 << 20
_MOST_DIGITS = 38
# bytes that no text holds, for a number that is there and can be no id
_NO_TEXT = "CAST('\\xFF' AS BLOB)"
_DELIMITERS = (",", ";", "\t", "|")
# where `Nearby` puts files: people know them by their names in the lake
_NEARBY = re.compile(r"[\"'(]*[^\s\"'(]*/spill/lake-[0-9a-f-]+/\d{6}[a-z.]*[\"')]*")


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
    found but may be missing, and what is converted; `reading` how cells are read; `paths` where the rows lie.
    """

    expressions: dict[str, str]
    types: dict[str, str]
    reading: Reading
    used: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    paths: str = ""

    def cell(self, column: SourceColumn) -> Cell:
        """A column of ours; NULL where it is not delivered."""
        expression = self.expressions.get(column.name, "NULL")
        return Cell(column, expression, self.types.get(column.name, cells.NOTHING), self.reading)


def quoted(identifier: str) -> str:
    """An SQL identifier, quoted: column names of a lake hold anything."""
    return '"' + identifier.replace('"', '""') + '"'


def first_line(error: Exception) -> str:
    """What a library says of an error, without the query that DuckDB repeats below it."""
    lines = str(error).strip().splitlines()
    return _NEARBY.sub("the file", lines[0]) if lines else type(error).__name__


# ---------------------------------------------------------------- files nearby


class Nearby:
    """Files of the lake in a folder of our own, each brought once; a folder's file is a link, and costs nothing.

    `keeps_in_memory` makes links to memory of what is copied or unpacked, where the system can (Linux): a process that
    is killed leaves nothing of it on the disk.
    """

    def __init__(self, lake: Lake, spill_dir: Path, *, keeps_in_memory: bool = False) -> None:
        self.lake = lake
        self.keeps_in_memory = keeps_in_memory and hasattr(os, "memfd_create")
        self._in_memory: list[int] = []
        self.folder = spill_dir / f"lake-{uuid.uuid4().hex}"
        self._paths: dict[LakeFile, Path] = {}

    def path(self, file: LakeFile, file_format: str) -> Path:
        """Where the whole file is. Raises NotReadError or FileError, as `Lake.bring` does."""
        if file not in self._paths:
            if not self._paths:
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / OWNER).write_text(describe_this_process(), encoding="utf-8")
            target = self._place(f"{len(self._paths):06d}.{file_format}", in_memory=file.is_remote)
            self.lake.bring(file, target)
            if file_format == "csv" and (packed := _PACKED.search(file.key)):
                target = _unpacked(target, self._place(f"{target.stem}-text.csv"), packed[1].lower())
            self._paths[file] = target
        return self._paths[file]

    def _place(self, name: str, *, in_memory: bool = True) -> Path:
        """Where a file is written to; what a time before left there, when it could not be unpacked, is gone."""
        target = self.folder / name
        target.unlink(missing_ok=True)
        if in_memory and self.keeps_in_memory:
            self._in_memory.append(os.memfd_create(name))
            target.symlink_to(f"/proc/self/fd/{self._in_memory[-1]}")
        return target

    def known(self, file: LakeFile) -> Path | None:
        """Where a file is that was brought and could be unpacked."""
        return self._paths.get(file)

    def key_of(self) -> dict[str, str]:
        """The keys of the files in the lake by the paths that they have here."""
        return {str(path): file.key for file, path in self._paths.items()}

    def rows(self, connection: duckdb.DuckDBPyConnection, files: list[LakeFile]) -> dict[str, int]:
        """Rows of Parquet files that were brought, by key, as their footers say."""
        paths = {str(self._paths[file]): file.key for file in files}
        found = connection.execute(
            "SELECT file_name, num_rows FROM parquet_file_metadata($files)", {"files": list(paths)}
        ).fetchall()
        return {paths[path]: int(rows) for path, rows in found}

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for descriptor in self._in_memory:
            os.close(descriptor)
        self._paths, self._in_memory = {}, []


_PACKED = re.compile(r"\.(gz|zst)$", re.IGNORECASE)


def _unpacked(path: Path, target: Path, packing: str) -> Path:
    """The text of a packed file, whole: only at its end a checksum tells. Raises FileError where it is not right."""
    try:
        with (
            gzip.open(path) if packing == "gz" else pa.input_stream(str(path), compression="zstd") as text,
            target.open("wb") as output,
        ):
            shutil.copyfileobj(text, output, _CHUNK)
    except Exception as error:  # whatever the unpacking says, unless a disk of ours does
        if isinstance(error, OSError) and error.errno is not None:
            raise NotReadError(f"{path}: {error}") from error
        raise FileError(f"cannot be unpacked: {first_line(error)}; deliver it again") from error
    return target


# ---------------------------------------------------------------- views


@dataclass(frozen=True)
class Columns:
    """Columns of a file in order, name and DuckDB type, and which are no more than they seem.

    `instants` are times in UTC that DuckDB reads as times without a zone, `empty` columns without any type; `delimiter`
    is that of a CSV file. `too_wide` are decimals of more digits than DuckDB can hold, which it reads wrongly.
    """

    kinds: tuple[tuple[str, str], ...]
    instants: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()
    delimiter: str | None = None
    too_wide: frozenset[str] = frozenset()

    @property
    def has_row_number(self) -> bool:
        """Whether a column of theirs has the name under which DuckDB tells the number of a row."""
        return any(name.lower() == "file_row_number" for name, _ in self.kinds)


def columns_of_file(connection: duckdb.DuckDBPyConnection, path: Path, shape: FileSet) -> Columns:
    """The columns of one file nearby. Raises duckdb.Error where it cannot be opened."""
    delimiter = (shape.delimiter or _delimiter_of(path)) if shape.format == "csv" else None
    rows = connection.execute(f"DESCRIBE SELECT * FROM {_rows([path], delimiter)}").fetchall()
    kinds = tuple((name, kind) for name, kind, *_ in rows)
    if delimiter is not None:
        return Columns(kinds, delimiter=delimiter)
    schema = connection.execute(
        "SELECT type, num_children, logical_type, converted_type, precision FROM parquet_schema($1)", [str(path)]
    ).fetchall()
    top = list(zip(kinds, _top_level(schema), strict=False))
    instants = frozenset(name for (name, _), (kind, _, logical, old, _) in top if _is_instant(kind, logical, old))
    empty = frozenset(name for (name, _), (_, _, logical, *_) in top if logical == "NullType()")
    too_wide = frozenset(name for (name, _), (*_, digits) in top if (digits or 0) > _MOST_DIGITS)
    return Columns(kinds, instants, empty, too_wide=too_wide)


def _delimiter_of(path: Path) -> str:
    """The sign between the columns of a CSV file: the one that its header has most of, outside of quotes."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        head = text.read(_CHUNK)
    counts = {
        sign: len(next(csv.reader(io.StringIO(head.lstrip("\r\n"), newline=""), delimiter=sign), []))
        for sign in _DELIMITERS
    }
    return max(counts, key=lambda sign: counts[sign])


def columns_of_files(connection: duckdb.DuckDBPyConnection, paths: list[Path], shape: FileSet) -> list[Columns]:
    """The columns of each of many Parquet files. Raises duckdb.Error where one cannot be opened."""
    schemas: dict[str, list[Any]] = {str(path): [] for path in paths}
    rows = connection.execute(
        "SELECT file_name, columns(* EXCLUDE file_name) FROM parquet_schema($files)", {"files": list(schemas)}
    ).fetchall()
    for name, *described in rows:
        schemas[name].append(tuple(described))
    known: dict[tuple[Any, ...], Columns] = {}
    for name, schema in schemas.items():
        if (key := tuple(schema)) not in known:
            known[key] = columns_of_file(connection, Path(name), shape)
    return [known[tuple(schemas[str(path)])] for path in paths]


def _is_instant(kind: str, logical: str | None, old: str | None) -> bool:
    """Whether a column holds times in UTC that DuckDB reads as times without a zone.

    INT96, and the older annotation without a newer one beside it, which the format defines as adjusted to UTC
    (https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#deprecated-timestamp-convertedtype).
    """
    return kind == "INT96" or (logical is None and old in ("TIMESTAMP_MILLIS", "TIMESTAMP_MICROS"))


def _top_level(schema: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """The entries of a Parquet schema, which lists the tree depth first, that are columns."""
    at = 1
    while at < len(schema):
        yield schema[at]
        left, at = schema[at][1] or 0, at + 1
        while left:
            left, at = left - 1 + (schema[at][1] or 0), at + 1


def view_of(
    connection: duckdb.DuckDBPyConnection,
    view: str,
    paths: list[Path],
    columns: Columns,
    keys: dict[str, str] | None = None,
) -> None:
    """Makes files with the same columns a view.

    With `keys` (of the lake, by path) it has the columns of PLACE too, file and row (from 1, below a header), for rows
    that are to be found again.
    """
    replaced = [f"{quoted(name)} AT TIME ZONE 'UTC' AS {quoted(name)}" for name in columns.instants]
    replaced += [f"CAST(NULL AS VARCHAR) AS {quoted(name)}" for name in columns.empty]
    # a type that nothing of ours is made of, with the reason for its name
    wide = f"decimal_of_more_than_{_MOST_DIGITS}_digits"
    replaced += [f"struct_pack({wide} := {quoted(name)}) AS {quoted(name)}" for name in columns.too_wide]
    normal = f" REPLACE ({', '.join(replaced)})" if replaced else ""
    if keys is None:
        rows = _rows(paths, columns.delimiter)
    else:
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS lake_files (path VARCHAR, key VARCHAR)")
        connection.execute("DELETE FROM lake_files")
        connection.execute("INSERT INTO lake_files SELECT unnest($1), unnest($2)", [list(keys), list(keys.values())])
        rows = _placed(paths, columns, keys)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(view)} AS SELECT *{normal} FROM {rows}")


def _placed(paths: list[Path], columns: Columns, keys: dict[str, str]) -> str:
    """SQL of the raw rows with the key of their file and their number in it."""
    file, row = PLACE
    if columns.delimiter is None:
        # DuckDB gives no numbers where a column of theirs has that name
        numbers = "" if columns.has_row_number else ", file_row_number = true"
        left_out, number = ("", "NULL") if columns.has_row_number else ("file_row_number, ", "file_row_number + 1")
        rows = _rows(paths, None, f"{numbers}, filename = '_path_'")
        return (
            f"(SELECT rows.* EXCLUDE ({left_out}_path_), lake_files.key AS {file}, CAST({number} AS BIGINT) AS {row} "
            f"FROM {rows} AS rows INNER JOIN lake_files ON rows._path_ = lake_files.path)"
        )
    numbered = [
        f"SELECT *, {literal(keys[str(path)])} AS {file}, row_number() OVER () AS {row} "
        f"FROM {_rows([path], columns.delimiter)}"
        for path in paths
    ]
    return f"({' UNION ALL BY NAME '.join(numbered)})"


def _rows(paths: list[Path], delimiter: str | None, more: str = "") -> str:
    """SQL of the raw rows of files, of CSV where there is a delimiter; text stays text, folders give no columns."""
    listed = ", ".join(literal(path) for path in paths)
    if delimiter is None:
        return f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false{more})"
    return (
        f"read_csv([{listed}], union_by_name = true, hive_partitioning = false, header = true, all_varchar = true, "
        # without it DuckDB takes rows such as `#1,...` for comments, and leaves them out
        f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', comment = ''{more})"
    )


def open_source(
    connection: duckdb.DuckDBPyConnection, nearby: Nearby, schema: SourceSchema, source: Source, reading: Reading
) -> Listing:
    """Makes the rows of a source that is read whole a view called `raw_rows`; returns what lies below its paths.

    Every file of a plain set must have the columns that are needed.

    Raises LakeError where files are missing or could not be fetched, SourceError where one or the query cannot be read.
    """
    name, listing = schema.name, Listing()

    def match(view: str) -> Mapping:
        return match_columns(connection, source, schema, reading, view)

    for set_name, shape in source.file_sets.items():
        found = nearby.lake.files(shape.path, shape.format)
        each = match if source.query is None and len(found.files) > 1 else None
        _open_set(connection, nearby, f"sources.{name}", set_name, source, shape, found.files, each)
        listing += found
    query = source.query or "SELECT * FROM files"
    try:
        connection.sql(query).create_view(RAW, replace=True)
    except duckdb.Error as error:
        raise SourceError([f"sources.{name}.query: {first_line(error)}; correct the query"]) from error
    return listing


def open_files(
    connection: duckdb.DuckDBPyConnection,
    nearby: Nearby,
    match: Callable[[str], Mapping],
    source: Source,
    files: list[LakeFile],
) -> tuple[list[LakeFile], list[tuple[LakeFile, str]]]:
    """Makes those of the files that open and `match` (a view) the view `raw_rows`; returns them, and why not others.

    Raises NotReadError where the way to a file is in trouble.
    """
    shape, good, wrong = source.file_sets["files"], list[LakeFile](), list[tuple[LakeFile, str]]()
    for file in files:
        try:
            _open_set(connection, nearby, "", RAW, source, shape, [file], match)
            if shape.format == "parquet":
                verify_checksums(nearby.path(file, shape.format), match(RAW).used)
            good.append(file)
        except SourceError as error:
            wrong.append((file, "; ".join(problem.removeprefix(f": {file.key}: ") for problem in error.problems)))
    if good:
        _open_set(connection, nearby, "", RAW, source, shape, good, None)
    return good, wrong


def _open_set(
    connection: duckdb.DuckDBPyConnection,
    nearby: Nearby,
    where: str,
    view: str,
    source: Source,
    shape: FileSet,
    files: list[LakeFile],
    match: Callable[[str], Mapping] | None,
) -> None:
    """Makes files of whatever columns one view; where types differ, a column is text. Each kind of them must match."""
    groups: dict[Columns, list[Path]] = {}
    for file in files:
        try:
            path = nearby.path(file, shape.format)
            columns = columns_of_file(connection, path, shape)
            if match and columns not in groups:
                view_of(connection, f"{view}_tried", [path], columns)
                match(f"{view}_tried")
            groups.setdefault(columns, []).append(path)
        except SourceError as error:
            raise SourceError([f"{where}: {file.key}: {problem}" for problem in error.problems]) from error
        except FileError as error:
            raise SourceError([f"{where}: {file.key}: {error}"]) from error
        except NotReadError:
            raise
        except Exception as error:
            raise SourceError([f"{where}: {file.key}: {reason_of(error)}"]) from error
    parts = []
    for number, (columns, paths) in enumerate(groups.items()):
        part = f"{view}_{number}"
        view_of(connection, part, paths, columns)
        parts.append((part, columns_of(connection, part)))
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(view)} AS {_union(parts, source)}")


def _named(source: Source, wanted: Container[str]) -> set[str]:
    """Names, in lower case, of columns of theirs that are one of ours."""
    return {theirs.lower() for ours, theirs in source.columns.items() if ours in wanted and isinstance(theirs, str)}


def _union(parts: list[tuple[str, dict[str, str]]], source: Source) -> str:
    """SQL of views one below the other, by name; a column of several types becomes text.

    Where one of them is binary, or an id of floating point, it becomes binary: what is no text, or no id, stays so, and
    can be told.
    """
    ids, numbers = _named(source, cells.KEYS), _named(source, _NUMBERS)
    kinds: dict[str, set[str]] = {}
    for _, columns in parts:
        for name, kind in columns.items():
            kinds.setdefault(name.lower(), set()).add(kind)
    binary = {
        name
        for name, found in kinds.items()
        if len(found) > 1 and ("BLOB" in found or (name in ids and found & cells.FLOATING.keys()))
    }
    selects = []
    for view, columns in parts:
        as_text = []
        for name, kind in columns.items():
            lower, theirs = name.lower(), quoted(name)
            if lower in binary:
                as_text.append(f"{_raw_bytes(theirs, kind, is_id=lower in ids)} AS {theirs}")
            elif len(kinds[lower]) > 1:
                as_text.append(f"{_raw_text(theirs, kind, is_number=lower in numbers - ids)} AS {theirs}")
        replaced = f" REPLACE ({', '.join(as_text)})" if as_text else ""
        selects.append(f"SELECT *{replaced} FROM {quoted(view)}")
    return " UNION ALL BY NAME ".join(selects)


def _raw_bytes(expression: str, kind: str, *, is_id: bool) -> str:
    """A value as the bytes of its text; a number that can be no id as bytes that are no text."""
    if kind == "BLOB":
        return expression
    if not (is_id and kind in cells.FLOATING):
        return f"encode({_raw_text(expression, kind)})"
    text = cells.whole_text(expression, kind, "NULL")
    return f"coalesce(encode({text}), CASE WHEN {expression} IS NOT NULL THEN {_NO_TEXT} END)"


def _raw_text(expression: str, kind: str, *, is_number: bool = False) -> str:
    """A value as text that the rules of text read as the value itself.

    A number is written with an exponent where it is not whole: its point is ours, and says nothing of how the texts
    below it are to be read.
    """
    if kind in cells.FLOATING:
        written = f"CAST({expression} AS VARCHAR)"
        if is_number:
            is_plain = f"isfinite({expression}) AND NOT contains({written}, 'e')"
            written = f"CASE WHEN {is_plain} THEN {written} || 'e0' ELSE {written} END"
        return cells.whole_text(expression, kind, written)
    if kind.startswith("DECIMAL("):
        written = cells.without_zeros(expression)
        return f"({written} || CASE WHEN contains({written}, '.') THEN 'e0' ELSE '' END)" if is_number else written
    return f"CAST({expression} AS VARCHAR)"


def verify_checksums(path: Path, columns: list[str]) -> None:
    """Compares the pages of a Parquet file with the checksums that its writer left, where it left any.

    DuckDB does not look at them, and sums up garbage. Whether a writer left any shows in the header of its first
    page (https://parquet.apache.org/docs/file-format/data-pages/checksumming/), so that files without cost nothing.
    Raises SourceError where a page is not what was written.
    """
    with path.open("rb") as stream:
        if not _has_checksums(stream.read(64)):
            return
    try:
        whole = pq.ParquetFile(path, page_checksum_verification=True)
        for number in range(whole.num_row_groups):
            whole.read_row_group(number, columns=columns)
    except (OSError, pa.ArrowException) as error:
        if "CRC" in str(error):
            raise SourceError(["a page is not what was written: its checksum is wrong; deliver it again"]) from error
        raise SourceError([f"cannot be read: {first_line(error)}; deliver it again"]) from error


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


def is_encrypted(path: Path) -> bool:
    """Whether a Parquet file that cannot be read has columns that are encrypted, its footer perhaps not."""
    try:
        pq.ParquetFile(path).read()
    except Exception as error:
        return "crypt" in str(error)
    return False


def reason_of(error: Exception, path: Path | None = None) -> str:
    """Why a file cannot be read, in words for whoever delivers it."""
    said = first_line(error)
    if isinstance(error, (MemoryError, duckdb.OutOfMemoryException)):
        return f"needs more memory than there is: if it is not broken, raise ingest.memory_mb ({said})"
    if "is encrypted" in said or (path is not None and path.suffix == ".parquet" and is_encrypted(path)):
        return "cannot be read: it is encrypted; deliver it as plain Parquet"
    if "TProtocolException" in said:
        return f"cannot be read: its footer is broken, or parts of it are encrypted; deliver it again ({said})"
    if "unicode" in said.lower() or "utf-8" in said.lower() or "utf8" in said.lower():
        return f"cannot be read: its text is not UTF-8; save it as UTF-8 ({said})"
    return f"cannot be read: {said}"


# ---------------------------------------------------------------- columns


def columns_of(connection: duckdb.DuckDBPyConnection, view: str = RAW) -> dict[str, str]:
    """Column names and DuckDB types of a view."""
    rows = connection.execute(f"DESCRIBE SELECT * FROM {quoted(view)}").fetchall()
    return {row[0]: row[1] for row in rows}


def match_columns(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    schema: SourceSchema,
    reading: Reading,
    view: str = RAW,
) -> Mapping:
    """Matches the configured columns against those that the files have; other case matches too.

    An optional column that the files lack is noted and NULL. Raises SourceError naming every required column
    that does not exist, every column of a type that cannot be ours, and every expression that cannot be computed, with
    the columns that do exist.
    """
    cells.install(connection)
    existing = {name: kind for name, kind in columns_of(connection, view).items() if name not in PLACE}
    by_lower = {name.lower(): name for name in existing}
    paths = ", ".join(str(shape.path) for shape in source.file_sets.values())
    mapping = Mapping({}, {}, reading, paths=paths)
    problems: list[str] = []
    used: set[str] = set()
    for ours, theirs in source.columns.items():
        key = f"sources.{schema.name}.columns.{ours}"
        if isinstance(theirs, Expression):
            try:
                described = connection.execute(f"DESCRIBE SELECT ({theirs.sql}) AS x FROM {quoted(view)}").fetchone()
            except duckdb.Error as error:
                is_text = set(existing.values()) == {"VARCHAR"}
                hint = "; where these come from CSV they are text: cast what you calculate with" if is_text else ""
                problems.append(f"{key}.sql: {first_line(error)}; columns that exist: {', '.join(existing)}{hint}")
                continue
            assert described is not None
            expression, kind, told = f"({theirs.sql})", described[1], theirs.sql
            used |= {name for name in existing if name.lower() in theirs.sql.lower()}
        elif found := by_lower.get(theirs.lower()):
            expression, kind, told = quoted(found), existing[found], found
            used.add(found)
        else:
            sentence = f"{key}: {_not_there(theirs, existing)}"
            if source.partitioned:
                sentence += f"; if it was named otherwise in some weeks, say so under sources.{schema.name}.earlier"
            (problems if ours in schema.needed else mapping.notes).append(sentence)
            continue
        why = cells.refused(schema.column(ours), kind)
        if why and _is_empty(connection, expression, view):
            # writers give a column in which nothing stands any type
            why, kind = None, cells.NOTHING
        if why:
            problems.append(f"{key}: '{told}' {why}")
            continue
        mapping.expressions[ours], mapping.types[ours] = expression, kind
        # of CSV every column is text: that says nothing of one
        is_csv = all(shape.format == "csv" for shape in source.file_sets.values())
        mapping.notes.extend([] if is_csv else _conversion(key, told, kind, schema.column(ours)))
    if problems:
        raise SourceError(problems)
    mapping.used.extend(name for name in existing if name in used)
    mapping.ignored.extend(name for name in existing if name not in used)
    return mapping


def _is_empty(connection: duckdb.DuckDBPyConnection, expression: str, view: str) -> bool:
    found = connection.execute(f"SELECT 1 FROM {quoted(view)} WHERE {expression} IS NOT NULL LIMIT 1").fetchone()
    return found is None


def _not_there(theirs: str, existing: dict[str, str]) -> str:
    near = difflib.get_close_matches(theirs, list(existing), n=1, cutoff=0.6)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return f"there is no column '{theirs}'{hint}; columns that exist: {', '.join(existing)}"


def _conversion(key: str, theirs: str, kind: str, column: SourceColumn) -> list[str]:
    """Says where a count is no count over there: such a column can hold what is not a number."""
    if column.type != "BIGINT" or cells.is_exact_count(kind):
        return []
    return [f"{key}: '{theirs}' is {kind} and is converted; a value that is not a whole number is not taken"]


def mapped_columns(mapping: Mapping, schema: SourceSchema) -> list[str]:
    """The columns of the schema as SQL, each of our type, NULL where not delivered.

    A value that cannot be read becomes NULL: whoever needs it rejects the row with the reason.
    """
    return [f"{_value(mapping, schema, column)} AS {column.name}" for column in schema.columns]


def _value(mapping: Mapping, schema: SourceSchema, column: SourceColumn) -> str:
    """SQL of a column of ours; amounts of money in the configured currency, NULL where there is no rate."""
    value, currency = mapping.cell(column).value, mapping.reading.currency
    if column.name != MONEY or currency is None or "currency" not in mapping.expressions:
        return value
    theirs = mapping.cell(schema.column("currency")).value
    # to the cent, as prices are: what is added up afterwards is exact
    rates = "".join(f" WHEN {literal(code)} THEN round({value} * {rate!r}, 2)" for code, rate in currency.rates.items())
    return f"CASE coalesce({theirs}, {literal(currency.code)}) WHEN {literal(currency.code)} THEN {value}{rates} END"


# ---------------------------------------------------------------- what whole columns settle


def settle(
    connection: duckdb.DuckDBPyConnection,
    schema: SourceSchema,
    parts: Sequence[tuple[str, Mapping]],
    week: date | None = None,
) -> tuple[list[Mapping], list[str]]:
    """Looks at all cells that can be read in two ways, in every part (a view with its mapping) of one source.

    Returns the mappings with what was settled, and notes on what was not. Of usage in week folders the folder's `week`
    settles what the days themselves leave open. Raises SourceError where amounts are in a currency without a rate.
    """
    if not parts:
        return [], []
    reading, notes = parts[0][1].reading, list[str]()
    order, days = _day_order(connection, schema, parts, week)
    if days and reading.date_order == "auto":
        notes.append(_open_days(schema, order, days))
    decimals: dict[str, str] = {}
    for column in schema.columns:
        if column.type not in ("BIGINT", "DOUBLE"):
            continue
        texts = _texts(connection, parts, column, cells.PLAIN_WHOLE, "[0-9][.,][0-9]")
        said, example = cells.decimal_of(texts) if texts else ("", None)
        decimals[column.name] = said if reading.decimal == "auto" else reading.decimal
        if reading.decimal == "auto" and said == "open" and example:
            notes.append(
                f"sources.{schema.name}.columns.{column.name}: numbers such as '{example}' can be read in two ways, "
                f"and are not read; say decimal: point or decimal: comma under sources.{schema.name}"
            )
    settled = reading.settled(order or "open", decimals)
    mappings = [replace(mapping, reading=settled) for _, mapping in parts]
    for (view, _), mapping in zip(parts, mappings, strict=True):
        notes += _currencies(connection, schema, view, mapping)
    return mappings, notes


def _currencies(connection: duckdb.DuckDBPyConnection, schema: SourceSchema, view: str, mapping: Mapping) -> list[str]:
    """Notes on amounts that are converted. Raises SourceError where some are in a currency without a rate."""
    ours = mapping.reading.currency
    if ours is None or MONEY not in mapping.expressions:
        return []
    if "currency" not in mapping.expressions:
        return _written_currencies(connection, schema, view, mapping, ours.code)
    code, amount = (mapping.cell(schema.column(name)).value for name in ("currency", MONEY))
    rows = connection.execute(
        f"SELECT code, count(*) FROM (SELECT {code} AS code, {amount} AS amount FROM {quoted(view)}) "
        f"WHERE amount IS NOT NULL AND code != {literal(ours.code)} GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    key = f"sources.{schema.name}.columns.currency"
    without = [
        f"'{theirs}' ({counted(amounts, 'row', 'rows')})" for theirs, amounts in rows if theirs not in ours.rates
    ]
    without = [*without[:_NAMED], *(["others"] if len(without) > _NAMED else [])]
    if without:
        problem = (
            f"{key}: amounts are in {', '.join(without)}, and no rate says what these are worth in {ours.code} "
            f"({mapping.paths}): "
            f"add one for each under currency.rates, or deliver {MONEY} in {ours.code} alone"
        )
        raise SourceError([problem])
    return [
        f"{key}: {counted(amounts, 'amount', 'amounts')} in {theirs} converted, 1 {theirs} = "
        f"{ours.rates[theirs]:g} {ours.code}"
        for theirs, amounts in rows
    ] + _contradictions(connection, schema, view, mapping, ours.code)


def _contradictions(
    connection: duckdb.DuckDBPyConnection, schema: SourceSchema, view: str, mapping: Mapping, ours: str
) -> list[str]:
    """A note where amounts are written in another currency than their row says."""
    cell, code = mapping.cell(schema.column(MONEY)), mapping.cell(schema.column("currency")).value
    if not cell.is_text:
        return []
    rows = connection.execute(
        f"SELECT text, code, count(*) FROM (SELECT {cell.given} AS text, coalesce({code}, {literal(ours)}) AS code "
        f"FROM {quoted(view)}) WHERE regexp_matches(text, '[^0-9 .,()+-]') GROUP BY ALL ORDER BY ALL "
        f"LIMIT {_MOST_TEXTS}"
    ).fetchall()
    wrong = [(text, code, n) for text, code, n in rows if cells.currency_of(text, code) not in (None, code)]
    if not wrong:
        return []
    text, code, _ = wrong[0]
    amounts = counted(sum(n for *_, n in wrong), "amount is", "amounts are")
    note = (
        f"sources.{schema.name}.columns.{MONEY}: {amounts} written in another currency than the column currency says, "
        f"such as '{text}' in {code} ({mapping.paths}); the column is believed: correct one of the two"
    )
    return [note]


def _written_currencies(
    connection: duckdb.DuckDBPyConnection, schema: SourceSchema, view: str, mapping: Mapping, ours: str
) -> list[str]:
    """A note where amounts are written in one other currency. Raises SourceError where they are in several."""
    texts = _texts(connection, [(view, mapping)], schema.column(MONEY), cells.PLAIN_WHOLE, "[^0-9 .,()+-]")
    written = sorted({code for text in texts if (code := cells.currency_of(text, ours))})
    key = f"sources.{schema.name}.columns.{MONEY}"
    if len(written) > 1:
        problem = (
            f"{key}: amounts are written in several currencies, {', '.join(written)}, and cannot be added up "
            f"({mapping.paths}): map the column currency and write a rate for each under currency.rates, or deliver "
            f"them in {ours} alone"
        )
        raise SourceError([problem])
    if written and written != [ours]:
        return [f"{key}: amounts are written in {written[0]} and taken as {ours}: if they are not, set currency.code"]
    return []


def _day_order(
    connection: duckdb.DuckDBPyConnection,
    schema: SourceSchema,
    parts: Sequence[tuple[str, Mapping]],
    week: date | None,
) -> tuple[str, dict[str, str]]:
    """The order of day and month, and for each column that leaves it open one such day."""
    reading = parts[0][1].reading
    texts = {
        column.name: _texts(connection, parts, column, cells.ISO, "^[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{2,4}")
        for column in schema.columns
        if column.type in ("TIMESTAMP", "DATE")
    }
    everything = [text for found in texts.values() for text in found]
    if reading.date_order != "auto":
        return reading.date_order, {}
    order, _ = cells.day_order_of(everything)
    if order == "open" and week is not None and (by_folder := _order_of_week(everything, week, reading.timezone)):
        return by_folder, {}
    if order in ("mdy", "dmy"):
        return order, {}
    examples = {name: cells.day_order_of(found)[1] for name, found in texts.items()}
    return order, {name: example for name, example in examples.items() if example}


def _order_of_week(texts: list[str], week: date, zone: str) -> str | None:
    """The order under which more of the days lie in or near the week of their folder; None where both do alike."""
    near = {
        order: sum(
            found is not None and -3 <= (found.date() - week).days <= 9
            for found in (cells.time_of(text, order, zone, "") for text in texts)
        )
        for order in ("mdy", "dmy")
    }
    return None if near["mdy"] == near["dmy"] else max(near, key=lambda order: near[order])


def _open_days(schema: SourceSchema, order: str, days: dict[str, str]) -> str:
    listed = ", ".join(f"{name} '{example}'" for name, example in days.items())
    taken = (
        "other days say day first and others again month first, so these are not read"
        if order == "only"
        else "month first is taken for / and -, day first for ."
    )
    return (
        f"sources.{schema.name}: days can be read in two ways ({listed}); {taken}: "
        f"say date_order: mdy or date_order: dmy under sources.{schema.name}"
    )


def _texts(
    connection: duckdb.DuckDBPyConnection,
    parts: Sequence[tuple[str, Mapping]],
    column: SourceColumn,
    plain: str,
    wanted: str,
) -> list[str]:
    """Different texts of a column that are not of the plain form and hold what is wanted."""
    found: dict[str, None] = {}
    for view, mapping in parts:
        cell = mapping.cell(column)
        if column.name not in mapping.expressions or not cell.is_text:
            continue
        rows = connection.execute(
            f"SELECT DISTINCT text FROM (SELECT {cell.given} AS text FROM {quoted(view)}) "
            f"WHERE NOT regexp_full_match(text, {literal(plain)}) AND regexp_matches(text, {literal(wanted)}) "
            f"LIMIT {_MOST_TEXTS}"
        ).fetchall()
        found |= dict.fromkeys(text for (text,) in rows)
    return sorted(found)
