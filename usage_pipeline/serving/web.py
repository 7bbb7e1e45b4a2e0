"""The read API over HTTP: questions as addresses, answers as JSON or CSV, for programs that show a token.

Belongs here: addresses, statuses, ETags. Does not: who asks (`gate.py`), what is open (`access.py`), what is asked of
the build (`reads.py`).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from mcp.server.mcpserver import Context
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.names import meant
from usage_pipeline.core.tables import COLUMNS, TABLES
from usage_pipeline.privacy.encryption import ContactsKeyError
from usage_pipeline.serving import answers, reads
from usage_pipeline.serving.access import Access
from usage_pipeline.serving.agents import agent_server
from usage_pipeline.serving.gate import DESCRIPTION, Gate, Pace, access_of, problem
from usage_pipeline.serving.kept_answers import KeptAnswer, KeptAnswers
from usage_pipeline.serving.published import NotServedError, Published
from usage_pipeline.serving.reads import Answer, Reader
from usage_pipeline.serving.tokens import TokenStore

_ABOUT = """Usage, health, renewals and calls of accounts, as the dashboards show them; read only.

Each answer names the build and the day that its data goes through. `null` is what is not known or not delivered,
never 0; `null_because` says which. An `ETag` changes with the build and the outcomes: send it as `If-None-Match`, and
304 says that nothing changed.
"""
# address, table, filters, question, what it is, a row
_LISTS: tuple[tuple[str, str, type[BaseModel], Callable[[Reader, Any], Answer], str, dict[str, Any]], ...] = (
    (
        "accounts",
        "accounts_summary",
        reads.Filters,
        Reader.accounts,
        "Accounts, by name",
        {"account_id": "A00001", "account": "City of Example", "owner": "Dana Reyes", "annual_value": 48000.0},
    ),
    (
        "call-list",
        "call_list",
        reads.CallListAsked,
        Reader.call_list,
        "Accounts to call, by priority; of a past week as issued",
        {"rank": 1, "account_id": "A00001", "account": "City of Example", "urgency": "Urgent", "call_status": "open"},
    ),
    (
        "anomalies",
        "anomaly_weeks",
        reads.AnomaliesAsked,
        Reader.anomalies,
        "Anomalous weeks, newest first",
        {"account_id": "A00001", "application": "Permits", "week_start": "2026-11-16", "confidence": "high"},
    ),
    (
        "renewals",
        "renewals",
        reads.RenewalsAsked,
        Reader.renewals,
        "Renewals of the days ahead, the next first",
        {"account_id": "A00001", "account": "City of Example", "renewal_date": "2027-01-31", "days_to_renewal": 68},
    ),
    (
        "kpis",
        "kpi_report",
        reads.KpisAsked,
        Reader.kpis,
        "KPIs of a complete period, beside the period before and a year ago",
        {"kpi": "Clicks", "entity_type": "region", "entity": "North-East", "kpi_period": "month", "value": 1204.0},
    ),
)
_STATUSES: dict[type[Exception], int] = {
    reads.AskedWronglyError: 400,
    reads.NotAllowedError: 403,
    reads.NotFoundError: 404,
    NotServedError: 503,
    ContactsKeyError: 503,
}
_BUILD_EXAMPLE = {
    "build_id": "00042-2026-11-22-1f3a5b7d",
    "as_of": "2026-11-24T06:00:00",
    "newest_week": "2026-11-16",
    "data_through": "2026-11-22",
    "sentence": "Data through Nov 22, 2026",
}
_HEAD_EXAMPLE: dict[str, Any] = {"build": _BUILD_EXAMPLE, "asked": {}, "notes": []}
# in the order of what is asked first
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": about, "content": {"application/problem+json": {"schema": answers.PROBLEM}}}
    for status, about in {
        400: "a value of a filter is not known, a name is that of several, or filters do not go together",
        401: "no token, or none that is known",
        403: "the token lacks a scope, or a page in a browser asks",
        404: "no such account, application or week is open to the token",
        422: "a parameter is not known, or has no value of its kind",
        429: "more requests than the pace allows; Retry-After says when",
        503: "no build is published, or one of another version; or contacts are encrypted with another key",
    }.items()
}
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "nothing changed since the ETag that was sent"}}


def make_api(home: DataHome, per_minute: int = 600) -> Gate:
    """The API of a data home; `/openapi.json` describes it, `/mcp` serves agents."""
    published, kept = Published(home), KeptAnswers()
    agents = agent_server(published, _program_of_call)
    # who asks is known by a token, which no page in a browser has: names of hosts protect nothing more
    transport = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    agents_app = agents.streamable_http_app(json_response=True, stateless_http=True, transport_security=transport)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with agents_app.router.lifespan_context(agents_app):
            yield

    api = FastAPI(
        title="Usage",
        version=version("usage-pipeline"),
        description=_ABOUT,
        lifespan=lifespan,
        openapi_url=DESCRIPTION,
        # a proxy that ends TLS would get an address without it
        redirect_slashes=False,
        # their pages load programs of others, which would see the token that somebody tries there
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(HTTPBearer(auto_error=False, description="`usage-pipeline tokens add NAME` makes one"))],
    )
    for kind in (*_STATUSES, HTTPException, RequestValidationError):
        api.add_exception_handler(kind, _refused)
    for name, table, model, ask, about, row in _LISTS:
        _add_list(api, published, kept, name, table, model, ask, about, row)
    _add_account(api, published, kept)
    _add_explain(api, published, kept)
    _add_words(api, published, kept)
    api.router.routes.extend(agents_app.routes)
    return Gate(api, TokenStore(home.api_dir), Pace(per_minute))


def _program_of_call(context: Context | None) -> Access:
    assert context is not None
    assert context.request_context.request is not None
    return access_of(context.request_context.request)


def _add_list(
    api: FastAPI,
    published: Published,
    kept: KeptAnswers,
    name: str,
    table: str,
    model: type[BaseModel],
    ask: Callable[[Reader, Any], Answer],
    about: str,
    row: dict[str, Any],
) -> None:
    def in_json(request: Request, asked: Annotated[model, Query()]) -> Response:  # type: ignore[valid-type]
        return _answered(request, published, kept, lambda reader: _list(ask(reader, asked)))

    def in_csv(request: Request, asked: Annotated[model, Query()]) -> Response:  # type: ignore[valid-type]
        return _answered(request, published, kept, lambda reader: _csv(ask(reader, asked)))

    status = [COLUMNS[column] for column in reads.STATUS] if name == "call-list" else []
    past = TABLES["call_list_history"].columns if name == "call-list" else ()
    schema = answers.list_schema([*TABLES[table].columns, *status, *past])
    example = _HEAD_EXAMPLE | {"next_offset": None} | _part_example(table, [row])
    csv = {200: {"description": "rows below a line of names", "content": {"text/csv": {"schema": {"type": "string"}}}}}
    api.get(f"/v1/{name}", summary=about, operation_id=name, responses=_responses(schema, example))(in_json)
    api.get(
        f"/v1/{name}.csv",
        summary=f"{about}, as CSV",
        operation_id=f"{name} as CSV",
        response_class=Response,
        responses=csv | _UNCHANGED | _REFUSALS,
    )(in_csv)


def _add_account(api: FastAPI, published: Published, kept: KeptAnswers) -> None:
    parts = {name: TABLES[table].columns for name, (table, _) in reads.ACCOUNT_PARTS.items()}
    parts["call"] = (*parts["call"], *(COLUMNS[column] for column in reads.STATUS))
    summary = _part_example("accounts_summary", [{"account_id": "A00001", "account": "City of Example"}])
    example = _HEAD_EXAMPLE | {"parts": {"summary": summary}}
    contacts = [{"account_id": "A00001", "name": "Robin Example", "role": "Manager", "to_call": True}]

    @api.get(
        "/v1/accounts/{account}",
        summary="Everything about an account but its contacts",
        responses=_responses(answers.parts_schema(parts), example),
    )
    def account(request: Request, account: str, asked: Annotated[reads.AccountAsked, Query()]) -> Response:
        return _answered(request, published, kept, lambda reader: _parts(reader.account(account, asked)))

    @api.get(
        "/v1/accounts/{account}/contacts",
        summary="People to call; scope contacts",
        responses=_responses(
            answers.list_schema(TABLES[reads.CONTACTS].columns),
            _HEAD_EXAMPLE | {"next_offset": None} | _part_example(reads.CONTACTS, contacts),
            with_tag=False,
        ),
    )
    def people(request: Request, account: str) -> Response:
        # of an erased person nothing is kept anywhere
        answer = _list(Reader(published, access_of(request)).contacts(account))
        return Response(answer.body, 200, answer.headers | {"Cache-Control": "no-store"}, answer.media_type)


def _add_explain(api: FastAPI, published: Published, kept: KeptAnswers) -> None:
    parts = {name: TABLES[reads.ACCOUNT_PARTS[name][0]].columns for name in reads.EXPLAIN_PARTS}
    usage = [{"account_id": "A00001", "application": "Permits", "week_start": "2026-11-16", "clicks": 120}]

    @api.get(
        "/v1/explain",
        summary="What stands behind the figures of an account in a week",
        responses=_responses(
            answers.parts_schema(parts), _HEAD_EXAMPLE | {"parts": {"usage": _part_example("usage_by_week", usage)}}
        ),
    )
    def explain(request: Request, asked: Annotated[reads.ExplainAsked, Query()]) -> Response:
        return _answered(request, published, kept, lambda reader: _parts(reader.explain(asked)))


def _add_words(api: FastAPI, published: Published, kept: KeptAnswers) -> None:
    text, maybe = {"type": "string"}, {"type": ["string", "null"]}
    word = {"kind": text, "name": text, "title": maybe, "meaning": text, "aggregation": maybe}
    rows = {"type": "array", "items": {"type": "object", "properties": word, "required": list(word)}}
    schema = {"type": "object", "properties": {"build": answers.BUILD, "asked": {"type": "object"}, "rows": rows}}
    wau = reads.definitions(reads.DefinitionsAsked(name=["weekly_active_users"]))

    @api.get(
        "/v1/definitions",
        summary="What columns, metrics and KPIs mean",
        responses=_responses(schema, {"build": _BUILD_EXAMPLE, "asked": {}, "rows": wau}),
    )
    def definitions(request: Request, asked: Annotated[reads.DefinitionsAsked, Query()]) -> Response:
        return _answered(request, published, kept, lambda reader: _json(reader, reader.definitions(asked)))

    @api.get(
        "/v1/build",
        summary="Which build is shown, and the day that its data goes through",
        responses=_responses(answers.BUILD, _BUILD_EXAMPLE),
    )
    def build(request: Request) -> Response:
        return _answered(request, published, kept, lambda reader: _json(reader, asdict(reader.info())))


def _part_example(table: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    about = {"source": TABLES[table].full_name, "a_row_is": TABLES[table].row, "total": len(rows)}
    return about | {"null_because": {}, "rows": rows}


def _responses(schema: dict[str, Any], example: dict[str, Any], with_tag: bool = True) -> dict[int | str, Any]:
    content = {"application/json": {"schema": schema, "example": example}}
    return {200: {"description": "the answer", "content": content}} | (_UNCHANGED if with_tag else {}) | _REFUSALS


# ---------------------------------------------------------------- answers


def _answered(
    request: Request, published: Published, kept: KeptAnswers, make: Callable[[Reader], KeptAnswer]
) -> Response:
    """An answer with its ETag; 304 where the program has it, and not made anew where it was given before.

    Only what was answered has an ETag, so a question that comes with its own need not be read again.
    """
    reader = Reader(published, access_of(request))
    tag = answers.tag_of(reader, f"{request.url.path}?{request.url.query}")
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    if tag in [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    answer = kept.get(tag)
    if answer is None:
        answer = make(reader)
        kept.keep(tag, answer)
    return Response(answer.body, 200, headers | answer.headers, answer.media_type)


def _json(reader: Reader, content: dict[str, Any]) -> KeptAnswer:
    return KeptAnswer(answers.as_json(content), "application/json", {"X-Usage-Build": reader.build.build_id})


def _list(answer: Answer) -> KeptAnswer:
    return _of(answer, answers.as_json(answers.list_told(answer)), "application/json")


def _parts(answer: Answer) -> KeptAnswer:
    return _of(answer, answers.as_json(answers.parts_told(answer)), "application/json")


def _csv(answer: Answer) -> KeptAnswer:
    """CSV has no place for what JSON says beside the rows: it stands in the headers."""
    made = _of(answer, answers.rows_as_csv(answer), "text/csv; charset=utf-8")
    after = answers.next_offset(answer)
    paging = {"X-Usage-Total": str(answer.rows.total), "X-Usage-Next-Offset": "" if after is None else str(after)}
    return KeptAnswer(made.body, made.media_type, made.headers | paging)


def _of(answer: Answer, body: bytes, kind: str) -> KeptAnswer:
    headers = {"X-Usage-Build": answer.build.build_id, "X-Usage-Data-Through": answer.build.data_through or ""}
    return KeptAnswer(body, kind, headers)


def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        return problem(422, "; ".join(_not_understood(request, found) for found in error.errors()))
    if isinstance(error, HTTPException):
        return problem(
            error.status_code, f"{error.detail}: {DESCRIPTION} lists every address", dict(error.headers or {})
        )
    return problem(next(status for kind, status in _STATUSES.items() if isinstance(error, kind)), str(error))


def _not_understood(request: Request, found: Any) -> str:
    name = ".".join(str(part) for part in found["loc"][1:])
    if found["type"] != "extra_forbidden":
        return f"{name}: {found['msg'].removeprefix('Value error, ')}"
    parameters = [field.name for field in get_flat_params(request.scope["route"].dependant)]
    return f"there is no parameter '{name}'{meant(name, parameters)}"
