"""Personal data of contacts at rest: the one way to open, write and rewrite a file that holds names and addresses.

Belongs here: the key, and DuckDB and Parquet files that are encrypted where USAGE_CONTACTS_KEY is set, and plain where
it is not. Does not: which files these are (`data_home.py`, `rekey.py`), nor how Superset opens them (`superset/`, which
imports nothing of ours).

A file says itself whether it is encrypted, so that plain and encrypted ones can be read beside each other while a key
comes or goes. The key is bound, never part of a statement; that of Parquet files, which takes no bound value, is made
from it. DuckDB reads with what it brings along, and writes only with the cryptography of its extension httpfs.
"""

import base64
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.sql import literal

KEY_VARIABLE = "USAGE_CONTACTS_KEY"
OLD_KEY_VARIABLE = "USAGE_CONTACTS_OLD_KEY"
# the name under which the private file of contacts is attached to the private warehouse
PERSONAL = "personal"
_SHORTEST, _FEWEST_DIFFERENT = 32, 12
_REKEY = f"`usage-pipeline contacts rekey` changes it, with the old key in {OLD_KEY_VARIABLE}"


class ContactsKeyError(duckdb.Error):
    """A file of contacts cannot be opened with the key that is set, or with none; a sentence with the remedy."""


def contacts_key(variable: str = KEY_VARIABLE) -> str | None:
    """The key of the environment; None where none is set. Raises ContactsKeyError where it is no key."""
    key = os.environ.get(variable, "").strip()
    if not key:
        return None
    is_readable = key.isascii() and key.isprintable() and " " not in key
    if len(key) < _SHORTEST or len(set(key)) < _FEWEST_DIFFERENT or not is_readable:
        raise ContactsKeyError(
            f"{variable} is no key: give it {_SHORTEST} random ASCII characters or more (openssl rand -base64 48)"
        )
    return key


def contacts_beside(warehouse: Path) -> Path:
    """The private file of contacts that belongs to a private warehouse."""
    return warehouse.with_name("contacts.duckdb")


def is_encrypted(file: Path) -> bool:
    """Whether the first bytes of a DuckDB or Parquet file say so."""
    with file.open("rb") as stream:
        head = stream.read(21)
    return head[:4] == b"PARE" or (head[8:12] == b"DUCK" and len(head) == 21 and bool(head[20] & 1))


# ---------------------------------------------------------------- DuckDB files


def attach(connection: duckdb.DuckDBPyConnection, file: Path, alias: str, *, read_only: bool = True) -> None:
    """Attaches a file that may be encrypted; one that is made by it is, where a key is set. Raises ContactsKeyError."""
    _attach(connection, file, alias, contacts_key(), read_only=read_only)


@contextmanager
def open_database(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A file that may be encrypted, read only, as it is on the disk: not as this process may have it open elsewhere.

    Raises ContactsKeyError.
    """
    with duckdb.connect(config={"temp_directory": ""}) as connection:
        attach(connection, file, "opened")
        connection.execute("USE opened")
        yield connection


@contextmanager
def open_to_write(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The same to write to; one that is there stays as it is, encrypted or plain. Raises ContactsKeyError."""
    with connect_beside(file) as connection:
        attach(connection, file, "opened", read_only=False)
        connection.execute("USE opened")
        yield connection


def connect_beside(file: Path) -> duckdb.DuckDBPyConnection:
    """A connection in memory to write a file with; what does not fit in memory lies beside it, as DuckDB has it."""
    return duckdb.connect(config={"temp_directory": f"{file}.tmp"})


def _attach(connection: duckdb.DuckDBPyConnection, file: Path, alias: str, key: str | None, *, read_only: bool) -> None:
    options = ["READ_ONLY"] if read_only else []
    is_to_be_encrypted = is_encrypted(file) if file.exists() else key is not None
    if not is_to_be_encrypted:
        connection.execute(f"ATTACH {literal(file)} AS {alias}" + (f" ({', '.join(options)})" if options else ""))
        return
    if key is None:
        raise ContactsKeyError(f"{file} is encrypted, and {KEY_VARIABLE} is not set: set it to the key of this home")
    if not read_only:
        allow_writing(connection)
    # what does not fit in memory would lie on the disk as it is
    connection.execute("SET temp_file_encryption = true")
    sql = f"ATTACH {literal(file)} AS {alias} ({', '.join([*options, 'ENCRYPTION_KEY $key'])})"
    try:
        connection.execute(sql, {"key": key})
    except duckdb.Error as error:
        if "encryption key" not in str(error):
            raise
        raise _other_key(file) from None


def _other_key(file: Path) -> ContactsKeyError:
    return ContactsKeyError(f"{file} is encrypted with another key than that of {KEY_VARIABLE}: set its own; {_REKEY}")


def allow_writing(connection: duckdb.DuckDBPyConnection) -> None:
    """Lets a connection write what is encrypted, also what does not fit in memory."""
    folder = files("duckdb_extension_httpfs") / "extensions" / f"v{duckdb.__version__}"
    connection.execute(f"LOAD {literal(folder / 'httpfs.duckdb_extension')}")
    connection.execute("SET temp_file_encryption = true")


def keep_spill_private(connection: duckdb.DuckDBPyConnection) -> None:
    """What a connection that handles contacts cannot hold in memory is encrypted, where a key is set."""
    if contacts_key() is not None:
        allow_writing(connection)


# ---------------------------------------------------------------- Parquet files


def parquet_rows(connection: duckdb.DuckDBPyConnection, file: Path) -> str:
    """SQL of the rows of a Parquet file that may be encrypted, on this connection. Raises ContactsKeyError."""
    return _parquet_rows(connection, file, contacts_key())


def open_parquet(connection: duckdb.DuckDBPyConnection, file: Path, view: str) -> None:
    """Makes a temporary view of the rows of such a file. Raises ContactsKeyError."""
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS FROM {parquet_rows(connection, file)}")


def count_parquet(file: Path) -> int:
    """Rows of such a file. Raises ContactsKeyError."""
    if not is_encrypted(file):
        return int(pq.read_metadata(file).num_rows)
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT count(*) FROM {parquet_rows(connection, file)}").fetchone()
    assert found is not None
    return int(found[0])


def write_contacts(file: Path, rows: pa.Table) -> None:
    """Writes rows of contacts as Parquet, encrypted where a key is set."""
    key = contacts_key()
    if key is None:
        pq.write_table(rows, file, compression="zstd")
        return
    with connect_beside(file) as connection:
        connection.register("rows_of_contacts", rows)
        _write_parquet(connection, "rows_of_contacts", file, key)


def _parquet_rows(connection: duckdb.DuckDBPyConnection, file: Path, key: str | None) -> str:
    if not is_encrypted(file):
        return f"read_parquet({literal(file)}, hive_partitioning = false)"
    if key is None:
        raise ContactsKeyError(f"{file} is encrypted, and {KEY_VARIABLE} is not set: set it to the key of this home")
    name = _register(connection, key)
    rows = f"read_parquet({literal(file)}, hive_partitioning = false, encryption_config = {{footer_key: '{name}'}})"
    try:
        connection.execute(f"DESCRIBE FROM {rows}")
    except duckdb.Error as error:
        if "AES tag" not in str(error):
            raise
        raise _other_key(file) from None
    return rows


def _write_parquet(connection: duckdb.DuckDBPyConnection, rows: str, file: Path, key: str | None) -> None:
    """Writes the rows of a table or table function (SQL)."""
    more = ""
    if key is not None:
        allow_writing(connection)
        more = f", ENCRYPTION_CONFIG {{footer_key: '{_register(connection, key)}'}}"
    connection.execute(f"COPY (FROM {rows}) TO {literal(file)} (FORMAT parquet, COMPRESSION zstd{more})")


def _register(connection: duckdb.DuckDBPyConnection, key: str) -> str:
    """Makes the key for Parquet files known to a connection; returns the name that it has there."""
    made = hashlib.sha256(b"contacts, parquet " + key.encode()).digest()
    name = f"contacts_{hashlib.sha256(made).hexdigest()[:8]}"
    try:
        connection.execute(f"PRAGMA add_parquet_key('{name}', '{base64.b64encode(made).decode()}')")
    except duckdb.Error:
        # the statement holds the key: its error is not shown
        raise ContactsKeyError(f"{KEY_VARIABLE} cannot be used for Parquet files") from None
    return name


# ---------------------------------------------------------------- rewriting


def rewrite(file: Path) -> None:
    """Copies a DuckDB file to a new one, without what was deleted in it; an encrypted one stays so.

    Raises ContactsKeyError.
    """
    key = contacts_key()
    _rewrite(file, key, key if is_encrypted(file) else None)


def encrypt_plain(file: Path) -> list[str]:
    """Encrypts a file that is plain while a key is set, and says so; whoever may write it calls this."""
    key = contacts_key()
    if key is None or not file.exists() or is_encrypted(file):
        return []
    _rewrite(file, None, key)
    return [f"{file} was not encrypted: it is now"]


def must_open(file: Path) -> None:
    """Raises ContactsKeyError where a file does not open with the key that is set; FileNotFoundError where none is."""
    with duckdb.connect() as connection:
        if not is_encrypted(file):
            return
        if file.suffix == ".parquet":
            parquet_rows(connection, file)
        else:
            attach(connection, file, "tried")


def change_key(file: Path, old: str | None, new: str | None) -> bool:
    """Rewrites a file that is not yet as `new` wants it (None: plain); whether it was rewritten.

    Raises ContactsKeyError where neither key opens it.
    """
    if not is_encrypted(file):
        if new is None:
            return False
        _rewrite(file, None, new)
        return True
    if new is not None and _opens(file, new):
        return False
    if old is None:
        raise ContactsKeyError(f"{file} is encrypted with another key: set {OLD_KEY_VARIABLE} to it")
    if not _opens(file, old):
        raise ContactsKeyError(f"{file} opens neither with {KEY_VARIABLE} nor with {OLD_KEY_VARIABLE}: correct them")
    _rewrite(file, old, new)
    return True


def _opens(file: Path, key: str) -> bool:
    try:
        with duckdb.connect() as connection:
            if file.suffix == ".parquet":
                _parquet_rows(connection, file, key)
            else:
                _attach(connection, file, "tried", key, read_only=True)
    except ContactsKeyError:
        return False
    return True


def _rewrite(file: Path, old: str | None, new: str | None) -> None:
    with atomic_write(file) as tmp_path:
        with connect_beside(tmp_path) as connection:
            if file.suffix == ".parquet":
                _write_parquet(connection, _parquet_rows(connection, file, old), tmp_path, new)
            else:
                if file.with_name(f"{file.name}.wal").exists():
                    # a log that was left beside the new file would be played into it
                    _attach(connection, file, "logged", old, read_only=False)
                    connection.execute("CHECKPOINT logged")
                    connection.execute("DETACH logged")
                _attach(connection, file, "before", old, read_only=True)
                _attach(connection, tmp_path, "after", new, read_only=False)
                connection.execute("COPY FROM DATABASE before TO after")
                connection.execute("DETACH after")
                connection.execute("DETACH before")
        tmp_path.chmod(stat.S_IMODE(file.stat().st_mode))
