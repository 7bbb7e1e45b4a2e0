"""Log-ins: which of them stand, how often one may fail, and how a password is changed.

Superset's session is a signed cookie: whoever kept a copy could use it after a log-out. Here a log-in is an entry in a
store, and the cookie only names it, so that a log-out, a new password or the end of its time ends every copy. What
somebody holds who is not logged in stays in his cookie: a stranger fills no store. Tokens of the API say when they were
given out; a new password makes all earlier ones void, and all earlier log-ins too.

Log-ins that fail are counted by the account that a name leads to (its user name and its mail address are one) together
with the address they come from, and by address; by account alone only far higher, and never against an address that
this account has logged in from. All workers share stores: files below SUPERSET_HOME, or Redis.
"""

import hashlib
import os
import secrets
import sqlite3
import time
from contextlib import closing
from typing import Any

from cachelib.base import BaseCache
from cachelib.file import FileSystemCache
from cachelib.redis import RedisCache
from flask import abort, current_app, request
from flask.sessions import SecureCookieSessionInterface
from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget
from flask_appbuilder.security.forms import ResetPasswordForm
from flask_appbuilder.security.views import ResetMyPasswordView
from flask_login import current_user, user_logged_in, user_logged_out
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import Storage, storage_from_string
from limits.strategies import FixedWindowRateLimiter
from sqlalchemy import event
from werkzeug.security import check_password_hash
from wtforms import PasswordField
from wtforms.validators import DataRequired, ValidationError

_KEY = "usage_log_in"
_TOUCH_SECONDS = 300
_LOG_IN_VIEWS = ("AuthDBView", "SupersetAuthView", "SecurityApi")
# enough for a person who has forgotten, none for a machine
_FROM_ONE_ADDRESS = RateLimitItemPerMinute(20, 15)
# of all addresses together: a network of guessers, which must not be able to shut the account's owner out
_OF_ONE_ACCOUNT = RateLimitItemPerMinute(200, 15)
_KNOWN_ADDRESS = RateLimitItemPerDay(1, 90)
PASSWORD_FORM = "/resetmypassword/form"  # noqa: S105 - an address


# ---------------------------------------------------------------- log-ins that stand


class LogIns:
    """The register of log-ins; `seconds` is how long one lasts that is not used."""

    def __init__(self, store: BaseCache, seconds: int) -> None:
        self._store, self._seconds = store, seconds

    def add(self, user_id: str) -> str:
        """Writes a new log-in down, and gives its name."""
        if isinstance(self._store, FileSystemCache):
            self._store._remove_expired(time.time())
        name = secrets.token_urlsafe(32)
        self._write(name, user_id, time.time())
        return name

    def stands(self, name: str, user_id: str) -> bool:
        """Whether this log-in of this user is neither ended nor older than his password."""
        found = self._store.get(f"log-in {name}")
        if not found or found["user"] != user_id or self.is_void(user_id, found["since"]):
            return False
        if time.time() - found["seen"] > _TOUCH_SECONDS:
            self._write(name, user_id, found["since"])
        return True

    def end(self, name: str) -> None:
        self._store.delete(f"log-in {name}")

    def end_all(self, user_id: str) -> None:
        """Makes void whatever this user was given until now."""
        # without an end: where Redis makes room, it takes what has one
        self._store.set(f"void {user_id}", time.time(), timeout=0)

    def is_void(self, user_id: str, since: float) -> bool:
        """Whether what the user was given at that moment (seconds since 1970) is void."""
        return since <= float(self._store.get(f"void {user_id}") or 0)

    def _write(self, name: str, user_id: str, since: float) -> None:
        told = {"user": user_id, "since": since, "seen": time.time()}
        self._store.set(f"log-in {name}", told, timeout=self._seconds)


def log_ins() -> LogIns:
    """The register of this application."""
    register: LogIns = current_app.extensions["usage_log_ins"]
    return register


def open_register(app: Any, home: str, redis_url: str) -> LogIns:
    """The register in Redis where an address is given, else in files below `home`."""
    if redis_url:
        from redis import Redis

        store: BaseCache = RedisCache(Redis.from_url(redis_url), key_prefix="usage ")
    else:
        folder = os.path.join(home, "log-ins")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        # none is ever dropped to make room: that would log somebody out
        store = FileSystemCache(folder, threshold=0, mode=0o600)
    return LogIns(store, app.config["PERMANENT_SESSION_LIFETIME"])


def _user_model() -> Any:
    from flask_appbuilder.security.sqla.models import User

    return User


class Sessions(SecureCookieSessionInterface):
    """Flask's own, in which a log-in that does not stand is none."""

    def open_session(self, app: Any, asked: Any) -> Any:
        session = super().open_session(app, asked)
        if session and session.get("_user_id"):
            register: LogIns = app.extensions["usage_log_ins"]
            if not register.stands(str(session.get(_KEY)), str(session["_user_id"])):
                session.clear()
        return session


def add_log_ins(app: Any, home: str, redis_url: str) -> None:
    """Keeps a register of log-ins, and asks for the old password before a new one."""
    app.extensions["usage_log_ins"] = open_register(app, home, redis_url)
    app.session_interface = Sessions()

    @user_logged_in.connect_via(app)
    def logged_in(_: Any, user: Any, **__: Any) -> None:
        from flask import session

        session[_KEY] = log_ins().add(str(user.get_id()))

    @user_logged_out.connect_via(app)
    def logged_out(_: Any, **__: Any) -> None:
        from flask import session

        if name := session.pop(_KEY, None):
            log_ins().end(name)

    @app.before_request
    def not_too_many() -> None:
        # by where it was sent, not by how: the form takes JSON as well
        if request.method == "POST" and request.blueprint in _LOG_IN_VIEWS:
            refuse_too_many()

    @event.listens_for(_user_model().password, "set")
    def password_is_new(user: Any, value: Any, old: Any, _: Any) -> None:
        if user.id is not None and value != old:
            log_ins().end_all(str(user.id))

    @app.before_request
    def no_password_by_api() -> Any:
        if request.method == "PUT" and request.path.rstrip("/") == "/api/v1/me":
            asked = request.get_json(silent=True)
            if not isinstance(asked, dict) or "password" in asked:
                # whoever holds a session for a minute must not be able to keep the account
                return {"message": f"a new password asks for the old one: open {PASSWORD_FORM}"}, 403
        return None


def is_revoked(_header: dict[str, Any], token: dict[str, Any]) -> bool:
    """Whether a token of the API was given out before its owner's password was changed."""
    # a token's moment is cut to whole seconds
    return log_ins().is_void(str(token["sub"]), float(token["iat"]))


# ---------------------------------------------------------------- log-ins that fail


class Counts(Storage):
    """Counters of `limits` in a SQLite file, for the workers of one machine: `usage-file:///path`."""

    STORAGE_SCHEME = ["usage-file"]  # noqa: RUF012 - as `limits` declares it
    base_exceptions = sqlite3.Error

    def __init__(self, uri: str, wrap_exceptions: bool = False, **_: Any) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._file = uri.removeprefix("usage-file://")
        os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(self._open()) as file:
            file.execute("CREATE TABLE IF NOT EXISTS counts (key TEXT PRIMARY KEY, number INTEGER, ends REAL)")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._file, timeout=30, isolation_level=None)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = time.time()
        with closing(self._open()) as file:
            file.execute("DELETE FROM counts WHERE ends <= ?", [now])
            row = file.execute(
                "INSERT INTO counts VALUES (?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET number = number + excluded.number RETURNING number",
                [key, amount, now + expiry],
            ).fetchone()
        return int(row[0])

    def _row(self, key: str) -> tuple[int, float]:
        with closing(self._open()) as file:
            found = file.execute("SELECT number, ends FROM counts WHERE key = ? AND ends > ?", [key, time.time()])
            return found.fetchone() or (0, time.time())

    def get(self, key: str) -> int:
        return int(self._row(key)[0])

    def get_expiry(self, key: str) -> float:
        return float(self._row(key)[1])

    def check(self) -> bool:
        return self.get("") == 0

    def reset(self) -> int | None:
        with closing(self._open()) as file:
            return file.execute("DELETE FROM counts").rowcount

    def clear(self, key: str) -> None:
        with closing(self._open()) as file:
            file.execute("DELETE FROM counts WHERE key = ?", [key])


class FailedLogIns:
    """Counts log-ins that fail, and says when there were too many."""

    def __init__(self, storage: str) -> None:
        self._limiter = FixedWindowRateLimiter(storage_from_string(storage))

    def are_too_many(self, account: str, address: str) -> bool:
        if not self._limiter.test(_FROM_ONE_ADDRESS, "address", address):
            return True
        if not self._limiter.test(_FROM_ONE_ADDRESS, "both", account, address):
            return True
        return not self._limiter.test(_OF_ONE_ACCOUNT, "account", account) and not self._is_known(account, address)

    def add(self, account: str, address: str) -> None:
        counted: list[tuple[RateLimitItem, list[str]]] = [
            (_FROM_ONE_ADDRESS, ["address", address]),
            (_FROM_ONE_ADDRESS, ["both", account, address]),
            (_OF_ONE_ACCOUNT, ["account", account]),
        ]
        for item, names in counted:
            self._limiter.hit(item, *names)

    def note_success(self, account: str, address: str) -> None:
        """From now on this address is one that the account's owner uses; his own slips are forgotten."""
        self._limiter.clear(_FROM_ONE_ADDRESS, "both", account, address)
        self._limiter.hit(_KNOWN_ADDRESS, "known", account, address)

    def _is_known(self, account: str, address: str) -> bool:
        return not self._limiter.test(_KNOWN_ADDRESS, "known", account, address)


def failed_log_ins() -> FailedLogIns:
    """The counters of this application."""
    if "usage_failed_log_ins" not in current_app.extensions:
        storage = current_app.config["USAGE_LOG_IN_COUNTS"]
        current_app.extensions["usage_failed_log_ins"] = FailedLogIns(storage)
    counters: FailedLogIns = current_app.extensions["usage_failed_log_ins"]
    return counters


def account_of(manager: Any, name: str) -> str:
    """What a name is counted as: the number of the account it leads to, or itself where it leads to none."""
    user = manager.find_user(username=name) or manager.find_user(email=name) if name else None
    if user is not None:
        return f"user {user.id}"
    return "name " + hashlib.sha256(name.lower().encode(errors="replace")).hexdigest()


def refuse_too_many() -> None:
    """Before a log-in: ends the request with 429 where too many have failed."""
    from superset import security_manager

    if failed_log_ins().are_too_many(account_of(security_manager, _name_given()), _address()):
        abort(429, "too many log-ins have failed: try again in a quarter of an hour")


def _address() -> str:
    return request.remote_addr or "unknown"


def _name_given() -> str:
    given: Any = request.get_json(silent=True) if request.is_json else request.form
    name = given.get("username") if hasattr(given, "get") else None
    return name if isinstance(name, str) else ""


def count_log_in(manager: Any, name: str, is_right: bool) -> None:
    """After a password was tried."""
    account = account_of(manager, name)
    counters = failed_log_ins()
    (counters.note_success if is_right else counters.add)(account, _address())


# ---------------------------------------------------------------- a new password


class NewPasswordForm(ResetPasswordForm):
    """Superset's own, which asks for the old password first."""

    old_password = PasswordField("Old password", validators=[DataRequired()], widget=BS3PasswordFieldWidget())

    def validate_old_password(self, field: Any) -> None:
        """Raises ValidationError for a wrong one, and counts it as a log-in that failed."""
        counters, account = failed_log_ins(), f"user {current_user.id}"
        if counters.are_too_many(account, _address()):
            raise ValidationError("too many were wrong: try again in a quarter of an hour")
        if not check_password_hash(current_user.password, field.data or ""):
            counters.add(account, _address())
            raise ValidationError("this is not your password")


class NewPasswordView(ResetMyPasswordView):
    """The form on which somebody writes a password of his own anew."""

    class_permission_name = "ResetMyPasswordView"
    form = NewPasswordForm
    form_title = "New password"

    def form_post(self, form: Any) -> None:
        """Ends every log-in of the old password but this one."""
        from flask import session

        super().form_post(form)
        session[_KEY] = log_ins().add(str(current_user.id))
