"""The demo of a deployment: a lake in the object store, a configuration that reads it, and a first build.

Runs once, in a container of the profile `demo`; what is there already stays. Started by `start.py`, with the store's
address and keys in DEMO_STORE, DEMO_STORE_KEY and DEMO_STORE_SECRET.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import yaml
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from usage_pipeline.demo.lake import write_demo_lake

FOLDER, BUCKET = Path("/data/demo"), "usage-lake"
# the demo's store takes no uploads in parts
_WHOLE = TransferConfig(multipart_threshold=5 * 1024**3)
_PATIENCE_SECONDS = 60


def say(message: str) -> None:
    print(f"demo: {message}", flush=True)


def main() -> int:
    missing = [name for name in ("DEMO_STORE_KEY", "DEMO_STORE_SECRET") if not os.environ.get(name)]
    if missing:
        say(f"{', '.join(missing)}: not set; give the demo's store a user and a password in .env")
        return 1
    if not (FOLDER / "sources.yaml").exists():
        accounts = int(os.environ.get("DEMO_ACCOUNTS") or 400)
        say(f"writing a lake of {accounts} accounts")
        write_demo_lake(FOLDER, date.today(), accounts=accounts, progress=lambda line: say(f"  {line}"))
        upload(FOLDER / "lake")
        point_to_store(FOLDER / "sources.yaml")
    say("materialising every asset through Dagster")
    words = [sys.executable, "-m", "usage_pipeline.cli", "refresh", "--if-changed", "-c", str(FOLDER / "sources.yaml")]
    return subprocess.run(words, check=False).returncode


def upload(lake: Path) -> None:
    """Puts the lake into the bucket, which is made if need be. Raises what the store says once patience is over."""
    client: Any = boto3.client(
        "s3",
        endpoint_url=os.environ["DEMO_STORE"],
        region_name="us-east-1",
        aws_access_key_id=os.environ["DEMO_STORE_KEY"],
        aws_secret_access_key=os.environ["DEMO_STORE_SECRET"],
        config=Config(s3={"addressing_style": "path"}, connect_timeout=5, retries={"max_attempts": 2}),
    )
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=BUCKET)
            break
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                raise
            say(f"waiting for the store: {error}")
            time.sleep(3)
    files = [file for file in lake.rglob("*") if file.is_file()]
    say(f"putting {len(files)} files into s3://{BUCKET}")

    def put(file: Path) -> None:
        client.upload_file(str(file), BUCKET, str(file.relative_to(lake)), Config=_WHOLE)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, files))


def point_to_store(config: Path) -> None:
    """Rewrites the demo's configuration for a deployment: the lake in the store, the home in the volume."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["home"] = "/data"
    settings["store"] = {
        "endpoint": "${DEMO_STORE}",
        "region": "us-east-1",
        "access_key_id": "${DEMO_STORE_KEY}",
        "secret_access_key": "${DEMO_STORE_SECRET}",
    }
    for source in settings["sources"].values():
        source["path"] = source["path"].replace("lake/", f"s3://{BUCKET}/", 1)
    tmp_path = config.with_suffix(".unfinished")
    tmp_path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    tmp_path.replace(config)


if __name__ == "__main__":
    sys.exit(main())
