"""The read API over HTTP: questions as addresses, answers as JSON or CSV, for programs that show a token.

Belongs here: addresses, tokens of requests, paces, statuses, ETags. Does not: what is asked of the build (`reads.py`).
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.csv_cells import as_csv
from usage_pipeline.serving import reads
from usage_pipeline.serving.access import Access
from usage_pipeline.serving.agents import agent_server, asking
from usage_pipeline.serving.published import NotServedError, Published
from usage_pipeline.serving.reads import Answer, Reader
from usage_pipeline.serving.tokens import TokenError, TokenStore

logger = logging.getLogger("usage_pipeline.serving")
_ABOUT = """Usage, health, renewals and calls of accounts, as the dashboards show them; read only.

Each answer names the build and the day that its data goes through. `null` is what is not known or not delivered,
never 0.
An `ETag` changes with the build and the outcomes: send it as `If-None-Match`, and 304 says that nothing changed.
"""
# address, filters, question, what it is
_LISTS: tuple[tuple[str, type[BaseModel], Callable[[Reader, Any], Answer], str], ...] = (
    ("accounts", reads.Filters, Reader.accounts, "Accounts, by name"),
    ("call-list", reads.CallListAsked, Reader.call_list, "Accounts to call, by priority; of a past week as issued"),
    ("anomalies", reads.AnomaliesAsked, Reader.anomalies, "Anomalous weeks, newest first"),
    ("renewals", reads.RenewalsAsked, Reader.renewals, "Renewals of the days ahead, the next first"),
    ("kpis", reads.KpisAsked, Reader.kpis, "KPIs of a complete period, beside the period before and a year ago"),
)
_STATUSES: dict[type[Exception], int] = {
    reads.AskedWronglyError: 400,
    reads.NotAllowedError: 403,
    reads.NotFoundError: 404,
    NotServedError: 503,
    TokenError: 503,
}


class _NoTokenError(Exception):
    """Nobody knows who asks."""


class _TooFastError(Exception):
    """A program asks more often than its pace allows; `seconds` until the next is answered."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Pace:
    """How often each program may ask: `per_minute` on average, as many at once after a pause (a token bucket)."""

    def __init__(self, per_minute: int) -> None:
        self._most, self._per_second = float(per_minute), per_minute / 60
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def count(self, program: str) -> None:
        """Counts a request. Raises _TooFastError."""
        with self._lock:
            now = time.monotonic()
            left, at = self._left.get(program, (self._most, now))
            left = min(self._most, left + (now - at) * self._per_second)
            if left < 1:
                raise _TooFastError((1 - left) / self._per_second)
            self._left[program] = (left - 1, now)


def make_api(home: DataHome, per_minute: int = 600) -> FastAPI:
    """The API of a data home. `/docs` and `/openapi.json` describe it, `/mcp` serves agents."""
    published, tokens, pace = Published(home), TokenStore(home.api_dir), Pace(per_minute)
    agents = agent_server(published)
    agents_app = agents.streamable_http_app(json_response=True, stateless_http=True)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with agents_app.router.lifespan_context(agents_app):
            yield

    api = FastAPI(title="Usage", version=version("usage-pipeline"), description=_ABOUT, lifespan=lifespan)

    def who(
        request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
    ) -> Access:
        return _admitted(request, shown.credentials if shown else "")

    def _admitted(request: Request, secret: str) -> Access:
        token = tokens.find(secret) if secret else None
        if token is None:
            raise _NoTokenError
        request.state.program = token.name
        pace.count(token.name)
        return token.access

    known_program = Annotated[Access, Depends(who)]

    @api.middleware("http")
    async def watched(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        if request.url.path.startswith("/mcp"):
            scheme, _, secret = request.headers.get("authorization", "").partition(" ")
            try:
                access = _admitted(request, secret.strip() if scheme.lower() == "bearer" else "")
            except (_NoTokenError, _TooFastError, TokenError) as error:
                response: Response = _refused(error)
            else:
                with asking(access):
                    response = await call_next(request)
        else:
            response = await call_next(request)
        route = request.scope.get("route")
        # the address as it is written here: an account's name is in no log
        place = getattr(route, "path", "(no such address)")
        program = getattr(request.state, "program", "nobody")
        milliseconds = 1000 * (time.perf_counter() - started)
        logger.info("%s %s %s %d %.0f ms", program, request.method, place, response.status_code, milliseconds)
        return response

    for kind in (*_STATUSES, _NoTokenError, _TooFastError):
        api.add_exception_handler(kind, lambda _, error: _refused(error))
    api.add_exception_handler(RequestValidationError, _not_understood)

    for name, model, ask, about in _LISTS:
        _add_list(api, published, known_program, name, model, ask, about)

    @api.get("/v1/accounts/{account}", summary="Everything about an account but its contacts", responses=_RESPONSES)
    def account(
        request: Request, account: str, asked: Annotated[reads.AccountAsked, Query()], access: known_program
    ) -> Response:
        return _answered(request, Reader(published, access), lambda reader: _parts(reader.account(account, asked)))

    @api.get("/v1/accounts/{account}/contacts", summary="People to call; scope contacts", responses=_RESPONSES)
    def contacts(request: Request, account: str, access: known_program) -> Response:
        return _answered(request, Reader(published, access), lambda reader: _rows(reader.contacts(account)), kept=False)

    @api.get("/v1/explain", summary="What stands behind the figures of an account in a week", responses=_RESPONSES)
    def explain(request: Request, asked: Annotated[reads.ExplainAsked, Query()], access: known_program) -> Response:
        return _answered(request, Reader(published, access), lambda reader: _parts(reader.explain(asked)))

    @api.get(
        "/v1/definitions",
        summary="What columns, metrics and KPIs mean",
        responses=_RESPONSES,
        dependencies=[Depends(who)],
    )
    def definitions(asked: Annotated[reads.DefinitionsAsked, Query()]) -> Any:
        return {"rows": reads.definitions(asked)}

    @api.get("/v1/build", summary="Which build is shown, and the day that its data goes through", responses=_RESPONSES)
    def build(access: known_program) -> Any:
        return asdict(Reader(published, access).info())

    api.mount("/", agents_app)
    return api


_SENTENCE = {
    "content": {"application/json": {"example": {"error": "there is no account 'Acme'; did you mean Acme Town?"}}}
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": {"build": {"build_id": "00042-2026-11-22-1f3a"}, "rows": []}}}},
    304: {"description": "nothing changed since the ETag that was sent"},
    400: {"description": "a filter or value is not known", **_SENTENCE},
    401: {"description": "no token, or none that is known"},
    403: {"description": "the token lacks a scope"},
    404: {"description": "no such account, application or week is open to the token", **_SENTENCE},
    422: {"description": "a parameter is not known, or has no value of its kind", **_SENTENCE},
    429: {"description": "more requests than the pace allows; Retry-After says when"},
    503: {"description": "no build is published, or it is of another version"},
}


def _add_list(
    api: FastAPI,
    published: Published,
    who: Any,
    name: str,
    model: type[BaseModel],
    ask: Callable[[Reader, Any], Answer],
    about: str,
) -> None:
    def as_json(request: Request, asked: Annotated[model, Query()], access: who) -> Response:  # type: ignore[valid-type]
        return _answered(request, Reader(published, access), lambda reader: _rows(ask(reader, asked)))

    def as_table(request: Request, asked: Annotated[model, Query()], access: who) -> Response:  # type: ignore[valid-type]
        return _answered(request, Reader(published, access), lambda reader: _table(ask(reader, asked)), kind="text/csv")

    api.get(f"/v1/{name}", summary=about, operation_id=name, responses=_RESPONSES)(as_json)
    api.get(f"/v1/{name}.csv", summary=f"{about}, as CSV", operation_id=f"{name} as CSV", responses=_RESPONSES)(
        as_table
    )


def _answered(
    request: Request,
    reader: Reader,
    content: Callable[[Reader], bytes],
    *,
    kind: str = "application/json",
    kept: bool = True,
) -> Response:
    """An answer with its ETag: of the question, the build, the outcomes and who asks; 304 where the program has it.

    Only what was answered has an ETag, so a question that comes with its own need not be read again.
    """
    question = str(request.url.path), str(request.url.query)
    told = repr((question, reader.build.build_id, reader.outcomes_name(), reader.access))
    etag = f'"{hashlib.sha256(told.encode()).hexdigest()[:32]}"'
    headers = {"Cache-Control": "private, no-cache", "Vary": "Authorization", "X-Usage-Build": reader.build.build_id}
    if not kept:
        return Response(content(reader), media_type=kind, headers=headers | {"Cache-Control": "no-store"})
    headers["ETag"] = etag
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if etag in known:
        return Response(status_code=304, headers=headers)
    return Response(content(reader), 200, headers, kind)


def _rows(answer: Answer) -> bytes:
    part, page = answer.rows, answer.page
    after = page.offset + len(part.rows) if page else part.total
    return _as_json(answer.head() | {"next_offset": after if after < part.total else None} | part.told())


def _parts(answer: Answer) -> bytes:
    return _as_json(answer.head() | {"parts": answer.told_parts()})


def _as_json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, default=str).encode()


def _table(answer: Answer) -> bytes:
    names = [column.name for column in answer.rows.columns]
    return as_csv(names, ([row[name] for name in names] for row in answer.rows.rows))


def _refused(error: Exception) -> JSONResponse:
    if isinstance(error, _NoTokenError):
        text = "show a token: `Authorization: Bearer ...`; `usage-pipeline tokens add NAME` makes one"
        return JSONResponse({"error": text}, 401, {"WWW-Authenticate": "Bearer"})
    if isinstance(error, _TooFastError):
        seconds = max(1, round(error.seconds + 0.5))
        return JSONResponse({"error": f"too many requests: wait {seconds} s"}, 429, {"Retry-After": str(seconds)})
    return JSONResponse({"error": str(error)}, _STATUSES[type(error)])


def _not_understood(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"][1:])
        if problem["type"] == "extra_forbidden":
            problems.append(f"there is no parameter '{name}': /docs lists those of this address")
        else:
            problems.append(f"{name}: {problem['msg']}")
    return JSONResponse({"error": "; ".join(problems)}, 422)
