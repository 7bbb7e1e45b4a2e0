"""The lake: somebody else's files, read only, in a folder or an S3-compatible store.

Belongs here: listing what a path holds, what of it is data, and bringing files near whole. Nothing else in the product
asks a store anything. Does not: opening the files (`sources.py`), or which weeks are wanted (`weeks.py`).

Listing a week lists that week's prefix and no other. What lies below a path is data, or is named with the reason.

Three kinds of trouble are told apart. LakeError: the place as a whole cannot be used, and the message says what to do.
NotReadError: the way to a file is in trouble; it was tried again, and nothing is said about the file. FileError: the
file itself, whose bytes have all arrived, or which its store refuses to hand out.
"""

import math
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import duckdb
import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError
from pyarrow import fs
from urllib3.exceptions import HTTPError

from usage_pipeline.config.settings import Source, StoreSettings
from usage_pipeline.core.weeks import PartitionCalendar, WeekFolder, folders_of, weeks_of

if TYPE_CHECKING:
    from usage_pipeline.ingestion.s3_store import S3Store

_YEAR = re.compile(r"year=(\d{4})")
_WEEK = re.compile(r"week=(\d{1,2})")
_CODECS = ("snappy", "gz", "gzip", "zst", "zstd", "lz4", "lzo", "br", "brotli", "uncompressed")
# names that are read, without regard to case
_DATA = {
    "parquet": re.compile(rf"\.(parquet|parq|pq)(\.({'|'.join(_CODECS)}))?$", re.IGNORECASE),
    "csv": re.compile(r"\.(csv|tsv|psv|txt)(\.(gz|zst))?$", re.IGNORECASE),
}
_ATTEMPTS = 4
# pauses between them, as shares of `store.retry_seconds`
_PAUSES = (0.05, 0.2, 0.75)
_CHUNK = 1 << 20
# what a store says, and what a person can do about it
_REMEDIES = {
    "NoSuchBucket": "there is no such bucket; correct the path",
    "AccessDenied": "access is denied; give these credentials the right to list and read it",
    "403": "access is denied; give these credentials the right to list and read it",
    "InvalidAccessKeyId": "the store does not know the access key; correct the credentials",
    "SignatureDoesNotMatch": "the secret key is wrong; correct the credentials",
    "ExpiredToken": "the credentials have expired; renew them",
    "InvalidToken": "the session token is not valid; renew the credentials",
    "PermanentRedirect": "the bucket lies in another region; set store.region",
}
# of one object: its own trouble, not that of the store
_REFUSED = {
    "AccessDenied": "access is denied; give these credentials the right to read it",
    "403": "access is denied; give these credentials the right to read it",
    "InvalidObjectState": "it is archived; restore it, or move it out of the path",
}
_GONE = ("NoSuchKey", "404")
WRITTEN = "was written while it was read; the next run reads it again"
Found = TypeVar("Found")
# by address, when a store was last waited for in vain, and what was said then
_AWAY: dict[str | None, tuple[float, str]] = {}


class LakeError(Exception):
    """The lake cannot be listed or read; the message names the place and the remedy."""


class NotReadError(LakeError):
    """The way to the lake is in trouble, after it was tried again; nothing is said about what lies there."""


class _AwayError(NotReadError):
    """The store gave no answer at all."""


class _ChangedError(NotReadError):
    """A file changed between the first byte and the last."""


class FileError(Exception):
    """One file cannot be had as it was listed; the message says why, for whoever delivers it."""


class Named(NamedTuple):
    """Something below a path that is not read, and why."""

    key: str
    reason: str


@dataclass(frozen=True, order=True)
class LakeFile:
    """One file of the lake, with what tells a rewritten file from the one that was read."""

    key: str
    size: int
    modified: str
    etag: str

    @property
    def is_remote(self) -> bool:
        return self.key.startswith("s3://")


@dataclass
class Listing:
    """What lies below a path: files that are read, and what is named instead; each sorted by key."""

    files: list[LakeFile] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)

    def __iadd__(self, other: "Listing") -> "Listing":
        self.files = sorted([*self.files, *other.files])
        self.named = sorted([*self.named, *other.named])
        return self


class Lake:
    """The folders and buckets that a configuration's paths name.

    `retries` is whether what may go away is asked for again, which takes its time: not where a person waits, or where
    somebody else looks again soon.
    """

    def __init__(self, store: StoreSettings, *, retries: bool = True) -> None:
        self.store = store
        self.retries = retries

    def files(self, path: str, file_format: str) -> Listing:
        """Everything below a path: a file, a folder or, of folders, a glob.

        Raises LakeError where the path does not exist or holds no file of the format.
        """
        if not _is_s3(path) and not os.path.lexists(path) and not any(letter in path for letter in "*?["):
            raise LakeError(f"{path}: no such file or folder")
        found = self._bucket_files(path) if _is_s3(path) else _folder_files(path)
        listing = self._judge(path, file_format, found)
        if not listing.files:
            named = f"; it holds {_some(listing.named)}" if listing.named else ""
            raise LakeError(f"{path}: holds no {file_format} file{named}")
        return listing

    def week_files(self, path: str, file_format: str, folder: WeekFolder) -> Listing:
        """Everything in one week folder, in both spellings (`week=1`, `week=01`); empty where there is none."""
        listing = Listing()
        for spelling in dict.fromkeys((f"week={folder.week}", f"week={folder.week:02d}")):
            place = f"{path.rstrip('/')}/year={folder.year}/{spelling}"
            found = self._listed(place + "/") if _is_s3(place) else _folder_files(place)
            listing += self._judge(place, file_format, found)
        return listing

    def files_of_week(self, source: Source, week: date) -> Listing:
        """Everything in the folders that days of the week (a Monday) can lie in, of a partitioned source."""
        assert source.path is not None
        listing = Listing()
        for folder in folders_of(week, source.partition_calendar):
            listing += self.week_files(source.path, source.format, folder)
        return listing

    def week_folders(self, path: str) -> list[WeekFolder]:
        """Every `year=/week=` folder of a lake, by name only: no file is listed.

        Raises LakeError where the path is no folder or holds no such folder.
        """
        if not _is_s3(path) and not Path(path).is_dir():
            raise LakeError(f"{path}: no such folder")
        found = set()
        years, _ = self._names(path)
        for year in years:
            if in_year := _YEAR.fullmatch(year):
                weeks, _ = self._names(f"{path.rstrip('/')}/{year}")
                found |= {WeekFolder(int(in_year[1]), int(w[1])) for name in weeks if (w := _WEEK.fullmatch(name))}
        if not found:
            hint = f" (it holds {', '.join(sorted(years)[:3])})" if years else ""
            remedy = "where the files lie flat, say partitioned: false"
            raise LakeError(f"{path}: holds no year=YYYY/week=WW folder{hint}; {remedy}")
        return sorted(found)

    def beside_the_weeks(self, path: str, calendar: PartitionCalendar) -> list[Named]:
        """What lies right under a partitioned path or its years and is no week folder."""
        base, named = path.rstrip("/"), []
        years, files = self._names(base)
        for year in years:
            if not (in_year := _YEAR.fullmatch(year)):
                named.append(Named(f"{base}/{year}", _no_folder(year, "year=YYYY")))
                continue
            weeks, in_year_files = self._names(f"{base}/{year}")
            files += [f"{year}/{name}" for name in in_year_files]
            for week in weeks:
                key = f"{base}/{year}/{week}"
                if not (in_week := _WEEK.fullmatch(week)):
                    named.append(Named(key, _no_folder(week, "week=WW")))
                elif not weeks_of(WeekFolder(int(in_year[1]), int(in_week[1])), calendar):
                    named.append(Named(key, f"no day belongs to it under partition_calendar: {calendar}; rename it"))
        beside = "lies beside the week folders; move it into its week's folder"
        return sorted([*named, *(Named(f"{base}/{name}", beside) for name in files)])

    def open(self, file: LakeFile) -> pa.NativeFile:
        """One file of the lake as a stream of bytes that can be read anywhere. Raises OSError where that fails."""
        if not file.is_remote:
            return pa.OSFile(file.key)
        return self._arrow_store.open_input_file(file.key.removeprefix("s3://"))

    def bring(self, file: LakeFile, target: Path) -> None:
        """Puts the whole file at `target`: a copy that has all of its bytes and the ETag that was listed, or a link.

        Raises NotReadError where the way is in trouble, FileError where the file is.
        """
        if file.size == 0:
            raise FileError("is empty: it has no bytes; deliver it again")
        if not file.is_remote:
            target.symlink_to(file.key)
            return
        try:
            self._with_patience(file.key, lambda: self._copy(file, target))
        except _ChangedError as error:
            raise FileError(WRITTEN) from error

    # ---------------------------------------------------------------- what is data

    def _judge(self, path: str, file_format: str, found: Iterable[LakeFile | Named]) -> Listing:
        listing = Listing()
        for item in found:
            if isinstance(item, Named):
                listing.named.append(item)
            elif why := self._why_no_data(path, file_format, item):
                listing.named.append(Named(item.key, why))
            else:
                listing.files.append(item)
        return Listing(sorted(listing.files), sorted(listing.named))

    def _why_no_data(self, path: str, file_format: str, file: LakeFile) -> str | None:
        below = file.key.removeprefix(path).lstrip("/") or path.rsplit("/", 1)[-1]
        *folders, name = below.split("/")
        if file.size == 0 and name.endswith("_$folder$"):
            return "is a marker of a folder"
        for part in (*folders, name):
            if part.startswith(("_", ".")):
                where = "its name" if part == name else f"the folder {part}"
                return f"{where} begins with {part[0]}: what is unfinished or a marker is called so, and never counted"
        if _DATA[file_format].search(name):
            return None
        if "." in name:
            return f"is no {file_format} file by its ending; rename it if it is one"
        if file_format == "csv" or self._is_parquet(file):
            return None
        return "has no ending, and does not begin as a Parquet file does; rename it if it is one"

    def _is_parquet(self, file: LakeFile) -> bool:
        """Whether a file begins with Parquet's magic bytes; one that cannot be looked into is taken for one."""
        if file.size < 4:
            return False
        try:
            with self.open(file) as stream:
                return bytes(stream.read(4)) == b"PAR1"
        except OSError:
            return True

    # ---------------------------------------------------------------- S3

    @cached_property
    def _arrow_store(self) -> fs.S3FileSystem:
        return _s3(self.store).arrow_store()

    @cached_property
    def _client(self) -> Any:
        return _s3(self.store).get_client()

    @cached_property
    def _patience(self) -> list[float]:
        """Seconds of pauses left for all that is asked: a store that is gone is not waited for 104 times."""
        return [2 * self.store.retry_seconds]

    def _why_away(self) -> str | None:
        """Why the store was waited for in vain not long ago: it is neither waited for nor asked anew."""
        since, why = _AWAY.get(self.store.endpoint, (-math.inf, ""))
        return why if time.monotonic() - since < self.store.retry_seconds else None

    def _with_patience(self, key: str, ask: Callable[[], Found]) -> Found:
        if self.retries and (why := self._why_away()):
            raise _AwayError(why)
        for attempt in range(_ATTEMPTS):
            try:
                found = ask()
            except NotReadError as error:
                pause = _PAUSES[attempt] * self.store.retry_seconds if attempt < len(_PAUSES) else None
                if not self.retries or pause is None or pause > self._patience[0]:
                    if self.retries and isinstance(error, _AwayError):
                        _AWAY[self.store.endpoint] = (time.monotonic(), str(error))
                    raise type(error)(f"{error} (asked {attempt + 1} times)" if attempt else str(error)) from error
                self._patience[0] -= pause
                time.sleep(pause)
            else:
                _AWAY.pop(self.store.endpoint, None)
                return found
        raise AssertionError(key)

    def _copy(self, file: LakeFile, target: Path) -> None:
        bucket, key = _bucket_and_key(file.key)
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key)
            expected, written = answer["ContentLength"], 0
            with target.open("wb") as output, answer["Body"] as body:
                while part := body.read(_CHUNK):
                    written += output.write(part)
            after = self._client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            raise self._of_object(file, error) from error
        except (BotoCoreError, HTTPError, OSError, ValueError) as error:
            raise NotReadError(f"{file.key}: did not arrive whole: {_one_line(error)}") from error
        is_as_listed = _etag(answer) == file.etag
        if written != expected or (is_as_listed and written != file.size):
            raise NotReadError(f"{file.key}: did not arrive whole: {written} of {file.size} bytes")
        if _etag(answer) != _etag(after):
            raise _ChangedError(f"{file.key}: {WRITTEN}")
        if not is_as_listed:
            raise FileError(WRITTEN)

    def _of_object(self, file: LakeFile, error: ClientError) -> Exception:
        code, status = _code_of(error)
        if code in _GONE or status == 404:
            return FileError(WRITTEN)
        if _may_go_away(code, status):
            return NotReadError(f"{file.key}: the store answers {code}")
        return FileError(f"cannot be fetched: {_REFUSED.get(code) or f'the store answers {code}'}")

    def _bucket_files(self, path: str) -> Iterable[LakeFile]:
        """A key, or everything below it: what is a folder and what a file is told by the ending, else by looking."""
        if any(data.search(path) for data in _DATA.values()):
            return [file for file in self._listed(path) if file.key == path]
        below = list(self._listed(path.rstrip("/") + "/"))
        return below or [file for file in self._listed(path) if file.key == path]

    def _listed(self, path: str) -> Iterator[LakeFile]:
        for page in self._pages(path):
            for item in page.get("Contents", []):
                if item["Key"].endswith("/") and not item["Size"]:
                    continue  # the folder itself
                modified = item["LastModified"].astimezone(UTC).isoformat(timespec="seconds")
                key = f"s3://{_bucket_and_key(path)[0]}/{item['Key']}"
                yield LakeFile(key, item["Size"], modified, _etag(item))

    def _names(self, path: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files right below a path."""
        if not _is_s3(path):
            items = sorted(Path(path).iterdir()) if Path(path).is_dir() else []
            return [i.name for i in items if i.is_dir()], [i.name for i in items if not i.is_dir()]
        folders, files = [], []
        place = path.rstrip("/") + "/"
        for page in self._pages(place, "/"):
            folders += [p["Prefix"].rstrip("/").rsplit("/", 1)[-1] for p in page.get("CommonPrefixes", [])]
            files += [c["Key"].rsplit("/", 1)[-1] for c in page.get("Contents", []) if not c["Key"].endswith("/")]
        return folders, files

    def _pages(self, path: str, delimiter: str = "") -> list[dict[str, Any]]:
        bucket, prefix = _bucket_and_key(path)

        def ask() -> list[dict[str, Any]]:
            try:
                pages = self._client.get_paginator("list_objects_v2").paginate(
                    Bucket=bucket, Prefix=prefix, Delimiter=delimiter
                )
                return list(pages)
            except ClientError as error:
                code, status = _code_of(error)
                if _may_go_away(code, status):
                    raise NotReadError(f"s3://{bucket}: the store answers {code}") from error
                remedy = _REMEDIES.get(code) or f"the store answers {code}"
                raise LakeError(f"s3://{bucket}: {remedy}") from error
            except (BotoCoreError, HTTPError, OSError, ValueError) as error:
                raise self._unreachable(bucket, error) from error

        return self._with_patience(path, ask)

    def _unreachable(self, bucket: str, error: Exception) -> LakeError:
        where = self.store.endpoint or "the store"
        if type(error).__name__ == "NoCredentialsError":
            said = "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or store.access_key_id"
            return LakeError(f"s3://{bucket}: {said}")
        if "Connect" in type(error).__name__ or "Timeout" in type(error).__name__:
            return _AwayError(f"s3://{bucket}: {where} cannot be reached; check store.endpoint and the network")
        if isinstance(error, BotoCoreError) and not isinstance(error, HTTPError):
            name = type(error).__name__
            if any(word in name for word in ("Credential", "Profile", "Param", "Region", "Token", "Config")):
                return LakeError(f"s3://{bucket}: {_one_line(error)}")
        return NotReadError(f"s3://{bucket}: {_one_line(error)}")


def connect() -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in memory; it never asks for the zone of the machine, and fetches nothing by itself."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET enable_progress_bar = false")
    # what a footer says of smallest and largest values can be wrong, and is believed before a row is read
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    return connection


def _s3(store: StoreSettings) -> "S3Store":
    # dagster-aws brings the clients of ten other services, a second of every start: where there is a bucket only
    from usage_pipeline.ingestion.s3_store import S3Store

    return S3Store.of(store)


def _is_s3(path: str) -> bool:
    if "://" in path and not path.startswith("s3://"):
        raise LakeError(f"{path}: only folders and s3:// can be read")
    return path.startswith("s3://")


def _bucket_and_key(path: str) -> tuple[str, str]:
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return bucket, key


def _etag(answer: dict[str, Any]) -> str:
    text = str(answer.get("ETag", "")).strip('"')
    try:
        # a header comes as Latin-1, a listing as UTF-8
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _code_of(error: ClientError) -> tuple[str, int]:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(error.response.get("Error", {}).get("Code", "")) or str(status), int(status or 0)


def _may_go_away(code: str, status: int) -> bool:
    return status == 429 or status >= 500 or code in ("SlowDown", "RequestTimeout", "Throttling", "InternalError")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _no_folder(name: str, wanted: str) -> str:
    if name == "_delta_log" or name == ".hoodie":
        return (
            "says that a table of Delta Lake or Hudi lies here, whose folders keep files that were removed from it: "
            "they would be counted; export what is current as plain Parquet"
        )
    if name.startswith(("_", ".")):
        return f"begins with {name[0]}: what is unfinished or a marker is called so, and never counted"
    return f"is not spelled {wanted}; rename the folder"


def _some(named: list[Named]) -> str:
    shown = "; ".join(f"{PurePosixPath(item.key).name}, which {item.reason}" for item in named[:3])
    return shown + (f"; and {len(named) - 3} more" if len(named) > 3 else "")


def _folder_files(path: str) -> Iterator[LakeFile | Named]:
    """A file, everything below a folder, or what a glob finds; empty where there is nothing."""
    local = Path(path)
    if local.is_dir():
        yield from _below(local)
    elif os.path.lexists(local):
        yield _local(path)
    elif any(letter in path for letter in "*?["):
        for item in sorted(Path(local.anchor).glob(str(local.relative_to(local.anchor)))):
            yield from _below(item) if item.is_dir() else [_local(str(item))]


def _below(folder: Path) -> Iterator[LakeFile | Named]:
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_refused):
        # a link to a folder above it would be walked for ever
        real = os.path.realpath(place)
        folders[:] = sorted(f for f in folders if not _holds(os.path.realpath(Path(place, f)), real))
        yield from (_local(f"{place}{os.sep}{name}") for name in sorted(names))


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _refused(error: OSError) -> None:
    raise LakeError(f"{error.filename}: {error.strerror}; give this user the right to list it") from error


def _local(path: str) -> LakeFile | Named:
    try:
        found = os.stat(path)  # noqa: PTH116 - a lake can hold many thousand small files
    except OSError:
        return Named(path, "is a link that leads nowhere, or went away")
    if not stat.S_ISREG(found.st_mode):
        return Named(path, "is no regular file")
    modified = datetime.fromtimestamp(found.st_mtime, UTC).isoformat(timespec="seconds")
    # a folder has no ETag: size and time of change in nanoseconds stand for it
    return LakeFile(path, found.st_size, modified, f"{found.st_size:x}-{found.st_mtime_ns:x}")
