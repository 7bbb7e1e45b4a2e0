"""One at a time, between processes: who comes second waits, and is told for whom."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock


class LockTimeoutError(Exception):
    """Another run holds what is wanted; the message says which."""


@contextmanager
def file_lock(
    lock: Path, seconds: float, *, what: str, who: str = "", progress: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Holds `lock` for the body. `who` is told to those that wait; it stands beside the lock, for people only.

    A process that dies lets go by itself. Raises LockTimeoutError after `seconds`.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = lock.with_suffix(".holder")

    def held_by() -> str:
        try:
            return holder.read_text(encoding="utf-8")
        except OSError:
            return "another process"

    mutex = filelock.FileLock(lock, thread_local=False)  # a holder may let go from another thread
    try:
        mutex.acquire(timeout=0)
    except filelock.Timeout:
        progress(f"{what} is held by {held_by()}: waiting for it to end")
        try:
            mutex.acquire(timeout=seconds)
        except filelock.Timeout as error:
            raise LockTimeoutError(
                f"{what} is held by {held_by()}, for more than {seconds:.0f} s: "
                "wait for that run to end, or cancel it in the Dagster UI"
            ) from error
    try:
        process = f"process {os.getpid()}"
        holder.write_text(f"{who} ({process})" if who else process, encoding="utf-8")
        yield
    finally:
        mutex.release()
