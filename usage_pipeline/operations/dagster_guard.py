"""What stands before Dagster's web server: which requests reach it, and who is behind them.

Dagster's own server runs mutations that come by GET or as a form, and asks neither for which name nor from which page a
request comes: any page that an engineer opens could drive it. So here only what Dagster's own pages send goes through.

Belongs here: judging requests, headers of answers, the log-in. Does not: what Dagster does with a request. Whoever may
look and not write is marked as such; Dagster itself refuses their mutations (`webserver.py`).
"""

import hmac
import html
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEALTH, LOGIN, GRAPHQL = "/health", "/usage/login", "/graphql"
SECRET_HEADER = "X-Usage-Proxy-Secret"  # noqa: S105 - the name of a header
# where the webserver finds who is behind a request
VISITOR = "usage.visitor"
_PASSWORD_LENGTH = 12
_SESSION_SECONDS = 8 * 3600
_FREE_FAILURES = 3
_LONGEST_WAIT = 60
_FORGOTTEN_SECONDS = 900
_MOST_ADDRESSES = 1000
_MOST_BYTES = 4096

_HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# beside the policy of Dagster's own pages: browsers hold both
_POLICY = "frame-ancestors 'none'; form-action 'self'"


class GuardError(Exception):
    """A setting of the guard is missing or wrong; the message names each, and the remedy."""


# ---------------------------------------------------------------- settings


@dataclass(frozen=True)
class Policy:
    """Which names the server answers to, and who may do what."""

    hosts: frozenset[str] = LOOPBACK
    password: str = ""
    user_header: str = ""
    proxy_secret: str = ""
    # may write, of those that a proxy names; empty: all of them
    admins: frozenset[str] = frozenset()
    read_only: bool = False
    https: bool = False

    @property
    def asks_for_login(self) -> bool:
        return bool(self.password or self.user_header)


def policy_from(environment: Mapping[str, str]) -> Policy:
    """Reads the settings USAGE_DAGSTER_... Raises GuardError with everything that is wrong."""

    def words(name: str) -> frozenset[str]:
        return frozenset(word.strip() for word in environment.get(name, "").split(",") if word.strip())

    def is_on(name: str) -> bool:
        return environment.get(name, "0") not in ("", "0")

    policy = Policy(
        hosts=LOOPBACK | {host.lower() for host in words("USAGE_DAGSTER_HOSTS")},
        password=environment.get("USAGE_DAGSTER_PASSWORD", ""),
        user_header=environment.get("USAGE_DAGSTER_USER_HEADER", ""),
        proxy_secret=environment.get("USAGE_DAGSTER_PROXY_SECRET", ""),
        admins=words("USAGE_DAGSTER_ADMINS"),
        read_only=is_on("USAGE_DAGSTER_READ_ONLY"),
        https=is_on("USAGE_HTTPS"),
    )
    if problems := _problems_of(policy):
        raise GuardError("\n".join(problems))
    return policy


def _problems_of(policy: Policy) -> list[str]:
    problems = [
        f"USAGE_DAGSTER_HOSTS: {host!r} is no name of a host: write names without scheme and port, with commas"
        for host in sorted(policy.hosts - LOOPBACK)
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", host)
    ]
    if policy.password and len(policy.password) < _PASSWORD_LENGTH:
        problems.append(f"USAGE_DAGSTER_PASSWORD: it is short: {_PASSWORD_LENGTH} characters or more")
    if policy.user_header and len(policy.proxy_secret) < _PASSWORD_LENGTH:
        problems.append(
            "USAGE_DAGSTER_USER_HEADER: anybody could send that header: let the proxy prove itself with the header "
            f"{SECRET_HEADER}, and set USAGE_DAGSTER_PROXY_SECRET to it ({_PASSWORD_LENGTH} characters or more)"
        )
    if policy.admins and not policy.user_header:
        problems.append("USAGE_DAGSTER_ADMINS: nobody is known by name without USAGE_DAGSTER_USER_HEADER")
    return problems


# ---------------------------------------------------------------- requests


class Refusal(NamedTuple):
    status: int
    message: str


def refusal_of(policy: Policy, scope: Scope) -> Refusal | None:
    """Why a request or a websocket goes no further, whoever sends it; None where it may."""
    headers = Headers(scope=scope)
    repeated = [name for name in ("host", "origin", "content-type") if len(headers.getlist(name)) > 1]
    if repeated:
        return Refusal(400, f"{repeated[0]} was sent more than once")
    host = headers.get("host", "").lower()
    if re.sub(r":\d+$", "", host) not in policy.hosts:
        return Refusal(421, "this server is not known by that name: USAGE_DAGSTER_HOSTS lists its names")
    if ".." in scope["path"].split("/"):
        return Refusal(400, "a path leads upward")
    origin = headers.get("origin")
    if origin is not None and not _is_same(origin, host):
        return Refusal(403, "the request comes from another site")
    site = headers.get("sec-fetch-site", "none")
    if scope["type"] == "websocket":
        return _refusal_of_websocket(scope, origin, site)
    if scope["method"] in ("GET", "HEAD"):
        return _refusal_of_reading(scope, headers, site)
    return _refusal_of_writing(scope, headers, site)


def _is_same(origin: str, host: str) -> bool:
    """Whether a page comes from the very host and port that is asked. Behind a proxy the scheme is another one."""
    page = urlsplit(origin.lower())
    usual = {"http": ":80", "https": ":443"}.get(page.scheme)
    return usual is not None and page.netloc.removesuffix(usual) == host.removesuffix(usual) != ""


def _refusal_of_websocket(scope: Scope, origin: str | None, site: str) -> Refusal | None:
    if scope["path"] != GRAPHQL:
        return Refusal(404, "nothing listens there")
    if origin is None or site not in ("same-origin", "none"):
        return Refusal(403, "the websocket comes from another site, or does not say from which")
    return None


def _refusal_of_reading(scope: Scope, headers: Headers, site: str) -> Refusal | None:
    if scope["path"].rstrip("/") == GRAPHQL:
        return Refusal(405, "GraphQL takes POST with application/json, and nothing else")
    is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if site not in ("same-origin", "none") and not is_link:
        return Refusal(403, "another site may link here, and use nothing of it")
    return None


def _refusal_of_writing(scope: Scope, headers: Headers, site: str) -> Refusal | None:
    if scope["method"] != "POST":
        return Refusal(405, "the methods are GET, HEAD and POST")
    if site not in ("same-origin", "none"):
        return Refusal(403, "the request comes from another site")
    wanted = "application/x-www-form-urlencoded" if scope["path"] == LOGIN else "application/json"
    if headers.get("content-type", "").split(";")[0].strip().lower() != wanted:
        return Refusal(415, f"the body has to be {wanted}")
    return None


# ---------------------------------------------------------------- who it is


@dataclass(frozen=True)
class Visitor:
    """Who is behind a request: a name where a proxy says one."""

    name: str
    may_write: bool


@dataclass
class Patience:
    """Lets each address try a few passwords at once, and then fewer and fewer."""

    _failures: dict[str, tuple[int, float]] = field(default_factory=dict)

    def seconds_to_wait(self, address: str, now: float) -> float:
        count, last = self._failures.get(address, (0, now))
        if count < _FREE_FAILURES or now - last > _FORGOTTEN_SECONDS:
            return 0
        return max(0.0, last + min(2.0 ** (count - _FREE_FAILURES + 1), _LONGEST_WAIT) - now)

    def failed(self, address: str, now: float) -> None:
        known = {a: (n, last) for a, (n, last) in self._failures.items() if now - last <= _FORGOTTEN_SECONDS}
        while len(known) >= _MOST_ADDRESSES:
            known.pop(min(known, key=lambda a: known[a][1]))
        self._failures = known | {address: (known.get(address, (0, now))[0] + 1, now)}

    def succeeded(self, address: str) -> None:
        self._failures.pop(address, None)


class Sessions:
    """Cookies that say until when somebody is logged in, signed with a key that ends with this process."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def begin(self, now: float) -> str:
        until = f"{now + _SESSION_SECONDS:.0f}"
        return f"{until}.{self._sign(until)}"

    def is_valid(self, cookie: str, now: float) -> bool:
        until, _, signature = cookie.partition(".")
        return _equal(signature, self._sign(until)) and until.isdigit() and now < int(until)

    def _sign(self, until: str) -> str:
        return hmac.digest(self._key, until.encode("utf-8", "replace"), "sha256").hex()


def _equal(one: str, other: str) -> bool:
    """Takes the same time wherever they differ."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


# ---------------------------------------------------------------- the guard


class Guard:
    """An ASGI application around Dagster's: passes on what may go through, marked with who sends it."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app, self._policy = app, policy
        self._sessions, self._patience = Sessions(), Patience()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = await self._answer(scope, receive)
        if answer is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            # before it is accepted, this is answered with 403
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, _with_headers(send))

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """The guard's own answer; None where Dagster is to answer."""
        if refusal := refusal_of(self._policy, scope):
            return PlainTextResponse(refusal.message + "\n", refusal.status)
        if scope["type"] == "http" and scope["path"] == HEALTH:
            return PlainTextResponse("ok\n")
        connection = HTTPConnection(scope)
        if scope["type"] == "http" and scope["path"] == LOGIN and self._policy.password:
            return await self._log_in(Request(scope, receive))
        visitor = self._visitor(connection)
        if visitor is None:
            return self._ask(connection)
        scope[VISITOR] = visitor
        return None

    def _visitor(self, connection: HTTPConnection) -> Visitor | None:
        policy = self._policy
        if not policy.asks_for_login:
            return Visitor("", may_write=not policy.read_only)
        if policy.user_header and (name := self._name_from_proxy(connection.headers)):
            may_write = not policy.admins or name in policy.admins
            return Visitor(name, may_write=may_write and not policy.read_only)
        if policy.password and (self._has_session(connection) or self._has_key(connection)):
            return Visitor("", may_write=not policy.read_only)
        return None

    def _name_from_proxy(self, headers: Headers) -> str:
        proofs, names = headers.getlist(SECRET_HEADER), headers.getlist(self._policy.user_header)
        is_proxy = len(proofs) == 1 and _equal(proofs[0], self._policy.proxy_secret)
        return names[0].strip() if is_proxy and len(names) == 1 else ""

    def _has_session(self, connection: HTTPConnection) -> bool:
        return self._sessions.is_valid(connection.cookies.get(_cookie(connection), ""), time.time())

    def _has_key(self, connection: HTTPConnection) -> bool:
        """Programs send the password with each request."""
        kind, _, given = connection.headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self._wait_after(connection, given) is None

    def _wait_after(self, connection: HTTPConnection, given: str) -> float | None:
        """None where the password is right, else the seconds until another one may be tried."""
        address, now = connection.client.host if connection.client else "", time.monotonic()
        if wait := self._patience.seconds_to_wait(address, now):
            return wait
        if _equal(given, self._policy.password):
            self._patience.succeeded(address)
            return None
        self._patience.failed(address, now)
        return self._patience.seconds_to_wait(address, now)

    def _ask(self, connection: HTTPConnection) -> Response:
        if not self._policy.password:
            return PlainTextResponse("come through the proxy, which says who you are\n", 401)
        headers = connection.headers
        if connection.scope["type"] != "http" or "text/html" not in headers.get("accept", ""):
            return PlainTextResponse("log in first\n", 401)
        path = connection.url.path + (f"?{connection.url.query}" if connection.url.query else "")
        if headers.get("sec-fetch-site", "none") in ("cross-site", "same-site"):
            # a link on another site brings no cookie along; the page asks again by itself, and then it comes
            return HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0">')
        return _login_page(path)

    async def _log_in(self, request: Request) -> Response:
        if request.method != "POST":
            return _login_page("/")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BYTES:
                return PlainTextResponse("that is too long\n", 413)
        form = parse_qs(body.decode("utf-8", "replace"))
        wanted = _own_path(form.get("next", ["/"])[0])
        wait = self._wait_after(request, form.get("password", [""])[0])
        if wait is not None:
            said = f"Try again in {wait:.0f} seconds." if wait else "This is not the password."
            return _login_page(wanted, said, 429 if wait else 401)
        answer = RedirectResponse(wanted, 303)
        answer.set_cookie(
            _cookie(request),
            self._sessions.begin(time.time()),
            max_age=_SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=self._policy.https,
        )
        return answer


def _cookie(connection: HTTPConnection) -> str:
    """Browsers keep cookies by host alone: another installation on this machine has another port."""
    server = connection.scope.get("server") or ("", 0)
    return f"usage_dagster_{server[1] or 0}"


def _own_path(path: str) -> str:
    """Where somebody wanted to go, if that is a page of ours."""
    return path if re.fullmatch(r"/(?![/\\])[^\\\x00-\x20]*", path) else "/"


def _login_page(path: str, said: str = "", status: int = 401) -> Response:
    return HTMLResponse(_LOGIN_PAGE.format(action=LOGIN, next=html.escape(path), said=html.escape(said)), status)


_LOGIN_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Log in</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 20rem; margin: 20vh auto; padding: 0 1rem; }}
input, button {{ font: inherit; width: 100%; box-sizing: border-box; padding: .4rem; margin-top: .5rem; }}
</style>
<h1>Pipeline</h1>
<form method="post" action="{action}">
<input type="hidden" name="next" value="{next}">
<label>Password <input type="password" name="password" autocomplete="current-password" autofocus required></label>
<p role="alert">{said}</p>
<button>Log in</button>
</form>
</html>
"""


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name in [name for name in headers if name.lower().startswith("access-control-")]:
                del headers[name]
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.append("Content-Security-Policy", _POLICY)
        await send(message)

    return sent
