"""The demo's S3 server: what lies in it outlives a restart, and who has no key gets nothing.

A process of its own, as in its container; moto, which it is made of, keeps everything in memory and takes any key.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

from usage_pipeline_tests.support.servers import free_port

REPO = Path(__file__).parents[2]
KEY, BUCKET = "the-demo-s-key", "usage-lake"


class DemoStore:
    """The server on a folder; ended by its own process id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.start()

    def start(self) -> None:
        code = (
            f"import server; server.PORT = {self.port}; server.HOST = '127.0.0.1'; server.main(dict(server.os.environ))"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=REPO / "deploy" / "s3",
            env=os.environ | {"STORE_KEY": KEY, "STORE_FOLDER": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                requests.get(f"http://127.0.0.1:{self.port}/", timeout=5)
                return
            except requests.ConnectionError:
                assert self.process.poll() is None, self.process.communicate()[0].decode()
                time.sleep(0.1)
        raise AssertionError("the store does not answer")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=20)

    def client(self, key: str = KEY) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key="secret",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def seen(self) -> dict[str, tuple[str, int, str]]:
        """Key, ETag, size and last change of each object: what the pipeline knows a file by."""
        listed = self.client().list_objects_v2(Bucket=BUCKET)
        return {
            found["Key"]: (found["ETag"], found["Size"], found["LastModified"].isoformat())
            for found in listed.get("Contents", [])
        }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DemoStore]:
    made = DemoStore(tmp_path / "store")
    made.client().create_bucket(Bucket=BUCKET)
    yield made
    made.kill()


def test_a_killed_store_starts_again_with_the_same_objects(store: DemoStore) -> None:
    """With moto alone a restart of the container emptied the lake of the demo, whose weeks then vanished from pages."""
    client = store.client()
    for week in ("08", "09"):
        client.put_object(Bucket=BUCKET, Key=f"year=2025/week={week}/part 0.parquet", Body=b"clicks" * 1000)
    client.put_object(Bucket=BUCKET, Key="year=2025/week=09/part 0.parquet", Body=b"changed")
    client.put_object(Bucket=BUCKET, Key="gone.csv", Body=b"x")
    client.delete_object(Bucket=BUCKET, Key="gone.csv")
    before = store.seen()
    assert [size for _, size, _ in before.values()] == [6000, 7]
    store.kill()
    time.sleep(1.1)
    store.start()
    assert store.seen() == before
    body = store.client().get_object(Bucket=BUCKET, Key="year=2025/week=09/part 0.parquet")["Body"].read()
    assert body == b"changed"


def test_who_shows_another_key_or_none_gets_nothing(store: DemoStore) -> None:
    """moto answered anybody; the image before asked for user and password."""
    store.client().put_object(Bucket=BUCKET, Key="a.csv", Body=b"x")
    for attempt in (
        lambda: store.client("another").list_buckets(),
        lambda: store.client("another").put_object(Bucket=BUCKET, Key="b.csv", Body=b"x"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            attempt()
    for path in ("/", f"/{BUCKET}/a.csv", "/moto-api/data.json"):
        assert requests.get(f"http://127.0.0.1:{store.port}{path}", timeout=10).status_code == 403
    assert set(store.seen()) == {"a.csv"}


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/x", "a//b", "half.unfinished"])
def test_no_name_of_an_object_leads_out_of_the_folder(store: DemoStore, key: str) -> None:
    signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/20250101/us-east-1/s3/aws4_request, Signature=0"}
    address = f"http://127.0.0.1:{store.port}/{BUCKET}/" + key.replace("..", "%2e%2e").replace("/", "%2F")
    answer = requests.put(address, data=b"x", headers=signed, timeout=10)
    assert answer.status_code == 501
    written = [path.name for path in store.folder.parent.rglob("*") if path.is_file()]
    assert written == []


def test_an_upload_in_parts_is_refused_in_words(store: DemoStore) -> None:
    with pytest.raises(ClientError, match="the demo's store cannot do that"):
        store.client().create_multipart_upload(Bucket=BUCKET, Key="big.parquet")


def test_without_a_key_it_does_not_start(tmp_path: Path) -> None:
    """moto and the image before started with well-known defaults."""
    refused = subprocess.run(
        [sys.executable, "-W", "ignore", "server.py"],
        cwd=REPO / "deploy" / "s3",
        env={name: value for name, value in os.environ.items() if name != "STORE_KEY"}
        | {"STORE_FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "s3: STORE_KEY is not set" in refused.stderr
