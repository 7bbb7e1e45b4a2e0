"""Dagster's web server behind our guard, in one process on one port: there is no second door beside it.

The same for one machine (`local.py`) and for the images (`deploy/start.py`). The instance is that of DAGSTER_HOME.
"""

from collections.abc import Mapping
from pathlib import Path

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__
from starlette.requests import HTTPConnection

from usage_pipeline.operations.dagster_guard import VISITOR, Guard, Visitor, policy_from
from usage_pipeline.operations.dagster_internals import check_internals

# as Dagster's own server has them
_STATEMENT_MILLISECONDS, _POOL_SECONDS, _POOL_OVERFLOW = 15_000, 3600, 20
_POLL_MILLISECONDS = 2000
# pages listen for as long as they are open
_GRACE_SECONDS = 3


class GuardedContext(WorkspaceProcessContext):
    """The workspace, with the rights of whoever is behind a request: Dagster refuses what those do not hold."""

    def create_request_context(self, source: object | None = None) -> WorkspaceRequestContext:
        # without a source Dagster makes one anew within a request whose rights it has looked at
        visitor = source.scope.get(VISITOR) if isinstance(source, HTTPConnection) else Visitor("", may_write=True)
        return WorkspaceRequestContext(
            instance=self.instance,
            current_workspace=self.get_current_workspace(),
            process_context=self,
            version=self.version,
            source=source,
            read_only=visitor is None or not visitor.may_write,
        )


def serve(workspace: Path, host: str, port: int, environment: Mapping[str, str]) -> None:
    """Serves until the process is ended. Raises GuardError or InternalsError before anything listens."""
    policy = policy_from(environment)
    check_internals()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(_STATEMENT_MILLISECONDS, _POOL_SECONDS, _POOL_OVERFLOW)
        target = WorkspaceFileTarget([str(workspace)])
        with GuardedContext(instance, target, version=__version__) as context:
            app = create_app_from_workspace_process_context(context, "", _POLL_MILLISECONDS)
            uvicorn.run(
                Guard(app, policy),
                host=host,
                port=port,
                log_level="warning",
                server_header=False,
                # nobody's word about where a request comes from is taken
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
