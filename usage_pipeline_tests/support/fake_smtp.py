"""A real mail server and a real webhook for tests: what they were given is kept, and they refuse what they are told to."""

import datetime
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from usage_pipeline_tests.support.servers import free_port

USER, PASSWORD = "usage", "a password of the mail server"


@dataclass
class FakeSmtp:
    """What aiosmtpd asks: keeps each mail, refuses those of `refused`."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    refusal: str = "550 no such user here"
    goodbye: str = "221 bye"

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        if address in self.refused:
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        made: EmailMessage = message_from_bytes(envelope.content, policy=policy.default)  # type: ignore[assignment]
        made["X-Recipients"] = ", ".join(envelope.rcpt_tos)
        self.mails.append(made)
        return "250 taken"

    async def handle_QUIT(self, _server: Any, _session: Any, _envelope: Any) -> str:  # noqa: N802
        return self.goodbye

    def to(self, address: str) -> list[EmailMessage]:
        return [mail for mail in self.mails if address in mail["X-Recipients"]]


@contextmanager
def serving_mail(*, certificate: Path | None = None, starttls: bool = False, login: bool = False) -> Iterator[FakeSmtp]:
    """A mail server on a free port: plain, with STARTTLS, or with TLS from the start."""
    office = FakeSmtp(free_port())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if certificate else None
    if context:
        context.load_cert_chain(certificate)

    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: LoginPassword) -> AuthResult:
        return AuthResult(success=given == LoginPassword(USER.encode(), PASSWORD.encode()), handled=False)

    options: dict[str, Any] = (
        {"authenticator": check, "auth_required": True, "auth_require_tls": False} if login else {}
    )
    if starttls:
        options |= {"tls_context": context, "require_starttls": True}
    controller = Controller(
        office,
        "127.0.0.1",
        office.port,
        ssl_context=None if starttls else context,
        server_hostname="localhost",
        **options,
    )

    def knock() -> None:
        # the server exists once somebody has come; aiosmtpd's own knock knows no certificate of a test
        trusting = ssl._create_unverified_context()  # noqa: S323
        with socket.create_connection(("127.0.0.1", office.port), 5) as plain, trusting.wrap_socket(plain) as encrypted:
            encrypted.recv(100)

    if context and not starttls:
        controller._trigger_server = knock  # type: ignore[method-assign]
    controller.start()
    try:
        yield office
    finally:
        controller.stop()


def certificate_for(folder: Path, name: str) -> Path:
    """A certificate for a name, signed by itself, with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@dataclass
class Webhook:
    """What a server was posted: everything in `asked`, and what it took in `bodies`."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    answer: int = 200
    # before `answer`, one a request; 0 ends the connection without an answer
    first_answers: list[int] = field(default_factory=list)
    asked: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)


@contextmanager
def serving_webhook() -> Iterator[Webhook]:
    hook = Webhook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = hook.first_answers.pop(0) if hook.first_answers else hook.answer
            hook.asked.append((self.headers, body))
            if answer == 200:
                hook.bodies.append(json.loads(body))
            if answer == 0:
                return
            self.send_response(answer)
            if 300 <= answer < 400:
                self.send_header("Location", f"{hook.url}/elsewhere")
            self.end_headers()
            self.wfile.write(b"ok")  # by which some services say that they have taken it

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_port}/hooks/secret-part"
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
