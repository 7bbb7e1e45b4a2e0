"""Tools for agents (Model Context Protocol) over the same questions as the read API; read only.

Each answer carries the build, the day that its data goes through, the rows, the table that they are from, and what
their columns mean, so that an agent has nothing to make up.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date
from functools import wraps
from importlib.metadata import version
from typing import Any, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, ValidationError

from usage_pipeline.serving import reads
from usage_pipeline.serving.access import Access
from usage_pipeline.serving.published import NotServedError, Published
from usage_pipeline.serving.reads import Answer, Reader

_HOW = """Usage, health, renewals and calls of the accounts of a software vendor. `definitions` says what a word means.
Say the build's `data_through` beside every figure. `null` is what is not known or not delivered: it is not 0. What no
tool answers is not known here."""
_ACCESS: ContextVar[Access] = ContextVar("access of the program that asks")
_READ_ONLY = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)

_REASONS = (reads.AskedWronglyError, reads.NotAllowedError, reads.NotFoundError, NotServedError)

M = TypeVar("M", bound=BaseModel)


@contextmanager
def asking(access: Access) -> Iterator[None]:
    """What is asked within is asked by this program."""
    before = _ACCESS.set(access)
    try:
        yield
    finally:
        _ACCESS.reset(before)


def agent_server(published: Published) -> MCPServer:
    """The tools over what is published; each asks as the program of `asking`."""
    server = MCPServer("usage", instructions=_HOW, version=version("usage-pipeline"))

    def tool(answer: Callable[..., dict[str, Any]]) -> None:
        server.tool(annotations=_READ_ONLY)(_with_reasons(answer))

    def reader() -> Reader:
        return Reader(published, _ACCESS.get())

    @tool
    def call_list(
        csm: list[str] | None = None,
        segment: list[str] | None = None,
        region: list[str] | None = None,
        account: list[str] | None = None,
        application: list[str] | None = None,
        urgency: list[str] | None = None,
        week: date | None = None,
        limit: int = 20,
    ) -> dict[str, Any]:
        """Accounts to call, the most urgent first, with reason, ARR at risk and renewal; `week`: as issued then."""
        return _told(reader().call_list(_asked(reads.CallListAsked, **_given(locals()))))

    @tool
    def account(account: str, part: list[str] | None = None, weeks: int = 13) -> dict[str, Any]:
        """Everything about one account, by id or name: summary, call, health, subscriptions, usage, risks and more."""
        return _told(reader().account(account, _asked(reads.AccountAsked, part=part or [], weeks=weeks)))

    @tool
    def contacts(account: str) -> dict[str, Any]:
        """People to call of an account; needs a token with the scope contacts."""
        return _told(reader().contacts(account))

    @tool
    def anomalies(
        csm: list[str] | None = None,
        segment: list[str] | None = None,
        region: list[str] | None = None,
        account: list[str] | None = None,
        application: list[str] | None = None,
        confidence: list[str] | None = None,
        since: date | None = None,
        limit: int = 20,
    ) -> dict[str, Any]:
        """Weeks out of the ordinary of accounts and applications, newest first, each in a sentence."""
        return _told(reader().anomalies(_asked(reads.AnomaliesAsked, **_given(locals()))))

    @tool
    def renewals(
        csm: list[str] | None = None,
        segment: list[str] | None = None,
        region: list[str] | None = None,
        account: list[str] | None = None,
        application: list[str] | None = None,
        within_days: int | None = None,
        limit: int = 20,
    ) -> dict[str, Any]:
        """Renewals of the days ahead, the next first, with ARR and health."""
        return _told(reader().renewals(_asked(reads.RenewalsAsked, **_given(locals()))))

    @tool
    def kpi(
        kpi: list[str] | None = None,
        entity_type: list[str] | None = None,
        entity: list[str] | None = None,
        period: str = "month",
        month: date | None = None,
        limit: int = 50,
    ) -> dict[str, Any]:
        """KPIs of entities (all, account, application, segment, region, CSM) over a complete period."""
        return _told(reader().kpis(_asked(reads.KpisAsked, **_given(locals()))))

    @tool
    def explain(account: str, application: str | None = None, week: date | None = None) -> dict[str, Any]:
        """What stands behind the figures of an account (and application) in a week."""
        return _told(reader().explain(_asked(reads.ExplainAsked, **_given(locals()))))

    @tool
    def definitions(name: list[str]) -> dict[str, Any]:
        """What columns, metrics and KPIs mean, by name or title."""
        return {"definitions": reads.definitions(_asked(reads.DefinitionsAsked, name=name))}

    return server


def _with_reasons(answer: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The same, whose refusals reach the agent in words: of any other error the SDK tells nothing."""

    @wraps(answer)
    def told(*args: Any, **named: Any) -> dict[str, Any]:
        try:
            return answer(*args, **named)
        except _REASONS as error:
            raise ToolError(str(error)) from error

    return told


def _given(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if value is not None and name != "reader"}


def _asked(model: type[M], **values: Any) -> M:
    """The question as reads.py takes it. Raises AskedWronglyError with what is wrong."""
    try:
        return model(**values)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise reads.AskedWronglyError("; ".join(problems)) from error


def _told(answer: Answer) -> dict[str, Any]:
    return answer.head() | {"answer": answer.told_parts(), "definitions": answer.definitions()}
