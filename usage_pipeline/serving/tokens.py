"""Tokens of programs: made, listed and revoked here; what is kept of each is its hash, never the token.

`api/tokens.json` below the home is its owner's alone. A token has 256 random bits, so one round of SHA-256 keeps it as
well as a slow hash would. The file is read anew where it changed: who is revoked is out with the next request.
"""

import hashlib
import json
import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from usage_pipeline.core.files import FILE, atomic_write, make_folder
from usage_pipeline.core.locks import file_lock
from usage_pipeline.serving.access import LIMITS, SCOPES, Access

TOKEN_VARIABLE = "USAGE_API_TOKEN"  # noqa: S105 - the name of the variable that holds one
_PREFIX = "usage_"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_SECONDS_TO_WAIT = 10


class TokenError(Exception):
    """A token cannot be made, found or read; the message says why, and the remedy."""


@dataclass(frozen=True)
class Token:
    """What is kept of a token. `made_at`: UTC, ISO 8601."""

    name: str
    hash: str
    scopes: tuple[str, ...]
    limits: dict[str, tuple[str, ...]]
    made_at: str

    @property
    def access(self) -> Access:
        return Access(self.name, self.scopes, self.limits)


class TokenStore:
    """The tokens of a data home."""

    def __init__(self, api_dir: Path) -> None:
        self.file = api_dir / "tokens.json"
        self._read_state: tuple[int, int, int] | None = None
        self._by_hash: dict[str, Token] = {}
        self._lock = threading.Lock()

    def tokens(self) -> list[Token]:
        """Every token, oldest first. Raises TokenError where the file cannot be read."""
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
            return [_token(entry) for entry in content]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            remedy = "remove it, and make the tokens anew with `usage-pipeline tokens add`"
            raise TokenError(f"{self.file} cannot be read ({error}): {remedy}") from error

    def add(self, name: str, scopes: Iterable[str], limits: Mapping[str, Iterable[str]]) -> str:
        """Makes a token and returns it: it can be read this once. Raises TokenError."""
        if not _NAME.fullmatch(name):
            raise TokenError(f"'{name}' is no name of a program: write lower-case letters, digits, - and _, 40 at most")
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown:
            raise TokenError(f"there is no scope '{unknown[0]}'; there are {', '.join(SCOPES)}")
        kept = {column: tuple(dict.fromkeys(values)) for column, values in limits.items() if tuple(values)}
        if not set(kept) <= set(LIMITS):
            raise TokenError(f"a token is limited by {', '.join(LIMITS.values())}, nothing else")
        secret = _PREFIX + secrets.token_urlsafe(32)
        made_at = datetime.now(UTC).isoformat(timespec="seconds")
        # whoever sees contacts sees the accounts that they belong to
        wanted = tuple(scope for scope in SCOPES if scope == "read" or scope in scopes)
        make_folder(self.file.parent)
        with self._writing():
            found = self.tokens()
            if name in [token.name for token in found]:
                raise TokenError(f"{name} has a token: `usage-pipeline tokens revoke {name}` first")
            self._write([*found, Token(name, _hash(secret), wanted, kept, made_at)])
        return secret

    def revoke(self, name: str) -> Token:
        """Takes a token away, at once. Raises TokenError where there is none of that name."""
        with self._writing():
            found = self.tokens()
            gone = next((token for token in found if token.name == name), None)
            if gone is None:
                known = ", ".join(token.name for token in found) or "none"
                raise TokenError(f"{name} has no token; these have: {known}")
            self._write([token for token in found if token.name != name])
        return gone

    def find(self, secret: str) -> Token | None:
        """The token that a program has shown; None where it is none, or revoked. Raises TokenError."""
        with self._lock:
            state = self._state()
            if state != self._read_state:
                self._by_hash = {token.hash: token for token in self.tokens()}
                self._read_state = state
            return self._by_hash.get(_hash(secret))

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = self.file.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _writing(self) -> AbstractContextManager[None]:
        return file_lock(self.file.with_suffix(".lock"), _SECONDS_TO_WAIT, what=str(self.file), who="tokens")

    def _write(self, found: list[Token]) -> None:
        with atomic_write(self.file) as tmp_path:
            tmp_path.touch(FILE)
            tmp_path.write_text(json.dumps([asdict(token) for token in found], indent=1), encoding="utf-8")


def _token(entry: dict[str, Any]) -> Token:
    limits = {column: tuple(values) for column, values in entry["limits"].items()}
    if not set(limits) <= set(LIMITS) or not all(limits.values()):
        raise ValueError(f"{entry['name']} is limited by something unknown")
    return Token(entry["name"], entry["hash"], tuple(entry["scopes"]), limits, entry["made_at"])


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
