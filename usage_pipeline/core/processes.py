"""Processes of this machine, told apart for good: whether the very one that said who it is still runs.

A process id alone says little: ids are used again, and mean another process on another machine or in another
container. So a process says where it runs, its id, and when it started; that moment is counted from the machine's own
start, because a clock that is set moves all others.
"""

import json
import os
import socket
from pathlib import Path

import psutil


def describe_this_process() -> str:
    """Who this process is, as a line of JSON that `has_ended` understands."""
    return json.dumps({"host": _host(), "pid": os.getpid(), "started": _start_of(os.getpid())})


def has_ended(description: str) -> bool | None:
    """Whether the process that described itself so has ended; None where that cannot be seen from here.

    Raises ValueError or KeyError where the text is no such description.
    """
    known = json.loads(description)
    if known["host"] != _host():
        return None
    try:
        return bool(_start_of(int(known["pid"])) != known["started"])
    except psutil.NoSuchProcess:
        return True
    except (OSError, psutil.Error):
        return None


def _host() -> str:
    """Name of the machine, and of the processes that are seen from here: a container sees its own only."""
    namespace = Path("/proc/self/ns/pid")
    return " ".join([socket.gethostname(), *([str(namespace.readlink())] if namespace.exists() else [])])


def _start_of(pid: int) -> str:
    """Raises psutil.NoSuchProcess where none runs under this id; one that only waits to be buried has ended."""
    process = psutil.Process(pid)
    if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        raise psutil.NoSuchProcess(pid)
    file = Path(f"/proc/{pid}/stat")
    if not file.exists():
        return f"{process.create_time():.0f}"
    # the name, in brackets, may hold anything; the moment of the start is the 20th field after it
    return file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
