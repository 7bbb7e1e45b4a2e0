"""Dagster's private interfaces that we lean on, in one list: an upgrade that changes one fails here, and on no page.

Whoever imports another one from `dagster._*` or `dagster_webserver`, or names one in a `dagster.yaml`,
adds it here; a test reads every import. Beside each stand the parameters that we pass, or the fields that we read.
Checked before the web server listens, and before a deployment migrates Dagster's storage.
"""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

INTERFACES: dict[str, tuple[str, ...]] = {
    # run_launcher.py
    "dagster._core.launcher:DefaultRunLauncher": ("inst_data",),
    "dagster._core.launcher:DefaultRunLauncher.terminate": ("run_id",),
    "dagster._core.launcher:DefaultRunLauncher.check_run_worker_health": ("run",),
    "dagster._core.launcher:DefaultRunLauncher.supports_check_run_worker_health": (),
    "dagster._core.launcher:DefaultRunLauncher._instance": (),
    "dagster._core.launcher:WorkerStatus.RUNNING": (),
    "dagster._core.launcher:WorkerStatus.NOT_FOUND": (),
    "dagster._core.launcher.base:CheckRunHealthResult": ("status", "msg"),
    "dagster._core.storage.tags:GRPC_INFO_TAG": (),
    "dagster._grpc.client:DagsterGrpcClient": ("port", "socket", "host"),
    "dagster._grpc.client:DagsterGrpcClient.can_cancel_execution": ("can_cancel_execution_request", "timeout"),
    "dagster._grpc.types:CanCancelExecutionRequest": ("run_id",),
    "dagster._grpc.types:CanCancelExecutionResult": ("can_cancel",),
    "dagster._serdes:ConfigurableClassData": (),
    "dagster._serdes:deserialize_value": ("val", "as_type"),
    "dagster:DagsterInstance.add_run_tags": ("run_id", "new_tags"),
    "dagster:DagsterInstance.get_records_for_run": ("run_id", "limit", "ascending"),
    "dagster:DagsterInstance.report_run_canceling": ("run",),
    "dagster:DagsterInstance.report_run_canceled": ("dagster_run", "message"),
    # deploy/dagster/dagster.yaml
    "dagster._core.storage.local_compute_log_manager:LocalComputeLogManager": ("base_dir",),
    "dagster._core.storage.root:LocalArtifactStorage": ("base_dir",),
    # local.py
    "dagster:DagsterInstance.get_daemon_heartbeats": (),
    "dagster:DagsterInstance.get_required_daemon_types": (),
    # webserver.py
    "dagster:DagsterInstance.optimize_for_webserver": ("statement_timeout", "pool_recycle", "max_overflow"),
    "dagster._core.workspace.context:WorkspaceProcessContext": ("instance", "workspace_load_target", "version"),
    "dagster._core.workspace.context:WorkspaceProcessContext.create_request_context": ("source",),
    "dagster._core.workspace.context:WorkspaceProcessContext.instance": (),
    "dagster._core.workspace.context:WorkspaceProcessContext.version": (),
    "dagster._core.workspace.context:WorkspaceProcessContext.get_current_workspace": (),
    "dagster._core.workspace.context:WorkspaceRequestContext": (
        *("instance", "current_workspace", "process_context", "version", "source", "read_only"),
    ),
    "dagster._core.workspace.load_target:WorkspaceFileTarget": ("paths",),
    "dagster_webserver.app:create_app_from_workspace_process_context": (
        *("workspace_process_context", "path_prefix", "live_data_poll_rate"),
    ),
    "dagster_webserver.version:__version__": (),
}


class InternalsError(Exception):
    """Dagster is not as this version of ours knows it; the message names every difference."""


def check_internals() -> None:
    """Raises InternalsError where an interface of the list is not there, or does not take what we pass."""
    problems = [problem for name, parameters in INTERFACES.items() for problem in _problems_of(name, parameters)]
    if problems:
        remedy = "install the versions that requirements.lock names, or adapt what leans on these"
        raise InternalsError("\n".join([*problems, f"Dagster has changed: {remedy}"]))


def _problems_of(name: str, parameters: tuple[str, ...]) -> Iterator[str]:
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        yield f"{name} is missing: {error}"
        return
    if parameters:
        # Dagster's records take their fields, and say so in annotations only
        fields = inspect.get_annotations(found) if inspect.isclass(found) else {}
        known = {*inspect.signature(found).parameters, *fields}
        yield from (f"{name} takes no {parameter}" for parameter in parameters if parameter not in known)
