"""What one request may take, and one person: time, a worker, queries, steps, rows.

Time: `USAGE_QUERY_SECONDS` are for a whole request, from the moment a worker takes it, however many queries it holds.
Whatever still runs when they are over is interrupted in DuckDB; a worker that does not come back is ended from outside
(`serve.py`), since neither pandas nor a loop inside one function call can be interrupted from within.

A worker: one person holds one. A second request of his is sent back before anything is read, with 429 and who he is;
`serve.py` lets it wait in his line, which holds no worker, and asks again. A lock on a file a person says who holds
one: the system lets go of it when a worker ends, however it ends.

Size: readers ask for no more queries, steps and rows than the stored charts of the dataset do.
"""

import fcntl
import hashlib
import hmac
import json
import os
import time
from functools import lru_cache
from typing import Any

from flask import Response, g, has_request_context, request

from usage_superset.chart_queries import queries

PERSON = "X-Usage-Person"
BUSY = "X-Usage-Busy"
# of those who may explore: far above what the editor of charts makes, far below what takes a worker away
_MOST_QUERIES, _MOST_STEPS, _MOST_OFFSETS = 10, 50, 10
# a filter's choices are no chart
_ROWS_OF_CHOICES = 10_000
_MOST_ROWS = 100_000
# of kinds of charts that chart_queries.py does not know: those that people make
_UNKNOWN = (2, 8)


# ---------------------------------------------------------------- time


def seconds_left(seconds: float) -> float:
    """What is left to the request that a worker has of its seconds; where none is served, all of them.

    The set-up asks all charts inside one context that serves nobody.
    """
    if not has_request_context() or (began := g.get("usage_began")) is None:
        return seconds
    return float(max(0.0, began + seconds - time.monotonic()))


# ---------------------------------------------------------------- one person, one worker


def add_turns(app: Any, folder: str, secret: str) -> None:
    """Takes one request of a person at a time; another is answered 429 before anything is read."""
    os.makedirs(folder, mode=0o700, exist_ok=True)

    @app.before_request
    def take_turn() -> Response | None:
        g.usage_began = time.monotonic()
        person = None if request.path.startswith("/static/") else _person(secret)
        if person is None:
            return None
        g.usage_person = person
        lock = os.open(os.path.join(folder, person), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            busy = Response("another request of yours is still being answered\n", 429, mimetype="text/plain")
            busy.headers[BUSY] = "1"
            return busy
        g.usage_turn = lock
        return None

    # before all others: nothing is read for a request that has to wait
    mine = app.before_request_funcs[None]
    mine.insert(0, mine.pop())

    @app.after_request
    def say_whose(response: Response) -> Response:
        if person := g.get("usage_person"):
            response.headers[PERSON] = person
        return response

    @app.teardown_request
    def end_turn(_: Any) -> None:
        if (lock := g.pop("usage_turn", None)) is not None:
            os.close(lock)


def _person(secret: str) -> str | None:
    """Who asks, in a form that tells nobody else; None for somebody who is not logged in."""
    from flask import session
    from flask_jwt_extended import decode_token

    number = session.get("_user_id")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        try:
            number = decode_token(token.strip())["sub"]
        except Exception:  # whatever is wrong with it, Superset says so itself
            number = number or None
    if number is None:
        return None
    return hmac.new(secret.encode(), f"person {number}".encode(), hashlib.sha256).hexdigest()[:32]


# ---------------------------------------------------------------- size


def refusal_of_size(context: Any, stored: list[Any] | None) -> str | None:
    """Why a request for a chart's data is too large, or None.

    `stored` are the parameters (JSON) of the dataset's managed charts; None for those who may explore.
    """
    most_queries, most_steps, most_offsets, most_rows = _MOST_QUERIES, _MOST_STEPS, _MOST_OFFSETS, _MOST_ROWS
    if stored is not None:
        most_queries, most_steps, most_offsets, most_rows = _asked_by_charts(stored)
    if len(context.queries) > most_queries:
        return f"{len(context.queries)} queries in a request; {most_queries} are served"
    for query in context.queries:
        steps, offsets = len(query.post_processing or []), len(query.time_offsets or [])
        if steps > most_steps:
            return f"{steps} steps after a query; {most_steps} are served"
        if offsets > most_offsets:
            return f"{offsets} other times beside a query; {most_offsets} are served"
        # Superset has put a number where there was none
        if query.row_limit > most_rows:
            return f"{query.row_limit} rows; {most_rows} are served"
    return None


def _asked_by_charts(stored: list[Any]) -> tuple[int, int, int, int]:
    """Most queries, steps, other times and rows that one of the stored charts asks for."""
    most = (1, 0, 0, _ROWS_OF_CHOICES)
    for params in stored:
        most = tuple(map(max, most, _size_of(params or "{}")))  # type: ignore[assignment]
    return most


@lru_cache(maxsize=512)
def _size_of(params: str) -> tuple[int, int, int, int]:
    asked = json.loads(params)
    offsets = asked.get("time_compare") or []
    count = len(offsets) if isinstance(offsets, list) else 1
    rows = int(asked.get("row_limit") or 0)
    try:
        made = queries(asked)
    except (KeyError, TypeError, ValueError):
        return *_UNKNOWN, count, rows
    return len(made), max(len(query.get("post_processing") or []) for query in made), count, rows
