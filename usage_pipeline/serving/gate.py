"""What every request passes before anything is read: the token, the pace, and the log.

Belongs here: who asks, how often, and a line of each request without personal data: program, route or tool, status,
milliseconds; no filters, no addresses. Does not: what a program may read (`access.py`).
"""

import logging
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from usage_pipeline.serving.access import Access
from usage_pipeline.serving.tokens import TokenError, TokenStore

logger = logging.getLogger("usage_pipeline.serving")
# what is open to everybody: it tells nothing of any build
DESCRIPTION = "/openapi.json"
_WHO_ASKS = "show a token that was not revoked: `Authorization: Bearer ...`; `usage-pipeline tokens add NAME` makes one"


class TooFastError(Exception):
    """A program asks more often than its pace allows; `seconds` until the next request is answered."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many requests: wait {seconds:.1f} s, or start the server with a higher --per-minute")
        self.seconds = seconds


class Pace:
    """How often each program may ask: `per_minute` on average, as many at once after a pause (a token bucket)."""

    def __init__(self, per_minute: int) -> None:
        self._most, self._per_second = float(per_minute), per_minute / 60
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def count(self, program: str) -> None:
        """Counts a request. Raises TooFastError."""
        with self._lock:
            now = time.monotonic()
            left, at = self._left.get(program, (self._most, now))
            left = min(self._most, left + (now - at) * self._per_second)
            if left < 1:
                raise TooFastError((1 - left) / self._per_second)
            self._left[program] = (left - 1, now)


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A refusal in the form of RFC 9457: status, title, and a sentence with the remedy."""
    content = {"status": status, "title": HTTPStatus(status).phrase, "detail": detail}
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def access_of(request: Request) -> Access:
    """The program behind a request that has passed the gate."""
    access: Access = request.scope["state"]["access"]
    return access


class Gate:
    """Lets requests with a token through, as often as a program may ask, and writes each down."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], tokens: TokenStore, pace: Pace) -> None:
        self._app, self._routes, self._tokens, self._pace = app, routes, tokens, pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        method = scope["method"]
        # what GET would answer, without its body
        is_head = method == "HEAD" and scope["path"].startswith("/v1/")
        if is_head:
            scope = dict(scope) | {"method": "GET"}

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            is_body = message["type"] == "http.response.body"
            await send(dict(message) | {"body": b""} if is_head and is_body else message)

        is_open = scope["path"] == DESCRIPTION
        try:
            answer: ASGIApp = self._app if is_open else self._refusal_of(scope) or self._app
            await answer(scope, receive, watched)
        finally:
            program = scope.get("state", {}).get("program", "nobody")
            log_line(program, f"{method} {self._address_of(scope)}", status, started)

    def _address_of(self, scope: Scope) -> str:
        """The address as it is written in the code: an account's name is in no log."""
        found = (route for route in self._routes if route.matches(scope)[0] is not Match.NONE)
        return str(getattr(next(found, None), "path_format", "(no such address)"))

    def _refusal_of(self, scope: Scope) -> Response | None:
        """Nothing for a program that may ask now, whose rights are put into the scope's state."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        if b"origin" in headers:
            return problem(403, "this is for programs: a page in a browser may not ask")
        kind, _, secret = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        try:
            token = self._tokens.find(secret.strip()) if kind.lower() == "bearer" else None
            if token is None:
                return problem(401, _WHO_ASKS, {"WWW-Authenticate": "Bearer"})
            state = scope.setdefault("state", {})
            state["program"] = token.name
            self._pace.count(token.name)
            state["access"] = token.access
        except TokenError as error:
            # which file, and what is wrong with it, is for the operator alone
            logger.error("%s", error)
            return problem(503, "tokens cannot be read: the log of the server says why")
        except TooFastError as error:
            return problem(429, str(error), {"Retry-After": str(int(error.seconds) + 1)})
        return None


def log_line(program: str, what: str, status: int | str, started: float) -> None:
    """`what`: a route or a tool, without values; `started`: of time.perf_counter."""
    logger.info("%s %s %s %.0f ms", program, what, status, 1000 * (time.perf_counter() - started))
