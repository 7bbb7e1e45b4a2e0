"""Servers of tests: how they end."""

import subprocess

_GRACE_SECONDS = 20


def end_process(process: subprocess.Popen[bytes], seconds: float = _GRACE_SECONDS) -> None:
    """Asks a process to end, and ends it where it does not in time.

    Where tests run in the background interrupts are ignored, and Dagster has SIGTERM do as SIGINT does.
    """
    process.terminate()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
