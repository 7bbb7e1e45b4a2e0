"""What gunicorn starts beside its workers: `gunicorn --config superset/gunicorn_config.py ... superset.app:...`."""

import os
import subprocess
import sys
from typing import Any

_WARM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "warm.py")
_started: list[subprocess.Popen[bytes]] = []


def when_ready(_server: Any) -> None:
    """Starts the watch that warms each new build; it ends by itself when the server is gone."""
    _started.append(subprocess.Popen([sys.executable, "-u", _WARM, "--watch"]))  # noqa: S603 - a file of ours


def on_exit(_server: Any) -> None:
    for process in _started:
        process.terminate()
