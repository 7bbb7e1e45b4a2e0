"""The server that people reach: takes requests in, lets people wait in line, and hands them to gunicorn's workers.

`python -m usage_superset.serve --bind 127.0.0.1:8088 --workers 2`. A worker answers one request at a time, so whoever
holds all of them takes all pages away. Here a request waits without holding one, behind the other requests of its
person, and the persons take turns; a worker is given a request whole and its answer is taken from it whole, so that
nobody holds one by sending or reading slowly. A worker that has a request for longer than it may is killed, and the
spare one, which has stood ready, takes its place. `/health` is answered here, with what the workers do.

What somebody may ask for is none of its business: it only learns from the workers who sent a request
(`request_limits.py`). Everything lives in this one process; gunicorn is its child, on a socket that only we can enter.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, UnixConnector, web
from yarl import URL

HERE = Path(__file__).parent
PERSON, BUSY, NUMBER = "X-Usage-Person", "X-Usage-Busy", "X-Usage-Request"
# what belongs to one connection and not to what is sent over it
_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
_HOP |= {"upgrade", "content-length", "expect"}
# what nobody outside may say
_OURS = {PERSON.lower(), BUSY.lower(), NUMBER.lower()}
# after DuckDB was interrupted, a worker has so long to say so
_GRACE_SECONDS = 2
# a page asks for some forty things at once; more than that is nobody's page
_MOST_IN_LINE = 200
_MOST_BYTES = 20 * 2**20
_MOST_KNOWN = 10_000
_TRY_AGAIN_SECONDS = 0.2


class EndedError(Exception):
    """The worker did not come back in time, and was ended."""


@dataclass
class Lines:
    """Who waits for what: a line for each person, and the workers' places, given to the lines in turn."""

    workers: int
    places: asyncio.Semaphore = field(init=False)
    # by person: the lock of his line, and how many stand in it
    lines: dict[str, tuple[asyncio.Lock, list[int]]] = field(default_factory=dict)
    # what a cookie or token is known to belong to
    persons: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.places = asyncio.Semaphore(self.workers)

    def learn(self, key: str, person: str) -> None:
        self.persons[key] = person
        self.persons.move_to_end(key)
        if len(self.persons) > _MOST_KNOWN:
            self.persons.popitem(last=False)

    @asynccontextmanager
    async def in_line(self, person: str) -> AsyncIterator[bool]:
        """The person's turn; gives False, without waiting, where his line is too long."""
        lock, waiting = self.lines.setdefault(person, (asyncio.Lock(), [0]))
        if waiting[0] >= _MOST_IN_LINE:
            yield False
            return
        waiting[0] += 1
        try:
            async with lock:
                yield True
        finally:
            waiting[0] -= 1
            if not waiting[0]:
                self.lines.pop(person, None)


class Front:
    """One server: its gunicorn, and what it is doing."""

    def __init__(self, workers: int, seconds: float, folder: Path) -> None:
        self.lines = Lines(workers)
        self.workers, self.seconds, self.folder = workers, seconds, folder
        self.ended = self.served = 0
        # number of a request that a worker has -> when it was given
        self.busy: dict[str, float] = {}
        self.numbers = iter(range(1, 2**62))

    async def open(self, _: web.Application) -> AsyncIterator[None]:
        connector = UnixConnector(str(self.folder / "workers.sock"), limit=0, force_close=True)
        self.client = ClientSession(
            connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False, timeout=ClientTimeout(total=None)
        )
        yield
        await self.client.close()

    # ------------------------------------------------------------ /health

    async def health(self, _: web.Request) -> web.Response:
        """What the workers do, and for how many seconds they have been at it; 503 until the first one is there."""
        now = time.monotonic()
        in_line = sum(waiting[0] for _, waiting in self.lines.lines.values())
        is_ready = (self.folder / "ready").exists()
        told = {
            "workers": self.workers,
            "busy_seconds": sorted((round(now - since, 1) for since in self.busy.values()), reverse=True),
            "waiting": max(0, in_line - len(self.busy)),
            "served": self.served,
            "ended": self.ended,
            "ready": is_ready,
        }
        return web.json_response(told, status=200 if is_ready else 503)

    # ------------------------------------------------------------ everything else

    async def pass_on(self, asked: web.Request) -> web.StreamResponse:
        body = await asked.read()
        if asked.path.startswith("/static/"):  # files of Superset's own: a moment each, and nobody's turn
            return _without_signs(await self._answer(asked, body))
        key = _key_of(asked)
        for _ in range(2):
            line = self.lines.persons.get(key, key)
            async with self.lines.in_line(line) as may:
                if not may:
                    return _plain(429, "too many requests of yours wait already")
                if asked.transport is None or asked.transport.is_closing():
                    return _plain(408, "nobody waits for this any more")
                answer = await self._answer(asked, body)
                person = answer.headers.get(PERSON)
                if person and key != _address_of(asked):
                    self.lines.learn(key, person)
                if BUSY not in answer.headers or person == line:
                    return _without_signs(answer)
                # somebody whose cookie was not known yet, and who holds a worker: into his own line
        return _without_signs(answer)

    async def _answer(self, asked: web.Request, body: bytes) -> web.Response:
        """What a worker says, asked again for as long as a request of the same person holds one, up to the limit."""
        give_up = time.monotonic() + self.seconds + 2 * _GRACE_SECONDS
        while True:
            try:
                answer = await self._ask_worker(asked, body)
            except EndedError:
                return _plain(504, f"this took longer than {self.seconds:.0f} seconds, and was ended")
            except (ClientError, ConnectionError, OSError):
                return _plain(502, "the server could not answer; try again")
            is_known = answer.headers.get(PERSON) == self.lines.persons.get(_key_of(asked))
            if BUSY not in answer.headers or not is_known or time.monotonic() > give_up:
                return answer
            await asyncio.sleep(_TRY_AGAIN_SECONDS)

    async def _ask_worker(self, asked: web.Request, body: bytes) -> web.Response:
        async with self.lines.places:
            number = str(next(self.numbers))
            self.busy[number] = time.monotonic()
            try:
                async with asyncio.timeout(self.seconds + _GRACE_SECONDS):
                    headers = _headers_for(asked, number)
                    # to the letter: what a path means is for Superset to say
                    url = URL("http://workers" + asked.raw_path, encoded=True)
                    async with self.client.request(
                        asked.method, url, headers=headers, data=body or None, allow_redirects=False
                    ) as got:
                        content = await got.read()
            except TimeoutError as error:
                self._end_worker_of(number)
                raise EndedError from error
            finally:
                self.busy.pop(number, None)
                self.served += 1
        kept = got.headers.copy()
        for name in _HOP:
            kept.popall(name, None)
        return web.Response(status=got.status, body=content, headers=kept)

    def _end_worker_of(self, number: str) -> None:
        """Kills the worker that has this request, and none where it has been answered meanwhile."""
        for file in (self.folder / "busy").iterdir():
            with suppress(OSError):
                if file.read_text() == number:
                    os.kill(int(file.name), signal.SIGKILL)
                    self.ended += 1
                    print(f"serve: ended worker {file.name}, request {number}", flush=True)


def _address_of(asked: web.Request) -> str:
    return f"address {asked.headers.get('X-Forwarded-For', '')} {asked.remote}"


def _key_of(asked: web.Request) -> str:
    """What is known of somebody before a worker has looked: cookie or token, else address."""
    if shown := asked.headers.get("Authorization"):
        return f"token {hash(shown)}"
    if cookie := asked.cookies.get("session"):
        return f"cookie {hash(cookie)}"
    return _address_of(asked)


def _headers_for(asked: web.Request, number: str) -> list[tuple[str, str]]:
    # gunicorn would take a name with _ for one of its own
    dropped = _HOP | _OURS | {"x-forwarded-for"}
    kept = [(n, v) for n, v in asked.headers.items() if n.lower() not in dropped and "_" not in n]
    before = asked.headers.getall("X-Forwarded-For", [])
    return [*kept, ("X-Forwarded-For", ", ".join([*before, asked.remote or "unknown"])), (NUMBER, number)]


def _without_signs(answer: web.Response) -> web.Response:
    """The answer as it goes out: who asked is between the workers and this process."""
    for name in (PERSON, BUSY):
        answer.headers.popall(name, None)
    return answer


def _plain(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=message + "\n")


# ---------------------------------------------------------------- processes


async def serve(host: str, port: int, workers: int, options: list[str]) -> int:
    """Runs until gunicorn ends or this is told to stop; returns what it ended with."""
    seconds = float(os.environ.get("USAGE_QUERY_SECONDS", "").strip() or 30)
    with tempfile.TemporaryDirectory(prefix="usage-superset-") as made:
        folder = Path(made)
        (folder / "busy").mkdir()
        (folder / "turns").mkdir()
        front = Front(workers, seconds, folder)
        app = web.Application(client_max_size=_MOST_BYTES)
        app.cleanup_ctx.append(front.open)
        app.router.add_get("/health", front.health)
        app.router.add_route("*", "/{path:.*}", front.pass_on)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        await runner.setup()
        gunicorn = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("gunicorn")), "--workers", str(workers + 1), "--threads", "1"),
            *("--timeout", "120", "--no-control-socket", "--config", str(HERE / "gunicorn_config.py")),
            *("--bind", f"unix:{folder / 'workers.sock'}", *options, "superset.app:create_app()"),
            env=os.environ | {"USAGE_SERVE_FOLDER": made},
        )
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
            ends = asyncio.create_task(gunicorn.wait())
            stops = asyncio.create_task(stop.wait())
            await asyncio.wait({ends, stops}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            with suppress(ProcessLookupError):
                gunicorn.terminate()
            await gunicorn.wait()
            await runner.cleanup()
    return 0 if stop.is_set() else gunicorn.returncode or 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bind", required=True, help="host:port")
    parser.add_argument("--workers", type=int, default=2, help="requests that are answered at once")
    asked, options = parser.parse_known_args()
    # of gunicorn's own setting its workers take no notice
    os.umask(0o077)
    host, _, port = asked.bind.rpartition(":")
    return asyncio.run(serve(host, int(port), asked.workers, options))


if __name__ == "__main__":
    sys.exit(main())
