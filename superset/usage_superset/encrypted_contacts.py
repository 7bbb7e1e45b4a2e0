"""Opening the contacts of a build where the pipeline has encrypted them.

Belongs here: the key, and a connection that may do exactly what one to a plain file may. Does not: who may open it
(`superset_config.py`, `usage_security.py`).

DuckDB opens an encrypted file by ATTACH only, and a connection in memory would take tables of its own (`CREATE TABLE
memory.x`). So it begins on an empty file, read only, attaches contacts under the name that the plain file has, lets go
of the empty file, and is locked down before anybody has it. Each connection has an empty file of its own, since DuckDB
shares what has the same path; it is removed once it is open. The key is bound: no statement, setting or error holds it,
and it stays in the environment, since what stands in Superset's configuration can be asked for.
"""

import os
import tempfile
import uuid
from collections.abc import Callable
from functools import cache
from typing import Any

import duckdb
from duckdb_engine import ConnectionWrapper

KEY_VARIABLE = "USAGE_CONTACTS_KEY"
# set once it is attached: before, it would keep the file away
_CLOSED = ("SET enable_external_access = false", "SET lock_configuration = true")
_LATER = ("enable_external_access", "lock_configuration")


def contacts_key() -> str:
    """The key of the environment; empty where none is set."""
    return os.environ.get(KEY_VARIABLE, "").strip()


def key_problem() -> str:
    """What is wrong with the key; empty where it is one, or none is set."""
    key = contacts_key()
    is_readable = key.isascii() and key.isprintable() and " " not in key
    if key and (len(key) < 32 or len(set(key)) < 12 or not is_readable):
        return f"{KEY_VARIABLE} is no key: give it the one of the pipeline, 32 random ASCII characters or more"
    return ""


def is_encrypted(file: str) -> bool:
    """Whether the header of a DuckDB file says so."""
    with open(file, "rb") as stream:
        head = stream.read(21)
    return head[8:12] == b"DUCK" and len(head) == 21 and bool(head[20] & 1)


def opener(file: str, config: dict[str, str]) -> Callable[[], Any]:
    """What SQLAlchemy makes connections to an encrypted file with. Raises ValueError where there is no key."""
    if not contacts_key():
        raise ValueError(f"contacts are encrypted, and this server has no key: set {KEY_VARIABLE}, and start it again")
    return lambda: ConnectionWrapper(_open(file, config))


def _open(file: str, config: dict[str, str]) -> duckdb.DuckDBPyConnection:
    name = f"empty_{uuid.uuid4().hex}"
    empty = os.path.join(tempfile.gettempdir(), f"{name}.duckdb")
    try:
        with open(os.open(empty, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(_empty_database())
        first: dict[str, Any] = {key: value for key, value in config.items() if key not in _LATER}
        connection = duckdb.connect(empty, read_only=True, config=first)
    finally:
        os.unlink(empty)
    try:
        catalog = os.path.splitext(os.path.basename(file))[0]
        sql = f"ATTACH '{file.replace(chr(39), 2 * chr(39))}' AS {catalog} (READ_ONLY, ENCRYPTION_KEY $key)"
        connection.execute(sql, {"key": contacts_key()})
        connection.execute(f"USE {catalog}")
        connection.execute(f"DETACH {name}")
        for statement in _CLOSED:
            connection.execute(statement)
    except duckdb.Error as error:
        connection.close()
        if "encryption key" not in str(error):
            raise
        raise ValueError(
            f"contacts are encrypted with another key than this server has: correct {KEY_VARIABLE}, and start it again"
        ) from None
    except BaseException:
        connection.close()
        raise
    return connection


@cache
def _empty_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "empty.duckdb")
        duckdb.connect(file).close()
        with open(file, "rb") as stream:
            return stream.read()
