"""What gunicorn does beside its workers' work; `serve.py` starts it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_FOLDER = Path(os.environ["USAGE_SERVE_FOLDER"])
_started: list[subprocess.Popen[bytes]] = []

umask = 0o077
# serve.py passes on what anybody writes: no word about TLS is taken but through USAGE_PROXY_COUNT
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""


def when_ready(_server: Any) -> None:
    """Starts the watch that warms each new build; it ends by itself when the server is gone."""
    if os.environ.get("USAGE_WARM", "1") != "0":  # tests that count queries switch it off
        watch = [sys.executable, "-u", "-P", "-m", "usage_superset.cache_warmup", "--watch"]
        _started.append(subprocess.Popen(watch))  # noqa: S603 - a module of ours


def post_worker_init(_worker: Any) -> None:
    (_FOLDER / "ready").touch()


def pre_request(worker: Any, request: Any) -> None:
    """Writes down which request this worker has, so that it can be ended if it does not come back."""
    number = next((value for name, value in request.headers if name == "X-USAGE-REQUEST"), "")
    (_FOLDER / "busy" / str(worker.pid)).write_text(number)


def post_request(worker: Any, _request: Any, _environ: Any, _response: Any) -> None:
    (_FOLDER / "busy" / str(worker.pid)).unlink(missing_ok=True)


def child_exit(_server: Any, worker: Any) -> None:
    (_FOLDER / "busy" / str(worker.pid)).unlink(missing_ok=True)


def on_exit(_server: Any) -> None:
    for process in _started:
        process.terminate()
