"""The lake: somebody else's files, read only, in a folder or an S3-compatible store.

Belongs here: listing what a path holds, and telling DuckDB how to read it. Nothing else in the product asks a store
anything. Does not: opening the files (`sources.py`), or which weeks are wanted (`weeks.py`).

Listing a week lists that week's prefix and no other. Errors of a store are one sentence that names the place and the
remedy; an error that will not go away (no such bucket, denied, expired) is not tried again, one that may is tried
three times with growing pauses, and an address that does not answer is given up within 15 seconds.
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pyarrow as pa
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from dagster_aws.s3 import S3Resource
from pyarrow import fs

from usage_pipeline.config import Settings, Source, StoreSettings
from usage_pipeline.lib.contract import CONTRACTS
from usage_pipeline.lib.sql import literal
from usage_pipeline.lib.weeks import WeekFolder, folders_of

_YEAR = re.compile(r"year=(\d{4})")
_WEEK = re.compile(r"week=(\d{1,2})")
_SUFFIXES = {"parquet": (".parquet", ".parq"), "csv": (".csv", ".csv.gz", ".tsv")}
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


@cache
def _httpfs() -> Path:
    """DuckDB's way to S3, where its package lies: nothing is installed into anybody's home, or fetched."""
    package = importlib.util.find_spec("duckdb_extension_httpfs")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"


class LakeError(Exception):
    """The lake cannot be listed or read; the message names the place and the remedy."""


@dataclass(frozen=True, order=True)
class LakeFile:
    """One file of the lake, with what tells a rewritten file from the one that was read."""

    key: str
    size: int
    modified: str
    etag: str


class Lake:
    """The folders and buckets that a configuration's paths name."""

    def __init__(self, settings: Settings) -> None:
        self.store = settings.store
        sources = [settings.sources.get(name) for name in CONTRACTS]
        paths = [shape.path for source in sources if source for shape in source.file_sets.values()]
        self.reads_s3 = any(_is_s3(path) for path in paths)

    def files(self, path: str, file_format: str) -> list[LakeFile]:
        """Every data file of a path: a file, a folder (all files of the format below it) or, of folders, a glob.

        Raises LakeError where the path does not exist or holds no file of the format.
        """
        if not _is_s3(path) and not Path(path).exists() and not any(letter in path for letter in "*?["):
            raise LakeError(f"{path}: no such file or folder")
        found = self._bucket_files(path) if _is_s3(path) else _folder_files(path)
        files = sorted(file for file in found if _is_data(file.key, file_format))
        if not files:
            raise LakeError(f"{path}: holds no {file_format} file")
        return files

    def week_files(self, path: str, file_format: str, folder: WeekFolder) -> list[LakeFile]:
        """The data files of one week folder, in both spellings (`week=1`, `week=01`); empty where there is none."""
        spellings = dict.fromkeys((f"week={folder.week}", f"week={folder.week:02d}"))
        places = [f"{path.rstrip('/')}/year={folder.year}/{spelling}" for spelling in spellings]
        found = [file for place in places for file in self._below(place)]
        return sorted(file for file in found if _is_data(file.key, file_format))

    def files_of_week(self, source: Source, week: date) -> list[LakeFile]:
        """The data files of every folder that days of the week (a Monday) can lie in, of a partitioned source."""
        assert source.path is not None
        folders = folders_of(week, source.partition_calendar)
        return [file for folder in folders for file in self.week_files(source.path, source.format, folder)]

    def week_folders(self, path: str) -> list[WeekFolder]:
        """Every `year=/week=` folder of a lake, by name only: no file is listed.

        Raises LakeError where the path is no folder or holds no such folder.
        """
        if not _is_s3(path) and not Path(path).is_dir():
            raise LakeError(f"{path}: no such folder")
        names = self._names_in_bucket if _is_s3(path) else _names_in_folder
        found = set()
        for year in names(path):
            if not (in_year := _YEAR.fullmatch(year)):
                continue
            for week in names(f"{path.rstrip('/')}/{year}"):
                if in_week := _WEEK.fullmatch(week):
                    found.add(WeekFolder(int(in_year[1]), int(in_week[1])))
        if not found:
            remedy = "where the files lie flat, say partitioned: false"
            raise LakeError(f"{path}: holds no year=YYYY/week=WW folder; {remedy}")
        return sorted(found)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection in memory that can read the lake; httpfs comes from its package, not from the network."""
        connection = duckdb.connect()
        if self.reads_s3:
            connection.execute(f"LOAD {literal(_httpfs())}")
            connection.execute(_Store.of(self.store).duckdb_secret())
            connection.execute("SET http_timeout = 10")
            # the footers that were read to match columns are not fetched again
            connection.execute("SET parquet_metadata_cache = true")
        return connection

    def open(self, file: LakeFile) -> pa.NativeFile:
        """One file of the lake as a stream of bytes that can be read anywhere. Raises OSError where that fails."""
        if not _is_s3(file.key):
            return pa.OSFile(file.key)
        return self._arrow_store.open_input_file(file.key.removeprefix("s3://"))

    # ---------------------------------------------------------------- S3

    @cached_property
    def _arrow_store(self) -> fs.S3FileSystem:
        return _Store.of(self.store).arrow_store()

    @cached_property
    def _client(self) -> Any:
        return _Store.of(self.store).get_client()

    def _below(self, place: str) -> Iterable[LakeFile]:
        return self._listed(place + "/") if _is_s3(place) else _folder_files(place)

    def _bucket_files(self, path: str) -> Iterable[LakeFile]:
        """A key, or everything below it: what is a folder and what a file is told by the suffix."""
        is_file = path.endswith(tuple(suffix for group in _SUFFIXES.values() for suffix in group))
        found = self._listed(path if is_file else path.rstrip("/") + "/")
        return (file for file in found if not is_file or file.key == path)

    def _listed(self, path: str) -> Iterator[LakeFile]:
        for page in self._pages(path):
            for item in page.get("Contents", []):
                modified = item["LastModified"].astimezone(UTC).isoformat(timespec="seconds")
                key = f"s3://{_bucket_and_key(path)[0]}/{item['Key']}"
                yield LakeFile(key, item["Size"], modified, item["ETag"].strip('"'))

    def _names_in_bucket(self, path: str) -> list[str]:
        """Names of the folders right below a path; no file is listed."""
        found = [
            p["Prefix"] for page in self._pages(path.rstrip("/") + "/", "/") for p in page.get("CommonPrefixes", [])
        ]
        return [prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in found]

    def _pages(self, path: str, delimiter: str = "") -> Iterator[dict[str, Any]]:
        bucket, prefix = _bucket_and_key(path)
        try:
            yield from self._client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix, Delimiter=delimiter
            )
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            remedy = _REMEDIES.get(code) or f"the store answers {code}"
            raise LakeError(f"s3://{bucket}: {remedy}") from error
        except BotoCoreError as error:
            where = (self.store.endpoint if self.store else None) or "the store"
            said = " ".join(str(error).split())
            if type(error).__name__ == "NoCredentialsError":
                said = (
                    "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or store.access_key_id"
                )
            elif "Connect" in type(error).__name__ or "Timeout" in type(error).__name__:
                said = f"{where} cannot be reached; check store.endpoint and the network"
            raise LakeError(f"s3://{bucket}: {said}") from error


class _Store(S3Resource):
    """dagster-aws's client, with times after which a lost store is given up; it has none of its own."""

    @classmethod
    def of(cls, store: StoreSettings) -> "_Store":
        return cls(
            endpoint_url=store.endpoint,
            region_name=store.region,
            profile_name=store.profile,
            aws_access_key_id=store.access_key_id,
            aws_secret_access_key=store.secret_access_key,
            aws_session_token=store.session_token,
        )

    def session(self) -> Any:
        return boto3.session.Session(
            profile_name=self.profile_name,
            region_name=self.region_name,
            aws_access_key_id=self.aws_access_key_id,
            aws_secret_access_key=self.aws_secret_access_key,
            aws_session_token=self.aws_session_token,
        )

    def get_client(self) -> Any:
        config = Config(
            connect_timeout=3,
            read_timeout=10,
            # standard mode tries again what may go away (throttling, 5xx, lost connections), and nothing else
            retries={"mode": "standard", "total_max_attempts": 3},
            s3={"addressing_style": "path"} if self.endpoint_url else {},
        )
        return self.session().client("s3", endpoint_url=self.endpoint_url, config=config)

    def arrow_store(self) -> fs.S3FileSystem:
        """The same store for pyarrow, with the same credentials and the same address."""
        session = self.session()
        credentials = session.get_credentials()
        frozen = credentials.get_frozen_credentials() if credentials is not None else None
        scheme, _, host = (self.endpoint_url or "").rpartition("://")
        return fs.S3FileSystem(
            access_key=frozen.access_key if frozen else None,
            secret_key=frozen.secret_key if frozen else None,
            session_token=frozen.token if frozen else None,
            anonymous=frozen is None,
            region=session.region_name or "us-east-1",
            endpoint_override=host.rstrip("/") or None,
            scheme=scheme or "https",
            connect_timeout=3,
            request_timeout=10,
        )

    def duckdb_secret(self) -> str:
        """The statement that gives DuckDB the same credentials and the same address."""
        session = self.session()
        credentials = session.get_credentials()
        options = {"TYPE": "s3", "REGION": session.region_name or "us-east-1"}
        if credentials is not None:
            frozen = credentials.get_frozen_credentials()
            options |= {"KEY_ID": frozen.access_key, "SECRET": frozen.secret_key}
            if frozen.token:
                options["SESSION_TOKEN"] = frozen.token
        if self.endpoint_url:
            scheme, _, host = self.endpoint_url.rpartition("://")
            options |= {"ENDPOINT": host.rstrip("/"), "URL_STYLE": "path"}
            options["USE_SSL"] = "false" if scheme == "http" else "true"
        listed = ", ".join(f"{key} {literal(value)}" for key, value in options.items())
        return f"CREATE OR REPLACE SECRET lake ({listed})"


def _is_s3(path: str) -> bool:
    if "://" in path and not path.startswith("s3://"):
        raise LakeError(f"{path}: only folders and s3:// can be read")
    return path.startswith("s3://")


def _bucket_and_key(path: str) -> tuple[str, str]:
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return bucket, key


def _is_data(key: str, file_format: str) -> bool:
    name = key.rsplit("/", 1)[-1]
    return not name.startswith((".", "_")) and name.endswith(_SUFFIXES[file_format])


def _file(path: Path) -> LakeFile:
    stat = path.stat()
    modified = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="seconds")
    # a folder has no ETag: size and time of change in nanoseconds stand for it
    return LakeFile(str(path), stat.st_size, modified, f"{stat.st_size:x}-{stat.st_mtime_ns:x}")


def _folder_files(path: str) -> list[LakeFile]:
    """A file, everything below a folder, or what a glob finds; empty where there is nothing."""
    local = Path(path)
    if local.is_file():
        return [_file(local)]
    found: Iterable[Path] = []
    if local.is_dir():
        found = local.rglob("*")
    elif any(letter in path for letter in "*?["):
        found = Path(local.anchor).glob(str(local.relative_to(local.anchor)))
    return [_file(item) for item in found if item.is_file()]


def _names_in_folder(path: str) -> list[str]:
    return [item.name for item in Path(path).iterdir()] if Path(path).is_dir() else []
