"""A real Superset on a free port of 127.0.0.1, started and stopped by its own process id."""

import os
import shutil
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.operations.local import (
    SUPERSET,
    SUPERSET_PYTHON,
    demo_accounts,
    set_up_superset,
    superset_command,
    superset_environment,
)
from usage_pipeline_tests.support.kept import kept
from usage_pipeline_tests.support.lakes import write_config
from usage_pipeline_tests.support.processes import end_process


@dataclass
class SupersetServer:
    """A Superset that serves the demo's build."""

    url: str
    passwords: dict[str, str]
    folder: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_from_migrated(folder: Path) -> None:
    """Puts a Superset into `folder` whose metadata is migrated and has its permissions, which takes half a minute.

    It is made once for this code and these locks, which shows that one comes from nothing.
    """
    made_of = [SUPERSET / "requirements.lock", SUPERSET / "roles.yaml", *sorted(SUPERSET.rglob("*.py"))]
    with kept("test-superset", made_of, _migrated) as made:
        shutil.copytree(made / "superset", folder / "superset", dirs_exist_ok=True)
        shutil.copy(made / "secret_key", folder / "secret_key")


def _migrated(folder: Path) -> None:
    unpublished = load_settings(write_config(folder))
    set_up_superset(unpublished.home, folder, only_if_changed=False, say=print)
    (folder / "superset" / "set_up").unlink()


def copy_superset(source: Path, target: Path) -> None:
    """Copies a Superset that may be at work: its metadata as of one moment, no results."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("results", "superset.db*"), dirs_exist_ok=True)
    (target / "superset").mkdir(exist_ok=True)
    with (
        closing(sqlite3.connect(source / "superset" / "superset.db")) as metadata,
        closing(sqlite3.connect(target / "superset" / "superset.db")) as copy,
    ):
        metadata.backup(copy)


@contextmanager
def serve_superset(settings: Settings, folder: Path) -> Iterator[SupersetServer]:
    """A Superset that is set up in `folder`, serving what a configuration has published."""
    if not SUPERSET_PYTHON.exists():
        pytest.fail("Superset's environment is missing: run `make setup`")
    if not (folder / "superset" / "superset.db").exists():
        start_from_migrated(folder)
    accounts = demo_accounts(folder)
    set_up_superset(settings.home, folder, only_if_changed=True, say=print)
    # so that a query without end does not hold up the tests for as long as it would a person
    environment = superset_environment(settings.home, folder) | {"USAGE_QUERY_SECONDS": "10"}
    with serving(environment, folder) as url:
        yield SupersetServer(url, {a["username"]: a["password"] for a in accounts}, folder)


@contextmanager
def serving(environment: dict[str, str], folder: Path, *options: str) -> Iterator[str]:
    """A Superset that was set up, on a free port; gives its address. `options` go to serve.py and gunicorn."""
    port = free_port()
    with (folder / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(
            superset_command("serve", "--bind", f"127.0.0.1:{port}", *options),
            env=os.environ | {"USAGE_WARM": "0"} | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).close()  # noqa: S310
                break
            except OSError:
                assert process.poll() is None, (folder / "gunicorn.log").read_text()
                time.sleep(0.5)
        yield url
    finally:
        end_process(process)
