"""What of a request is not taken at its word: the name of this server, and where a log-in leads to.

Belongs here: what is asked of every request, whoever sends it. Does not: rights (`usage_security.py`).
"""

from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from flask import abort, request

# where no names are given: this machine, as it calls itself
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
# no database of ours knows log-ins of other services, and the address falls over what it lacks, logged in or not
_CLOSED = ("/api/v1/database/oauth2/",)
_LOGIN = "/login/"


def guard_requests(app: Any, hosts: list[str]) -> None:
    """Answers to no other name than `hosts` (loopback where there are none), leads nowhere but to paths of ours."""
    known = {host.lower() for host in hosts or LOOPBACK}

    @app.before_request
    def refuse_unknown_names() -> None:
        if request.path != "/health" and _name_in(request.host) not in known:
            abort(400, "unknown host")

    @app.before_request
    def close_what_is_not_used() -> None:
        if request.path.rstrip("/") + "/" in _CLOSED:
            abort(404)

    @app.after_request
    def lead_on_to_a_path(response: Any) -> Any:
        target = urlsplit(response.headers.get("Location", ""))
        if target.path == _LOGIN and (wanted := parse_qs(target.query).get("next")):
            response.headers["Location"] = f"{_LOGIN}?next={quote(path_of(wanted[0]), safe='/')}"
        return response


def path_of(address: str) -> str:
    """Path and query of an address, which no browser takes for another host."""
    parts = urlsplit(address)
    path = "/" + parts.path.replace("\\", "/").lstrip("/")
    return f"{path}?{parts.query}" if parts.query else path


def _name_in(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()
