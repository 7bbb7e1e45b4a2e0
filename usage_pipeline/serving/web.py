"""The read API over HTTP: questions as addresses, answers as JSON or CSV, for programs that show a token.

Belongs here: statuses, ETags, examples. Does not: who asks (`gate.py`), what is open (`access.py`), which questions
there are (`questions.py`), what is asked of the build (`reads.py`).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any

import anyio
from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.exceptions import HTTPException

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.tables import COLUMNS, TABLES
from usage_pipeline.privacy.encryption import ContactsKeyError
from usage_pipeline.serving import answers, questions, reads
from usage_pipeline.serving.access import Access
from usage_pipeline.serving.agents import agent_server
from usage_pipeline.serving.asked import (
    LONGEST_NAME,
    AccountAsked,
    AccountParts,
    Asked,
    AskedWronglyError,
    DefinitionsAsked,
    ExplainAsked,
    OfAccount,
    refusal,
)
from usage_pipeline.serving.gate import DESCRIPTION, Gate, Pace, access_of, problem
from usage_pipeline.serving.kept_answers import KeptAnswer, KeptAnswers
from usage_pipeline.serving.parts import ACCOUNT_PARTS, EXPLAIN_PARTS
from usage_pipeline.serving.published import NotServedError, Published
from usage_pipeline.serving.questions import QUESTIONS, Question
from usage_pipeline.serving.reads import Answer, Reader
from usage_pipeline.serving.tokens import TokenStore

_ABOUT = """Usage, health, renewals and calls of accounts, as the dashboards show them; read only.

Each answer names the build and the day that its data goes through. `null` is what is not known, not delivered or not
there, never 0; `null_because` says which. Days are of the configured time zone; moments have an offset or a Z. An
`ETag` changes with the build and the outcomes: send it as `If-None-Match`, and 304 says that nothing changed.
"""
# lists: the table, and a row of it
_LISTS: tuple[tuple[Question, str, dict[str, Any]], ...] = (
    (
        questions.ACCOUNTS,
        "accounts_summary",
        {"account_id": "A00001", "account": "City of Example", "owner": "Dana Reyes", "annual_value": 48000.0},
    ),
    (
        questions.CALL_LIST,
        "call_list",
        {"rank": 1, "account_id": "A00001", "account": "City of Example", "urgency": "Urgent", "call_status": "open"},
    ),
    (
        questions.ANOMALIES,
        "anomaly_weeks",
        {"account_id": "A00001", "application": "Permits", "week_start": "2026-11-16", "confidence": "high"},
    ),
    (
        questions.RENEWALS,
        "renewals",
        {"account_id": "A00001", "account": "City of Example", "renewal_date": "2027-01-31", "days_to_renewal": 68},
    ),
    (
        questions.KPIS,
        "kpi_report",
        {"kpi": "Clicks", "entity_type": "region", "entity": "North-East", "kpi_period": "month", "value": 1204.0},
    ),
)
# an account may be named in a path, slashes included
InPath = Annotated[str, Path(min_length=1, max_length=LONGEST_NAME, description="account, by id or name")]
_STATUSES: dict[type[Exception], int] = {
    AskedWronglyError: 400,
    reads.NotAllowedError: 403,
    reads.NotFoundError: 404,
    NotServedError: 503,
    ContactsKeyError: 503,
}
_BUILD_EXAMPLE = {
    "build_id": "00042-2026-11-22-1f3a5b7d",
    "as_of": "2026-11-24T06:00:00-07:00",
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
        503: "no build is published, or one of another version; or its outcomes are not written yet; or contacts are "
        "encrypted with another key",
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
        await anyio.to_thread.run_sync(published.warm)
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
    for question, table, row in _LISTS:
        _add_list(api, published, kept, question, table, row)
    # before the account itself, which takes every path below
    _add_contacts(api, published)
    _add_account(api, published, kept)
    _add_explain(api, published, kept)
    _add_words(api, published, kept)
    api.router.routes.extend(agents_app.routes)
    return Gate(api, api.routes, TokenStore(home.api_dir), Pace(per_minute))


def _program_of_call(request: Request | None) -> Access:
    assert request is not None
    return access_of(request)


def _add_list(
    api: FastAPI, published: Published, kept: KeptAnswers, question: Question, table: str, row: dict[str, Any]
) -> None:
    takes = question.takes

    def in_json(request: Request, asked: Annotated[takes, Query()]) -> Response:  # type: ignore[valid-type]
        return _answered(request, published, kept, lambda reader: _list(_rows(question, reader, asked)))

    def in_csv(request: Request, asked: Annotated[takes, Query()]) -> Response:  # type: ignore[valid-type]
        return _answered(request, published, kept, lambda reader: _csv(_rows(question, reader, asked)))

    is_calls = question is questions.CALL_LIST
    status = [COLUMNS[column] for column in reads.STATUS] if is_calls else []
    past = TABLES["call_list_history"].columns if is_calls else ()
    schema = answers.list_schema([*TABLES[table].columns, *status, *past])
    example = _HEAD_EXAMPLE | {"next_offset": None} | _part_example(table, [row])
    csv = {200: {"description": "rows below a line of names", "content": {"text/csv": {"schema": {"type": "string"}}}}}
    _add(api, question, in_json, _responses(schema, example))
    api.get(
        f"{question.address}.csv",
        name=question.tool,
        summary=f"{question.about}, as CSV",
        operation_id=f"{question.tool} as CSV",
        response_class=Response,
        responses=csv | _UNCHANGED | _REFUSALS,
    )(in_csv)


def _add_contacts(api: FastAPI, published: Published) -> None:
    contacts = [{"account_id": "A00001", "name": "Robin Example", "role": "Manager", "to_call": True}]
    responses = _responses(
        answers.list_schema(TABLES[reads.CONTACTS].columns),
        _HEAD_EXAMPLE | {"next_offset": None} | _part_example(reads.CONTACTS, contacts),
        with_tag=False,
    )

    def people(request: Request, account: InPath, _: Annotated[Asked, Query()]) -> Response:
        # of an erased person nothing is kept anywhere
        answer = _list(Reader(published, access_of(request)).contacts(OfAccount(account=account)))
        return Response(answer.body, 200, answer.headers | {"Cache-Control": "no-store"}, answer.media_type)

    _add(api, questions.CONTACTS, people, responses)


def _add_account(api: FastAPI, published: Published, kept: KeptAnswers) -> None:
    parts = {name: TABLES[table].columns for name, (table, _) in ACCOUNT_PARTS.items()}
    parts["call"] = (*parts["call"], *(COLUMNS[column] for column in reads.STATUS))
    summary = _part_example("accounts_summary", [{"account_id": "A00001", "account": "City of Example"}])
    example = _HEAD_EXAMPLE | {"parts": {"summary": summary}}

    def account(request: Request, account: InPath, asked: Annotated[AccountParts, Query()]) -> Response:
        whole = AccountAsked(account=account, **asked.model_dump())
        return _answered(request, published, kept, lambda reader: _parts(reader.account(whole)))

    _add(api, questions.ACCOUNT, account, _responses(answers.parts_schema(parts), example))


def _add_explain(api: FastAPI, published: Published, kept: KeptAnswers) -> None:
    parts = {name: TABLES[ACCOUNT_PARTS[name][0]].columns for name in EXPLAIN_PARTS}
    usage = [{"account_id": "A00001", "application": "Permits", "week_start": "2026-11-16", "clicks": 120}]
    example = _HEAD_EXAMPLE | {"parts": {"usage": _part_example("usage_by_week", usage)}}

    def explain(request: Request, asked: Annotated[ExplainAsked, Query()]) -> Response:
        return _answered(request, published, kept, lambda reader: _parts(reader.explain(asked)))

    _add(api, questions.EXPLAIN, explain, _responses(answers.parts_schema(parts), example))


def _add_words(api: FastAPI, published: Published, kept: KeptAnswers) -> None:
    rows, _ = reads.definitions(DefinitionsAsked(name=["weekly_active_users"]))
    example = _HEAD_EXAMPLE | {"next_offset": None, "total": len(rows), "rows": rows}

    def definitions(request: Request, asked: Annotated[DefinitionsAsked, Query()]) -> Response:
        return _answered(request, published, kept, lambda reader: _json(reader, reader.definitions(asked)))

    def build(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        return _answered(request, published, kept, lambda reader: _json(reader, reader.shown_build(asked)))

    _add(api, questions.DEFINITIONS, definitions, _responses(answers.DEFINITIONS, example))
    _add(api, questions.BUILD, build, _responses(answers.BUILD, _BUILD_EXAMPLE))


def _add(api: FastAPI, question: Question, answer: Callable[..., Response], responses: dict[int | str, Any]) -> None:
    path = question.address.replace("{account}", "{account:path}")
    api.get(path, name=question.tool, summary=question.about, operation_id=question.tool, responses=responses)(answer)


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


def _rows(question: Question, reader: Reader, asked: Asked) -> Answer:
    answer = question.ask(reader, asked)
    assert isinstance(answer, Answer)
    return answer


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
        # the question behind an address; where a parameter stands (path, query) is left out
        question = QUESTIONS[request.scope["route"].name]
        return problem(422, refusal(question.takes, [found | {"loc": found["loc"][1:]} for found in error.errors()]))
    if isinstance(error, HTTPException):
        return problem(
            error.status_code, f"{error.detail}: {DESCRIPTION} lists every address", dict(error.headers or {})
        )
    return problem(next(status for kind, status in _STATUSES.items() if isinstance(error, kind)), str(error))
