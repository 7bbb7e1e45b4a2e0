"""Runs in the code server, watched: one that died with its server is noticed, reported, and tried again.

Dagster's own launcher cannot say whether a run is still alive: when the code server is killed, its runs would stay
"started" for ever, and keep the pool's place. A code server knows the runs that it holds; one that does not know a
run that was started through it has been started anew since. A run of the command line (`usage refresh`) is in no code
server. It says which process it is: where the daemon sees the same processes, it looks. In a container that the daemon
cannot look into, the run says itself, every minute, that it is alive. Of one that says nothing (`dagster job execute`)
its events are the word. Silence is measured by the daemon's own clock, from when it first heard the last word: a
machine that slept, or a database that was away, ends no run.

Nobody can reach into a run of the command line to end it: it looks itself whether somebody asked for its end.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.launcher import DefaultRunLauncher, WorkerStatus
from dagster._core.launcher.base import CheckRunHealthResult
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import ConfigurableClassData, deserialize_value

from usage_pipeline.core.processes import describe_this_process, has_ended

HEARTBEAT_TAG = "usage/alive_at"
PROCESS_TAG = "usage/process"
_SECONDS = 10
_SAY_SECONDS = 60
# how long somebody waits after Terminate
_LISTEN_SECONDS = 3
_SILENT_SECONDS = 600
_ENDED = "its process was ended from outside"
# an asset that takes long has no event meanwhile
_SILENT_SECONDS_WITHOUT_WORD = 7200


def has_heartbeat() -> dict[str, str]:
    """The tag by which a run outside of any code server says that it is alive; seconds since 1970."""
    return {HEARTBEAT_TAG: f"{time.time():.0f}"}


def this_process() -> dict[str, str]:
    """The tag that says which process holds a run outside of any code server."""
    return {PROCESS_TAG: describe_this_process()}


@contextmanager
def heartbeat(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    """While the body executes the run in this process; a storage that is away for a while ends nothing.

    Interrupts this process, as Ctrl-C does, once somebody asks for the end of the run.
    """
    is_over = threading.Event()

    def say() -> None:
        said, is_interrupted = time.monotonic(), False
        while not is_over.wait(min(_LISTEN_SECONDS, _SAY_SECONDS)):
            with suppress(Exception):  # whatever it is, the run itself meets it too, and reports it
                if time.monotonic() - said >= _SAY_SECONDS:
                    said = time.monotonic()
                    instance.add_run_tags(run_id, has_heartbeat())
                if not is_interrupted and _is_asked_to_end(instance, run_id):
                    is_interrupted = True
                    os.kill(os.getpid(), signal.SIGINT)

    speaker = threading.Thread(target=say, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        is_over.set()
        speaker.join()


def _is_asked_to_end(instance: DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status in (DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED)


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's launcher, for runs inside a code server that was started by itself, and for those of the command line.

    `run_monitoring` of the instance asks `check_run_worker_health` for every run that is under way. The code server
    must be `dagster api grpc`: `dagster code-server` forgets its runs when definitions are loaded anew.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._heard: dict[str, tuple[str, float]] = {}

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        if GRPC_INFO_TAG not in run.tags:
            return self._health_by_its_word(run)
        server = json.loads(run.tags[GRPC_INFO_TAG])
        client = DagsterGrpcClient(port=server.get("port"), socket=server.get("socket"), host=server.get("host"))
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=_SECONDS)
        except Exception as error:  # whatever the way to it is in trouble with, the run may be alive behind it
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"the code server does not answer: {error}")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server was started anew and knows no such run")

    def _health_by_its_word(self, run: DagsterRun) -> CheckRunHealthResult:
        """Of a run that no code server holds: whether its process runs, or else whether it was heard of lately."""
        if (ended := _process_has_ended(run)) is not None:
            if ended:
                return CheckRunHealthResult(WorkerStatus.NOT_FOUND, _ENDED)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        word, allowed = run.tags.get(HEARTBEAT_TAG), _SILENT_SECONDS
        if word is None:
            newest = self._instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
            word, allowed = str(newest[0].storage_id if newest else None), _SILENT_SECONDS_WITHOUT_WORD
        known, since = self._heard.get(run.run_id, ("", 0.0))
        if word != known:
            self._heard[run.run_id] = (word, time.monotonic())
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if (silent := time.monotonic() - since) <= allowed:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        said = f"nothing was heard of its process for {silent:.0f} s: it was ended from outside"
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, said)

    def terminate(self, run_id: str) -> bool:
        """Asks for the end of a run, or writes the end of a dead one down; returns whether it ends."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or GRPC_INFO_TAG in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        if _process_has_ended(run):
            self._instance.report_run_canceled(run, _ENDED)
        # others than those of ours listen to nobody
        return HEARTBEAT_TAG in run.tags


def _process_has_ended(run: DagsterRun) -> bool | None:
    """None where the run says of no process, or of one that cannot be seen from here."""
    with suppress(ValueError, KeyError, TypeError):
        return has_ended(run.tags[PROCESS_TAG])
    return None
