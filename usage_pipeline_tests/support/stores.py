"""An S3 store on a free port, and what it was asked."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

BUCKET = "lake"


class Store:
    """An S3-compatible store in a process of its own, that records what it is asked and refuses on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        command = [sys.executable, "-W", "ignore", "-m", "usage_pipeline_tests.support.s3_server", str(folder)]
        with (folder / "output").open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        while not (folder / "port").exists() or not (folder / "port").read_text():
            assert self.process.poll() is None, (folder / "output").read_text()
            time.sleep(0.1)
        self.url = f"http://127.0.0.1:{(folder / 'port').read_text()}"

    def stop(self) -> None:
        # where tests run in the background, interrupts are ignored, and Dagster has SIGTERM do as SIGINT does
        self.process.kill()
        self.process.wait(timeout=20)

    def log(self) -> list[tuple[str, str, int]]:
        """Method, path and query, bytes sent, of every request since `forget`."""
        return [tuple(json.loads(line)) for line in (self.folder / "log.jsonl").read_text().splitlines()]  # type: ignore[misc]

    def forget(self) -> None:
        with (self.folder / "log.jsonl").open("r+") as log:
            log.truncate(0)

    def refuse(self, status: int, code: str, **more: Any) -> None:
        (self.folder / "answer.json").write_text(json.dumps({"status": status, "code": code} | more))

    @property
    def client(self) -> Any:
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.url, **keys)

    def upload(self, folder: Path, prefix: str) -> None:
        client = self.client
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                client.upload_file(str(file), BUCKET, f"{prefix}/{file.relative_to(folder)}")


def started_store(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with one bucket, and an environment that has its keys."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        patch.delenv(name, raising=False)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_ACCESS_KEY_ID", "key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    made = Store(folder / "store")
    made.client.create_bucket(Bucket=BUCKET)
    yield made
    made.stop()
