"""A network that fails on demand: an HTTP proxy before the S3 server of the tests.

Belongs here: the faults, by key of an object and by number of times. Does not: what a reader is to make of them
(`test_network_faults.py`). It runs in the process of the test, and so the reader has to run in another: DuckDB holds
Python's lock in places while it waits for the store.
"""

import http.client
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Kind = Literal[
    "cut off",  # the body ends after `after` bytes, and with it the connection
    "closed",  # the connection ends before the answer
    "late",  # the answer comes after `seconds`
    "stalled",  # half of the body comes, the other after `seconds`
    "status",  # an answer of `status`, with S3's `code`
    "length too large",  # Content-Length promises more than comes
    "length too small",  # Content-Length promises less: the rest is not sent
    "other etag",  # the ETag that was listed is not the one that is answered
    "etag of head only",  # HEAD answers another ETag than GET and the list
    "etag of list only",  # the list answers another ETag than HEAD and GET
    "etag of each request",  # no two answers have one ETag
    "etag in no ascii",  # an ETag of other bytes than ASCII, always the same
    "rewritten",  # after `after` GETs of it somebody writes the object anew: `rewrite` does
    "no ranges",  # a range is asked for, the whole is sent
]
_OF_BODIES = ("cut off", "stalled", "length too large", "length too small", "no ranges", "rewritten")
_NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length", "etag", "date", "server"}
OTHER = '"0123456789abcdef0123456789abcdef"'
NO_ASCII = '"cafe\xe9"'


@dataclass
class Fault:
    """Something that goes wrong with the first `times` requests for objects whose key holds `key`; None: with all.

    `of_list`: it goes wrong with lists of objects, those whose prefix holds `key`.
    """

    kind: Kind
    key: str
    times: int | None = None
    after: int = 0
    seconds: float = 3
    status: int = 503
    code: str = "SlowDown"
    rewrite: Callable[[], object] | None = None
    of_list: bool = False
    struck: int = 0

    def strikes(self, method: str) -> bool:
        """Whether a request for the object meets the fault; counts it."""
        if self.of_list or self.kind == "etag of list only" or (self.kind in _OF_BODIES and method == "HEAD"):
            return False
        if self.kind == "etag of head only" and method != "HEAD":
            return False
        return self._is_due()

    def strikes_list(self, prefix: str) -> bool:
        """Whether a request for a list meets the fault; counts it."""
        return self.of_list and self.key in prefix and self._is_due()

    def changes_list(self) -> bool:
        """Whether the object stands in lists with another ETag."""
        if self.kind == "etag of list only":
            return self._is_due()
        return self.times is None and self.kind in ("etag of each request", "etag in no ascii")

    def _is_due(self) -> bool:
        if self.times is not None and self.struck >= self.times:
            return False
        self.struck += 1
        return True


@dataclass
class FaultyStore:
    """The address that a reader is given, the faults that it meets, and what was asked for (method, path)."""

    url: str
    upstream: str
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    number: int = 0

    def asked_for(self, key: str) -> int:
        """How many requests an object that holds `key` got."""
        return sum(key in urllib.parse.unquote(path.partition("?")[0]) for _, path in self.asked)

    def next_etag(self) -> str:
        with self.lock:
            self.number += 1
            return f'"{self.number:032x}"'


@dataclass
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    etag: str | None
    length: int


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: FaultyStore

    def log_message(self, *_: object) -> None:
        """Says nothing: what was asked for stands in `asked`."""

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        try:
            self._answer()
        except OSError:
            self.close_connection = True  # whoever asked has given up waiting

    def _upstream(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> _Answer:
        address = urllib.parse.urlsplit(self.store.upstream)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            passed = [(k, v) for k, v in answer.getheaders() if k.lower() not in _NOT_PASSED_ON]
            length = int(answer.getheader("Content-Length") or len(content))
            return _Answer(answer.status, passed, content, answer.getheader("ETag"), length)
        finally:
            connection.close()

    def _answer(self) -> None:
        store = self.store
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        path, _, query = self.path.partition("?")
        key = urllib.parse.unquote(path)
        is_list = key.strip("/").count("/") == 0  # /bucket?prefix=... and not /bucket/key
        prefix = "".join(urllib.parse.parse_qs(query).get("prefix", []))
        with store.lock:
            store.asked.append((self.command, self.path))
            struck = (f for f in store.faults if (f.strikes_list(prefix) if is_list else self._is_struck(f, key)))
            fault = next(struck, None)
        if fault is not None and self._refuse(fault):
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        if fault is not None and fault.kind == "no ranges":
            headers = {k: v for k, v in headers.items() if k.lower() != "range"}
        answer = self._upstream(self.command, self.path, headers, sent)
        if is_list and self.command == "GET":
            self._change_etags(answer)
        self._send_object(answer, fault)

    def _is_struck(self, fault: Fault, key: str) -> bool:
        return fault.key in key and fault.strikes(self.command)

    def _refuse(self, fault: Fault) -> bool:
        """Whether nothing is to be passed on; an answer that comes late is."""
        if fault.kind == "closed":
            self.close_connection = True
            return True
        if fault.kind == "late":
            time.sleep(fault.seconds)
            return False
        if fault.kind != "status":
            return False
        body = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>no</Message></Error>".encode()
        refusal = _Answer(fault.status, [("Content-Type", "application/xml")], body, None, len(body))
        self._send(refusal, body if self.command != "HEAD" else b"")
        return True

    def _change_etags(self, answer: _Answer) -> None:
        """Gives objects another ETag in a list, where a fault says so."""
        listed = urllib.parse.unquote_to_bytes(answer.body)
        for fault in [f for f in self.store.faults if f.key.encode() in listed and f.changes_list()]:
            etag = {"etag in no ascii": NO_ASCII, "etag of each request": self.store.next_etag()}.get(fault.kind, OTHER)
            escaped = etag.replace('"', "&quot;").encode()
            parts = answer.body.split(b"<Contents>")
            for number, part in enumerate(parts):
                before, found, rest = part.partition(b"<ETag>")
                if number and found and fault.key.encode() in urllib.parse.unquote_to_bytes(before):
                    parts[number] = before + found + escaped + rest[rest.index(b"</ETag>") :]
            answer.body = b"<Contents>".join(parts)
            answer.length = len(answer.body)

    def _send_object(self, answer: _Answer, fault: Fault | None) -> None:
        body, kind = answer.body, fault.kind if fault else None
        if kind in ("other etag", "etag of head only"):
            answer.etag = OTHER
        if kind == "etag of each request":
            answer.etag = self.store.next_etag()
        if kind == "etag in no ascii":
            answer.etag = NO_ASCII
        if kind == "no ranges":
            answer.headers = [(k, v) for k, v in answer.headers if k.lower() != "accept-ranges"]
        if kind == "length too large":
            answer.length += 1000
        if kind == "length too small":
            answer.length = max(0, answer.length - 100)
            body = body[: answer.length]
        self._rewrite(fault)
        pause = 0.0
        if fault is not None and kind == "cut off":
            body = body[: fault.after]
        if fault is not None and kind == "stalled":
            pause = fault.seconds
        self._send(answer, body, pause)
        if kind in ("cut off", "length too large"):
            self.close_connection = True

    def _rewrite(self, fault: Fault | None) -> None:
        """Lets the object be written anew, before the last of the old body is sent."""
        if fault is not None and fault.rewrite is not None and fault.struck == fault.after:
            fault.rewrite()

    def _send(self, answer: _Answer, body: bytes, pause: float = 0) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.etag is not None:
            self.send_header("ETag", answer.etag)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        if pause:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(pause)
            body = body[len(body) // 2 :]
        self.wfile.write(body)
        self.wfile.flush()


@contextmanager
def faulty_store(upstream: str) -> Iterator[FaultyStore]:
    """A proxy before the store at `upstream`, on a free port of this machine; without faults it passes all on."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    store = FaultyStore(f"http://127.0.0.1:{server.server_port}", upstream)
    handler.store = store  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
