"""The engine `spark`: the heavy step of a week, raw rows summed up to counts, on a cluster reached by Spark Connect.

Belongs here: asking the cluster, and saying what is wrong with it. Listing, footers, manifest, history and the facts
file stay with `usage_reader.py` and `facts.py`: the cluster gives back the counted week, and from there on both engines
are the same code. Decision 0020 says why, and what makes the facts identical.

Spark judges no file: where it cannot read one, or a column has a type that engines read differently, the week is left
to the embedded engine, which names what is wrong, and `remarks` counts why. Where the cluster is away, has no workers,
or does not see the lake, the run ends with EngineError: weeks written until then stay, and the next run reads the rest.
"""

import logging
import re
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from usage_pipeline.config.settings import Settings, Source, SparkSettings
from usage_pipeline.config.source_schemas import USAGE
from usage_pipeline.core.sql import run_sql
from usage_pipeline.ingestion.lake import LakeError, LakeFile
from usage_pipeline.ingestion.sources import PLACE, Mapping, columns_of, first_line
from usage_pipeline.ingestion.spark_sql import READING, SETTINGS, TYPES, is_alike, named, spark_sql
from usage_pipeline.ingestion.usage_reader import Part, UsageReader, WeekRows, spelled_twice

# more rejected rows than this are not gathered from the cluster, but written by the embedded engine, which streams
_MOST_REJECTED = 1_000_000
# what Spark says of files and values, which the embedded engine then judges; of anything else the cluster is at fault
_OF_FILES = (
    "FAILED_READ_FILE",
    "CANNOT_READ_FILE_FOOTER",
    "INVALID_UTF8_STRING",
    "ARITHMETIC_OVERFLOW",
    "CAST_OVERFLOW",
)
_NOT_SEEN = ("PATH_NOT_FOUND", "FILE_NOT_EXIST", "FileNotFoundException", "does not exist")
_NO_CONNECTOR = ("S3AFileSystem not found", "No FileSystem for scheme", "UNSUPPORTED_FILE_SYSTEM")
_DENIED = ("AccessDenied", "403 Forbidden", "NoAuthWithAWS", "NoAwsCredentials", "Unable to load credentials")
_GONE = ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED", "INVALID_HANDLE", "RETRIES_EXCEEDED", "RetriesExceeded")
_INSTALL = "make setup-spark, or pip install '.[spark]' in the checkout"


class EngineError(LakeError):
    """The cluster cannot do its part; the message names its address and the remedy."""


class _LeftToEmbeddedError(Exception):
    """A week that engines could read differently; the message says why."""


class Cluster:
    """A Spark cluster that is asked once whether it is there, before the first week; never for longer than told."""

    def __init__(self, settings: SparkSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._is_there = False
        self._away: EngineError | None = None

    def session(self) -> Any:
        """A new session, with the settings that make SQL mean the same. Raises EngineError."""
        with self._lock:
            if self._away is not None:
                # weeks side by side would otherwise wait for it one after the other
                raise EngineError(str(self._away))
            try:
                return self._first_answer() if not self._is_there else self._new_session()
            except EngineError as error:
                self._away = error
                raise

    def _first_answer(self) -> Any:
        self._must_listen()
        session = self._new_session()
        workers = "has no worker free; start workers, or give them cores"
        self.within(self.settings.wait_seconds, lambda: session.range(1).count(), workers, session)
        self._is_there = True
        return session

    def _new_session(self) -> Any:
        return self.within(self.settings.wait_seconds, self._open, "does not answer")

    def within(self, seconds: float, ask: Callable[[], Any], what: str, session: Any = None) -> Any:
        """What `ask` gives; after `seconds` the cluster is given up, whatever it still does."""
        found: list[Any] = []

        def run() -> None:
            try:
                found.append((ask(), None))
            except Exception as error:
                found.append((None, error))

        # a thread that nobody waits for: a lost server can hold a call for as long as it likes
        asking = threading.Thread(target=run, daemon=True)
        asking.start()
        asking.join(seconds)
        if not found:
            if session is not None:
                threading.Thread(target=lambda: _quietly(session.interruptAll), daemon=True).start()
            raise self.error(f"{what} (asked for {seconds:.0f} s)")
        value, error = found[0]
        if error is not None:
            raise error
        return value

    def error(self, what: str) -> EngineError:
        remedy = "see ingest.spark and docs/how-to/scale-out-with-spark.md, or set ingest.engine: embedded"
        return EngineError(f"the Spark cluster at {self.settings.connect} {what}; {remedy}")

    def _must_listen(self) -> None:
        """Looked at first, since a client of Spark Connect would try again for minutes."""
        host, _, port = self.settings.connect.removeprefix("sc://").partition(":")
        try:
            socket.create_connection((host, int(port or 15002)), timeout=5).close()
        except OSError as error:
            said = error.strerror or str(error) or type(error).__name__
            raise self.error(f"cannot be reached ({said}): start it, or correct the address") from error

    def _open(self) -> Any:
        try:
            with warnings.catch_warnings():
                # only tables of Arrow come back, no frames of pandas
                warnings.filterwarnings("ignore", message=".*pandas", category=FutureWarning)
                from pyspark.errors import PySparkException
                from pyspark.sql.connect.client.retries import DefaultPolicy
                from pyspark.sql.connect.session import SparkSession
        except ImportError as error:
            raise EngineError(
                f"ingest.engine is spark, and its client is not installed ({error}): {_INSTALL}"
            ) from error
        logging.getLogger("pyspark.sql.connect.logging").setLevel(logging.CRITICAL)
        options = ";use_ssl=true" if self.settings.tls else ""
        options += f";token={self.settings.token}" if self.settings.token else ""
        try:
            session = SparkSession.Builder().remote(f"{self.settings.connect}/{options}").create()
            # about half a minute, not ten
            patient = DefaultPolicy(max_retries=6, max_backoff=10_000, recognize_server_retry_delay=False)
            session.client.set_retry_policies([patient])
            for name, value in SETTINGS.items():
                session.conf.set(name, value)
        except PySparkException as error:
            raise self.error(f"refuses: {first_line(error)}") from error
        return session


class SparkReader(UsageReader):
    """`UsageReader` whose weeks are counted on a cluster; the connection of DuckDB keeps what comes back."""

    def __init__(self, settings: Settings, workers: int, cluster: Cluster) -> None:
        super().__init__(settings, workers)
        self.cluster = cluster
        self.remarks: Counter[str] = Counter()
        self._opened: Any = None

    def close(self) -> None:
        super().close()
        if self._opened is not None:
            # a server that went away would hold its goodbye for as long as any other call
            threading.Thread(target=lambda: _quietly(self._opened.stop), daemon=True).start()

    def read(self, week: date, files: list[LakeFile]) -> WeekRows:
        """As the embedded engine would; raises EngineError where the cluster cannot do its part."""
        source = self.source.at(week)
        try:
            rows = self._read_on_cluster(week, source, files)
            if set(files) == set(self.files_of(week)):
                return rows
            why = "files changed while they were read"
        except _LeftToEmbeddedError as error:
            why = str(error)
        except EngineError as error:
            if set(files) == set(self.files_of(week)):
                raise EngineError(f"week {week}: {error}") from error
            why = "files changed while they were read"
        self.remarks[why] += 1
        return super().read(week, files)

    def _read_on_cluster(self, week: date, source: Source, files: list[LakeFile]) -> WeekRows:
        if spelled_twice(files):
            raise _LeftToEmbeddedError("a week is spelled in two ways")
        self._forget()
        # checksums are verified by the cluster, while it reads
        readable, aside, notes = self._sift(files, lambda file: self._inspect(source, file, with_checksums=False))
        if not readable:
            raise _LeftToEmbeddedError("no file of theirs can be read")
        parts, more = self._open(source, readable, week)
        for (view, mapping), alike in zip(parts, self._by_columns(readable).values(), strict=True):
            self._must_be_alike(mapping, alike)
            self._show(view, mapping, alike)
        selected = self._select(parts, with_place=True)
        values = self._values(week, source)
        counted = self._ask(self._counted_sql(f"({selected})"), values)
        self._keep("counted", counted)
        rows = self._week_rows(week, source, readable, values)

        def total(clicks: str) -> tuple[int, int]:
            found = self._ask(f"SELECT count(*) AS source_rows, {clicks} AS clicks FROM ({selected})", {}).to_pylist()[
                0
            ]
            return int(found["source_rows"]), int(found["clicks"] or 0)

        self._count_files(rows, week, source, readable, total)
        rows.write_rejected = lambda file: self._write_rejected(file, week, source, parts, readable, values, rows)
        rows.quarantined, rows.notes = aside, list(dict.fromkeys([*notes, *more]))
        return rows

    # ---------------------------------------------------------------- what may be asked

    def _must_be_alike(self, mapping: Mapping, files: list[LakeFile]) -> None:
        """Columns of types that both engines read alike, and the same in every file."""
        for ours, kind in mapping.types.items():
            if not is_alike(USAGE.column(ours).type, kind):
                raise _LeftToEmbeddedError(f"{ours} is {kind}, which engines read in ways of their own")
        instants = {name for file in files for name in self._columns[file].instants}
        if old := sorted(instants & set(mapping.used)):
            raise _LeftToEmbeddedError(f"'{old[0]}' is a time of an old kind")
        if any(letter in file.key for file in files for letter in "*?[]{}\\,"):
            raise _LeftToEmbeddedError("the name of a file holds a letter that Spark takes for a pattern")

    def _has_repeated(self, parts: list[Part]) -> bool:
        # on a cluster looking first would cost as much as numbering
        return any("event_id" in mapping.expressions for _, mapping in parts)

    # ---------------------------------------------------------------- asking

    @property
    def _session(self) -> Any:
        if self._opened is None:
            self._opened = self.cluster.session()
        return self._opened

    def _show(self, view: str, mapping: Mapping, files: list[LakeFile]) -> None:
        """Makes the files the view of raw rows over there; text that is not UTF-8 is an error, as it is here."""
        kinds = {name: kind for name, kind in columns_of(self.connection, view).items() if name in mapping.used}
        schema = ", ".join(f"`{name.replace('`', '``')}` {TYPES[kind]}" for name, kind in kinds.items())
        paths = [re.sub(r"^s3://", "s3a://", file.key) for file in files]
        session = self._session

        def show() -> None:
            rows = session.read.options(**READING).schema(schema).parquet(*paths)
            valid = [
                f"validate_utf8({_backticked(name)}) AS {_backticked(name)}" if kind == "VARCHAR" else _backticked(name)
                for name, kind in kinds.items()
            ]
            file, row = PLACE
            rows = rows.selectExpr(*valid, f"_metadata.file_path AS {file}", f"_metadata.row_index + 1 AS {row}")
            rows.createOrReplaceTempView(view)

        self._on_cluster(show)

    def _ask(self, sql: str, values: dict[str, Any]) -> pa.Table:
        translated, session = spark_sql(sql), self._session
        return self._on_cluster(lambda: session.sql(translated, args=named(translated, values)).toArrow())

    def _on_cluster(self, ask: Callable[[], Any]) -> Any:
        seconds = self.cluster.settings.week_seconds
        try:
            return self.cluster.within(seconds, ask, "did not finish", self._session)
        except EngineError:
            raise
        except Exception as error:
            raise self._judged(error) from error

    def _judged(self, error: Exception) -> Exception:
        """Whose fault an error of Spark is: a file's, which the embedded engine looks at, or the cluster's."""
        said, path = str(error), self.source.path
        if any(words in said for words in _NO_CONNECTOR):
            remedy = "put hadoop-aws of its Hadoop version, with what that needs, among the jars of server and workers"
            return self.cluster.error(f"lacks S3 access: it has no S3 connector for {path}; {remedy}")
        if any(words in said for words in _DENIED):
            remedy = "credentials are the cluster's own (spark.hadoop.fs.s3a.*, or the roles of its machines)"
            return self.cluster.error(f"lacks S3 access: {path} is denied to it; {remedy}")
        if any(words in said for words in _NOT_SEEN):
            remedy = "server and workers must see the lake under the same path as this machine: mount it there"
            return self.cluster.error(f"does not see files of {path}; {remedy}")
        if any(words in f"{type(error).__name__}: {said}" for words in _GONE):
            return self.cluster.error(
                "went away while it was counting; weeks that are written stay, start it and run again"
            )
        conditions = re.findall(r"\[([A-Z0-9_]+)(?:\.[A-Z0-9_]+)?\]", said)
        if any(condition in _OF_FILES for condition in conditions):
            return _LeftToEmbeddedError(f"Spark could not read a file or a value ({conditions[0]})")
        return self.cluster.error(f"failed: {first_line(error)[:300]}")

    # ---------------------------------------------------------------- what comes back

    def _keep(self, name: str, table: pa.Table) -> None:
        self.connection.register("arrived", table)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM arrived")
        self.connection.unregister("arrived")

    def _write_rejected(
        self,
        file: Path,
        week: date,
        source: Source,
        parts: list[Part],
        files: list[LakeFile],
        values: dict[str, Any],
        rows: WeekRows,
    ) -> None:
        if sum(rows.reasons.values()) > _MOST_REJECTED:
            self._copy_rejected(file, week, source, files, values)
            return
        place = self._select(parts, with_place=True)
        found = self._ask(self._rejected_sql(f"({place})"), values)
        keys = {_as_spark_says(name): name for name in (listed.key for listed in files)}
        at = found.schema.get_field_index("source_file")
        names = pa.array(
            [keys[_as_spark_says(unquote(name))] for name in found["source_file"].to_pylist()], pa.string()
        )
        self._keep("rejected", found.set_column(at, "source_file", names))
        run_sql(self.connection, "COPY rejected TO $file (FORMAT parquet)", {"file": str(file)})


def _as_spark_says(path: str) -> str:
    """A path without its scheme: one file is s3:// here and s3a:// there, or has none here and file:// there."""
    return re.sub(r"^(s3a?://|file://|file:)", "", path)


def _backticked(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _quietly(say: Callable[[], Any]) -> None:
    try:
        say()
    except Exception:
        logging.getLogger(__name__).debug("the cluster did not hear it", exc_info=True)
