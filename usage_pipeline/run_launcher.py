"""Runs in the code server, watched: one that died with its server is noticed, reported, and tried again.

Dagster's own launcher cannot say whether a run is still alive: when the code server is killed, its runs would stay
"started" for ever, and keep the pool's place. A code server knows the runs that it holds; one that does not know a
run that was started through it has been started anew since.
"""

import json

from dagster import DagsterRun
from dagster._core.launcher import DefaultRunLauncher, WorkerStatus
from dagster._core.launcher.base import CheckRunHealthResult
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

_SECONDS = 10


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
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "no code server is known to have started this run")
        server = json.loads(run.tags[GRPC_INFO_TAG])
        client = DagsterGrpcClient(port=server.get("port"), socket=server.get("socket"), host=server.get("host"))
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=_SECONDS)
        except Exception as error:  # whatever the way to it is in trouble with, the run may be alive behind it
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"the code server does not answer: {error}")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server was started anew and knows no such run")
