"""Runs in the code server, watched: one that died with its server is noticed, reported, and tried again.

Dagster's own launcher cannot say whether a run is still alive: when the code server is killed, its runs would stay
"started" for ever, and keep the pool's place. A code server knows the runs that it holds; one that does not know a
run that was started through it has been started anew since. A run of the command line (`usage refresh`) is in no code
server, and in a container that the daemon cannot look into: it says itself, every minute, that it is alive. Of one that
says nothing (`dagster job execute`) its events are the word. Silence is measured by the daemon's own clock, from when
it first heard the last word: a machine that slept, or a database that was away, ends no run.
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
from dagster._serdes import ConfigurableClassData, deserialize_value

ALIVE_AT_TAG = "usage/alive_at"
_SECONDS = 10
_SAY_SECONDS = 60
_SILENT_SECONDS = 600
# an asset that takes long has no event meanwhile
_SILENT_SECONDS_WITHOUT_WORD = 7200


def alive_now() -> dict[str, str]:
    """The tag by which a run outside of any code server says that it is alive; seconds since 1970."""
    return {ALIVE_AT_TAG: f"{time.time():.0f}"}


@contextmanager
def says_that_it_is_alive(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    """While the body executes the run in this process; a storage that is away for a while ends nothing."""
    has_ended = threading.Event()

    def say() -> None:
        while not has_ended.wait(_SAY_SECONDS):
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
        """Of a run that no code server holds: whether anything was heard of it lately."""
        word, allowed = run.tags.get(ALIVE_AT_TAG), _SILENT_SECONDS
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
