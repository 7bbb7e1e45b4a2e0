"""The S3 store of a lake: dagster-aws's resource, with times after which a lost store is given up.

Belongs here: clients of the store. Does not: what is read through them, and how often it is tried (`lake.py`).
"""

from typing import Any

import boto3
from botocore.config import Config
from dagster_aws.s3 import S3Resource
from pyarrow import fs

from usage_pipeline.config.settings import StoreSettings


class S3Store(S3Resource):
    """dagster-aws's client, with times after which a lost store is given up; it has none of its own."""

    timeout_seconds: float = 10

    @classmethod
    def of(cls, store: StoreSettings) -> "S3Store":
        return cls(
            endpoint_url=store.endpoint,
            region_name=store.region,
            profile_name=store.profile,
            aws_access_key_id=store.access_key_id,
            aws_secret_access_key=store.secret_access_key,
            aws_session_token=store.session_token,
            timeout_seconds=store.timeout_seconds,
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
            connect_timeout=min(3, self.timeout_seconds),
            read_timeout=self.timeout_seconds,
            # `Lake` tries again, since it knows what has arrived
            retries={"mode": "standard", "total_max_attempts": 1},
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
            connect_timeout=min(3, self.timeout_seconds),
            request_timeout=self.timeout_seconds,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        )
