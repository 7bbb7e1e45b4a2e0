"""Whether a file tells of somebody: its bytes, the cells of tables that it holds, the members of an archive.

Belongs here: looking into one file, whatever it is named. Does not: which files are looked at, and what follows from it
(`erase.py`).

What a file is, its first bytes say, not its name: a copy that somebody made is looked into like the original. Columns
compress what they hold, so that bytes alone say little of a Parquet or DuckDB file; they are searched all the same,
for what was deleted and is still there.
"""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import duckdb

from usage_pipeline.privacy.encryption import open_database, parquet_rows

_PART = 1 << 24
# a column that is neither text nor named after somebody holds counts and dates, which equal an id by chance
_NAMED_AFTER_SOMEBODY = ("id", "user", "person", "contact", "account", "customer")
_TEXT = ("VARCHAR", "BLOB", "UUID", "JSON", "STRUCT", "MAP", "ENUM", "[]")


class UnreadableError(Exception):
    """A file that holds a table, and cannot be looked into."""


def tells_of(file: Path, words: Sequence[str], ids: tuple[str, str] | None = None) -> str | None:
    """Which of the words a file holds; with `ids`, also whether a row of a table in it holds both. None: neither.

    Upper and lower case are the same in cells, and two in bytes. Raises UnreadableError.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(16)
            if (word := _in_bytes(stream, head, words)) is not None:
                return word
    except FileNotFoundError:  # it has just gone, and tells nobody
        return None
    try:
        if head[:4] in (b"PAR1", b"PARE"):
            return _in_parquet(file, words, ids)
        if head[8:12] == b"DUCK":
            return _in_database(file, words, ids)
        if head[:4] == b"PK\x03\x04":
            return _in_archive(file, words)
    except (duckdb.Error, zipfile.BadZipFile, OSError, RuntimeError) as error:
        raise UnreadableError(f"{file} cannot be looked into: {str(error).splitlines()[0]}") from error
    return None


def _in_bytes(stream: IO[bytes], before: bytes, words: Sequence[str]) -> str | None:
    needles = [(word, {word.encode(), word.lower().encode()}) for word in words]
    part = b""
    while True:
        part = before + part
        for word, forms in needles:
            if any(form in part for form in forms):
                return word
        # a word may lie across two parts
        before = part[-400:]
        part = stream.read(_PART)
        if not part:
            return None


def _in_archive(file: Path, words: Sequence[str]) -> str | None:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            with archive.open(name) as stream:
                if (word := _in_bytes(stream, name.encode(), words)) is not None:
                    return word
    return None


def _in_parquet(file: Path, words: Sequence[str], ids: tuple[str, str] | None) -> str | None:
    with duckdb.connect() as connection:
        return rows_that_tell(connection, parquet_rows(connection, file), words, ids)


def _in_database(file: Path, words: Sequence[str], ids: tuple[str, str] | None) -> str | None:
    with open_database(file) as connection:
        for table in _tables(connection):
            if (found := rows_that_tell(connection, table, words, ids)) is not None:
                return found
    return None


def _tables(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    found = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() "
        "WHERE NOT internal AND database_name = current_database() ORDER BY ALL"
    ).fetchall()
    for schema, table in found:
        yield ".".join('"' + name.replace('"', '""') + '"' for name in (schema, table))


def rows_that_tell(
    connection: duckdb.DuckDBPyConnection, source: str, words: Sequence[str], ids: tuple[str, str] | None = None
) -> str | None:
    """Which of the words a cell of a table (SQL) holds; with `ids`, whether a row holds both, in two columns."""
    columns = [(row[0], row[1]) for row in connection.execute(f"DESCRIBE FROM {source}").fetchall()]
    texts = [f"lower({_text(name)})" for name, kind in columns if any(part in kind for part in _TEXT)]
    if texts and words:
        whole = f"concat_ws(chr(31), {', '.join(texts)})"
        sql = (
            f"SELECT word FROM unnest($words) AS given(word) WHERE EXISTS (FROM {source} WHERE contains({whole}, word))"
        )
        found = connection.execute(sql, {"words": [word.lower() for word in words]}).fetchone()
        if found is not None:
            return next(word for word in words if word.lower() == found[0])
    named = [
        _text(name)
        for name, kind in columns
        if any(part in kind for part in _TEXT) or any(part in name.lower() for part in _NAMED_AFTER_SOMEBODY)
    ]
    if ids and len(named) > 1:
        # two columns: where both ids are the same text, one cell is not two
        counted = " + ".join(f"CAST(coalesce({name} IN ($one, $other), FALSE) AS INTEGER)" for name in named)
        both = " AND ".join(f"({' OR '.join(f'{name} = {value}' for name in named)})" for value in ("$one", "$other"))
        sql = f"FROM {source} WHERE {both} AND {counted} > 1 LIMIT 1"
        if connection.execute(sql, {"one": ids[0], "other": ids[1]}).fetchone() is not None:
            return "a row of theirs"
    return None


def _text(name: str) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    return f"trim(CAST({quoted} AS VARCHAR))"
