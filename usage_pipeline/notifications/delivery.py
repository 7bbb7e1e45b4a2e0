"""Handing a message to chat or to a signed webhook, once: no retries, no memory (`outbox.py` has both).

Belongs here: addresses out of the environment, apprise, the signature, and what is wrong in words. Addresses and
secrets are in no message: an address is told by the name of its environment variable.

Chat gets Markdown, for its links; what comes from data has lost the letters that make a link or a mention. Webhooks are
signed as Standard Webhooks 1.0 has it (standardwebhooks.com): HMAC-SHA256 over id, timestamp and body.
"""

import base64
import binascii
import hashlib
import hmac
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from usage_pipeline.config.settings import NotifySettings, WebhookSettings
from usage_pipeline.notifications import mailer
from usage_pipeline.notifications.outbox import Channel, NotSetError, NotTakenError

_SECONDS = 10
_SHORTEST_SECRET = 24
_CALM = str.maketrans("[]<>`\\", "()‹›'/")
_URL = re.compile(r"https?://[^/\s]\S*")


def channels_of(notify: NotifySettings, name: str) -> dict[str, Channel]:
    """What hands over to each address, by the name of its variable. `name`: that of the configuration."""
    chat = {target.address: Channel(partial(_to_chat, target.address), has_ids=False) for target in notify.chat}
    hooks = {target.address: Channel(partial(_to_webhook, target, name), has_ids=True) for target in notify.webhooks}
    return chat | hooks


def _of_environment(variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise NotSetError(f"the environment variable {variable} is not set: put the address or secret into it")
    return value


# ---------------------------------------------------------------- chat


def chat_content(title: str, paragraphs: list[str]) -> str:
    """The content of a message to chat, in Markdown; its parts from data are calm."""
    return json.dumps({"title": title, "text": "\n\n".join(paragraphs)}, ensure_ascii=False)


def calm(text: str) -> str:
    """Text from data for chat: on one line, and neither a link with other words, nor markup, nor a mention."""
    # not escaped: services disagree on how, and some show the escape
    return re.sub(r"@(?=\w)", "@\u200b", mailer.one_line(text).translate(_CALM))


def _to_chat(variable: str, _key: str, content: str) -> None:
    address = _of_environment(variable)
    message = json.loads(content)
    with _overheard() as said:
        is_taken = _notify(address, message["title"], message["text"])
    if is_taken is None:
        raise NotTakenError(f"{variable} holds no address that apprise knows: correct it, such as slack://...")
    if not is_taken:
        codes = re.findall(r"error=(\d+)", " ".join(said))
        what = f"answers {codes[-1]}" if codes else "cannot be reached, or does not take it"
        raise NotTakenError(f"the chat of {variable} {what}: correct the address, or see what the service says")


def _notify(address: str, title: str, text: str) -> bool | None:
    """Whether the service has taken it; None where the address is none."""
    import apprise

    sender = _sender(address)
    return sender and bool(sender.notify(title=title, body=text, body_format=apprise.NotifyFormat.MARKDOWN))


@cache
def _sender(address: str) -> Any:
    """One an address, for it keeps to the pace that the service allows; None where the address is none."""
    import apprise  # its services are slow to load, and few need them

    asset = apprise.AppriseAsset(
        app_id="usage-pipeline",
        storage_mode=apprise.PersistentStoreMode.MEMORY,
        # pictures of another site
        image_url_mask="",
        image_url_logo="",
    )
    # told where it was told to, and not sent on to somewhere else
    asset.http_redirects = False
    service = apprise.Apprise.instantiate(address, asset=asset)
    if not isinstance(service, apprise.NotifyBase):
        return None
    sender = apprise.Apprise(asset=asset)
    sender.add(service)
    return sender


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """What apprise and the library below it log, for us alone: they tell whole addresses."""
    lines: list[str] = []
    handler, loggers = _Lines(lines), [logging.getLogger(name) for name in ("apprise", "urllib3")]
    before = [(logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    try:
        yield lines
    finally:
        for logger, (propagate, level) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
            logger.setLevel(level)


# ---------------------------------------------------------------- webhooks


def webhook_content(kind: str, at: str, data: dict[str, Any]) -> str:
    """The body of a webhook, as it will be signed and sent."""
    return json.dumps({"type": kind, "timestamp": at, "data": data}, ensure_ascii=False)


def _to_webhook(
    target: WebhookSettings, name: str, key: str, content: str, now: Callable[[], float] = time.time
) -> None:
    address, secret = _of_environment(target.address), _secret_of(target.secret)
    no_address = f"{target.address} holds no address of a webhook: write it with https://"
    if not _URL.fullmatch(address):
        raise NotTakenError(no_address)
    body = content.encode()
    # the same at every attempt, and another one of each installation
    message_id = "msg_" + hashlib.sha256(f"{name}\n{key}".encode()).hexdigest()[:32]
    timestamp = str(int(now()))
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature(secret, message_id, timestamp, body),
        "User-Agent": "usage-pipeline",
    }
    try:
        mailer.post_json(address, body, _SECONDS, setting=target.address, headers=headers)
    except mailer.DeliveryError as error:
        raise NotTakenError(str(error)) from error
    except ValueError as error:  # of an address that no machine can have
        raise NotTakenError(no_address) from error


def _secret_of(variable: str) -> bytes:
    """The bytes of a secret, written in base64 as `whsec_...`."""
    remedy = f"{variable}: write whsec_ and {_SHORTEST_SECRET} bytes or more in base64 (`openssl rand -base64 32`)"
    try:
        secret = base64.b64decode(_of_environment(variable).removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise NotTakenError(remedy) from error
    if len(secret) < _SHORTEST_SECRET:
        raise NotTakenError(remedy)
    return secret


def signature(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The header `webhook-signature`: version, and the HMAC-SHA256 of id, timestamp and body in base64."""
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
