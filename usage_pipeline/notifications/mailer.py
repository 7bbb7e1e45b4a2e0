"""Handing over what is to be said: mail to an SMTP server, alerts to a webhook.

Belongs here: connections, and what is wrong with them in words, with the remedy. Does not: what is written
(`digest.py`, `alerts.py`) and who it goes to. Passwords and the address of a webhook are in no message.

A mail is sent when the server has taken it. Each has one recipient: one that is refused keeps nothing from others.
"""

import http.client
import re
import smtplib
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any
from urllib.parse import urlsplit

from usage_pipeline.config.settings import MailSettings

# of the replies to a recipient (RFC 5321, 4.2.3), but for those that tell of the server's rules (RFC 3463, X.7)
_NO_MAILBOX = re.compile(r"(550|551|553) (?!5\.7\.)")


class DeliveryError(Exception):
    """Something could not be handed over; the message says what is wrong, and the remedy."""


class RecipientError(DeliveryError):
    """The server is well, and does not take this one mail; `is_final` where it knows no such mailbox."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final


def one_line(text: str) -> str:
    """Text for a header or a line: whatever breaks a line is a space, so that no name can begin a header of its own."""
    return " ".join(text.split())


def message(
    mail: MailSettings, to: str, subject: str, text: str, html: str = "", *, message_id: str = ""
) -> EmailMessage:
    """A mail in plain text, and in HTML where given. One with the same `message_id` is shown once by many programs."""
    made = EmailMessage()
    sender = str(mail.from_address)
    made["From"] = sender
    made["To"] = to
    made["Subject"] = one_line(subject)
    made["Date"] = formatdate(localtime=False)
    domain = sender.rpartition("@")[2]
    made["Message-ID"] = f"<{message_id}@{domain}>" if message_id else make_msgid(domain=domain)
    # so that absence notes and other machines do not answer
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(text)
    if html:
        made.add_alternative(html, subtype="html")
    return made


def send(mail: MailSettings, made: EmailMessage) -> None:
    """Hands a mail to the server. Raises RecipientError where only this mail is refused, else DeliveryError."""
    with _told(mail), _connected(mail) as server:
        server.send_message(made)


@contextmanager
def _connected(mail: MailSettings) -> Iterator[smtplib.SMTP]:
    host, port, seconds = str(mail.host), mail.port_in_use, mail.timeout_seconds
    context = ssl.create_default_context()
    server = (
        smtplib.SMTP_SSL(host, port, timeout=seconds, context=context)
        if mail.security == "tls"
        else smtplib.SMTP(host, port, timeout=seconds)
    )
    try:
        if mail.security == "starttls":
            server.starttls(context=context)
        if mail.user and mail.password:
            server.login(mail.user, mail.password.get_secret_value())
        yield server
        with suppress(OSError):  # what was taken is taken, however the server says goodbye
            server.quit()
    finally:
        server.close()


@contextmanager
def _told(mail: MailSettings) -> Iterator[None]:
    """Says in words what is wrong with a server."""
    where = f"mail server {mail.host}, port {mail.port_in_use}"
    try:
        yield
    except smtplib.SMTPRecipientsRefused as error:
        address, reply = next(iter(error.recipients.items()))
        said = _reply(*reply)
        raise RecipientError(
            f"{where}, does not take mail for {address}: {said}: correct the address, or see what the server takes",
            is_final=bool(_NO_MAILBOX.match(said)),
        ) from error
    except smtplib.SMTPSenderRefused as error:
        said = _reply(error.smtp_code, error.smtp_error)
        remedy = "give mail.from_address one that the user may send as, and mail.user and mail.password if it asks"
        raise DeliveryError(f"{where}, takes no mail from {mail.from_address} ({said}): {remedy}") from error
    except smtplib.SMTPAuthenticationError as error:
        said = _reply(error.smtp_code, error.smtp_error)
        raise DeliveryError(
            f"{where}, refuses user and password ({said}): correct mail.user and mail.password"
        ) from error
    except smtplib.SMTPDataError as error:
        said = _reply(error.smtp_code, error.smtp_error)
        raise RecipientError(f"{where}, does not take this mail: {said}", is_final=False) from error
    except smtplib.SMTPNotSupportedError as error:
        if "STARTTLS" in str(error):
            raise DeliveryError(f"{where}, offers no STARTTLS: mail.security is tls, or another port") from error
        raise DeliveryError(
            f"{where}: {error}: leave mail.user and mail.password out, or choose another port"
        ) from error
    except ssl.SSLCertVerificationError as error:
        remedy = (
            "name the server in mail.host as its certificate does; where your own authority has signed it, "
            "name the authority's file in the environment variable SSL_CERT_FILE"
        )
        raise DeliveryError(
            f"{where}, shows a certificate that does not hold: {error.verify_message}: {remedy}"
        ) from error
    except ssl.SSLError as error:
        raise DeliveryError(f"{where}, speaks no TLS at once: mail.security is starttls, or another port") from error
    except socket.gaierror as error:
        raise DeliveryError(f"{where}: there is no machine of that name: correct mail.host") from error
    except TimeoutError as error:
        remedy = (
            "correct mail.host, mail.port and mail.security (a port for tls waits like this where starttls is said), "
            "or open the firewall"
        )
        raise DeliveryError(f"{where}, does not answer within {mail.timeout_seconds} s: {remedy}") from error
    except (OSError, smtplib.SMTPException) as error:
        said = one_line(str(error)) or type(error).__name__
        raise DeliveryError(
            f"{where}, cannot be talked to ({said}): see that it runs, and correct mail.host and mail.port"
        ) from error


def _reply(code: int, said: bytes | str) -> str:
    text = said.decode("utf-8", errors="replace") if isinstance(said, bytes) else said
    return one_line(f"{code} {text}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """An alert goes where it was told to, and is not sent on as a GET that holds nothing."""


def post_json(
    address: str,
    content: bytes,
    seconds: int,
    *,
    setting: str = "mail.webhook",
    headers: Mapping[str, str] | None = None,
) -> None:
    """Posts JSON. Raises DeliveryError, naming the setting and never the path of the address, unless it was taken."""
    where = f"the webhook at {urlsplit(address).hostname}"
    request = urllib.request.Request(  # noqa: S310 - http or https by the configuration
        address, content, {"Content-Type": "application/json", **(headers or {})}, method="POST"
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds):
            return
    except urllib.error.HTTPError as error:
        raise DeliveryError(f"{where} answers {error.code}: correct {setting}, or see what receives it") from error
    except (OSError, http.client.HTTPException) as error:
        said = one_line(str(error)) or type(error).__name__
        raise DeliveryError(f"{where} cannot be reached ({said}): correct {setting}") from error
