"""The demo's S3 server: moto's, for those who know the key, with its objects in a folder, so that a restart loses none.

Reads STORE_KEY and STORE_FOLDER. Buckets are folders of STORE_FOLDER, an object the file below that its key names. What
has been written is answered for only once its file is there. A caller shows the key in each request's signature (which
moto does not verify): a demo's lake on the deployment's inner network needs no more, and nothing but the demo uses it.
Uploads in parts are refused: their ETag would be another after a restart.
"""

import datetime
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from moto.s3.models import S3Backend, s3_backends
from moto.server import create_backend_app
from werkzeug.serving import make_server

HOST, PORT = "0.0.0.0", 9000  # noqa: S104 - inside its container
_ACCOUNT, _REGION = "123456789012", "us-east-1"
_UNFINISHED = ".unfinished"
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class StoreError(Exception):
    """The server cannot start; the message names what is missing."""


class Store:
    """A WSGI application: moto's S3 behind the key, and the folder that it is filled from at the start."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key
        self._app = create_backend_app("s3")
        self._backend: S3Backend = s3_backends[_ACCOUNT]["aws"]
        # the file of an object is the object's last state, whoever writes it at once
        self._writing = threading.Lock()
        for bucket in sorted(path for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)):
            self._load(bucket)

    def _load(self, bucket: Path) -> None:
        self._backend.create_bucket(bucket.name, _REGION)
        for file in sorted(path for path in bucket.rglob("*") if path.is_file() and path.suffix != _UNFINISHED):
            made = self._backend.put_object(bucket.name, file.relative_to(bucket).as_posix(), file.read_bytes())
            made.last_modified = datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC).replace(
                tzinfo=None
            )

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not self._knows_the_key(environ):
            return _refused(start_response, "403 Forbidden", "AccessDenied", "the key is another")
        path, query = unquote(environ.get("PATH_INFO", "")), environ.get("QUERY_STRING", "")
        bucket, _, key = path.lstrip("/").partition("/")
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            answer: Iterable[bytes] = self._app(environ, start_response)
            return answer
        if not _may_be_kept(bucket, key) or query or environ["REQUEST_METHOD"] not in ("PUT", "DELETE"):
            return _refused(start_response, "501 Not Implemented", "NotImplemented", "the demo's store cannot do that")
        with self._writing:
            body = b"".join(self._app(environ, start_response))
            self._keep(bucket, key)
        return [body]

    def _knows_the_key(self, environ: dict[str, Any]) -> bool:
        signed = re.search(r"Credential=([^/,]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        return signed is not None and signed[1] == self._key

    def _keep(self, bucket: str, key: str) -> None:
        """Makes the folder what moto says of one bucket or object, now."""
        place = self._folder / bucket
        if bucket not in self._backend.buckets:
            if place.exists():
                _remove_empty(place)
            return
        place.mkdir(exist_ok=True)
        if not key:
            return
        file = place / key
        found = self._backend.head_object(bucket, key)
        if found is None:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        tmp_path = file.with_name(file.name + _UNFINISHED)
        tmp_path.write_bytes(found.value)
        modified = found.last_modified.replace(tzinfo=datetime.UTC).timestamp()
        os.utime(tmp_path, (modified, modified))
        tmp_path.replace(file)


def _may_be_kept(bucket: str, key: str) -> bool:
    parts = key.split("/") if key else []
    forbidden = any(part in ("", ".", "..") or "\0" in part or part.endswith(_UNFINISHED) for part in parts)
    return bool(_NAME.fullmatch(bucket)) and not forbidden


def _remove_empty(place: Path) -> None:
    for folder in sorted((path for path in place.rglob("*") if path.is_dir()), reverse=True):
        folder.rmdir()
    place.rmdir()


def _refused(start_response: Any, status: str, code: str, message: str) -> Iterator[bytes]:
    start_response(status, [("Content-Type", "application/xml")])
    return iter([f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()])


def main(environment: dict[str, str]) -> None:
    """Serves until it is ended. Raises StoreError where the key is missing."""
    key = environment.get("STORE_KEY", "")
    if not key:
        raise StoreError("STORE_KEY is not set: give DEMO_STORE_KEY a value in .env")
    # what it writes is its own, as everywhere (docs/decisions/0029)
    os.umask(0o077)
    store = Store(Path(environment["STORE_FOLDER"]), key)
    print(f"s3: listening at port {PORT}", flush=True)
    make_server(HOST, PORT, store, threaded=True).serve_forever()


if __name__ == "__main__":
    try:
        main(dict(os.environ))
    except StoreError as error:
        sys.exit(f"s3: {error}")
