"""Runs in the code server, watched: one that died with its server is noticed, reported, and tried again.

Dagster's own launcher cannot say whether a run is still alive: when the code server is killed, its runs would stay
"started" for ever, and keep the pool's place. A code server knows the runs that it holds; one that does not know a
run that was started through it has been started anew since. A run of the command line (`usage refresh`) is in no code
server, and in a container that the daemon cannot look into: it says itself, every minute, that it is alive.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dagster import DagsterInstance, DagsterRun
from dagster._core.launcher import DefaultRunLauncher, WorkerStatus
from dagster._core.launcher.base import CheckRunHealthResult
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

ALIVE_AT_TAG = "usage/alive_at"
_SECONDS = 10
_SAY_SECONDS = 60
# the machine may sleep, or the database be away for a while
_SILENT_SECONDS = 600


def alive_now() -> dict[str, str]:
    """The tag by which a run outside of any code server says that it is alive; seconds since 1970."""
    return {ALIVE_AT_TAG: f"{time.time():.0f}"}


@contextmanager
def says_that_it_is_alive(instance: DagsterInstance, run_id: str, every: float = _SAY_SECONDS) -> Iterator[None]:
    """While the body executes the run in this process; a storage that is away for a while ends nothing."""
    has_ended = threading.Event()

    def say() -> None:
        while not has_ended.wait(every):
            with suppress(Exception):  # whatever it is, the run itself meets it too, and reports it
                instance.add_run_tags(run_id, alive_now())

    speaker = threading.Thread(target=say, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        has_ended.set()
        speaker.join()


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's launcher, for runs inside a code server that is reached over the network.

    `run_monitoring` of the instance asks `check_run_worker_health` for every run that is under way. The code server
    must be `dagster api grpc`: `dagster code-server` forgets its runs when definitions are loaded anew.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        if GRPC_INFO_TAG not in run.tags:
            return _health_by_its_word(run)
        server = json.loads(run.tags[GRPC_INFO_TAG])
        client = DagsterGrpcClient(port=server.get("port"), socket=server.get("socket"), host=server.get("host"))
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=_SECONDS)
        except Exception as error:  # whatever the way to it is in trouble with, the run may be alive behind it
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"the code server does not answer: {error}")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server was started anew and knows no such run")


def _health_by_its_word(run: DagsterRun) -> CheckRunHealthResult:
    """Of a run that no code server holds; of one that never said a word nothing is known, and it is left alone."""
    silent = time.time() - float(run.tags.get(ALIVE_AT_TAG) or time.time())
    if silent <= _SILENT_SECONDS:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    said = f"its process has not said for {silent:.0f} s that it is alive: it was ended from outside"
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, said)
