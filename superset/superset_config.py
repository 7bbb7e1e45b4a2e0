"""Superset's configuration: everything that differs between installations comes from the environment.

The server refuses to start half-configured, and says everything that is wrong at once. Required are
SUPERSET_SECRET_KEY, USAGE_PUBLISHED (the folder of published builds), USAGE_STATUS (that of the status file),
USAGE_OUTCOMES (that of the call list with its outcomes) and USAGE_FEEDBACK (that outcomes are recorded in).
USAGE_PRODUCTION=1 demands more: that USAGE_HTTPS, USAGE_PROXY_COUNT and USAGE_ALLOWED_HOSTS are said, and a metadata
database that several processes can write to. `docs/reference/environment.md` lists all of them.

Pages read DuckDB files that are replaced as a whole: the link `current` is resolved once a request, so a request sees
exactly one build (`build_cache.py`). DuckDB itself is locked down: read-only alone would still read any file of the
machine. Who may ask for what stands in `roles.yaml` and `usage_security.py`.
"""

import base64
import contextlib
import hashlib
import os
import re
import resource
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from celery.schedules import crontab
from celery.signals import task_prerun

_PROBLEMS: list[str] = []
# values that stand in documentation and in examples: whoever knows one can sign a session of an administrator
_WELL_KNOWN = (
    "change_me",
    "changeme",
    "thisismyscretkey",
    "thisisasecret",
    "your_own_random",
    "test_non_dev",
    "secret_key",
)


def _said(name: str, remedy: str) -> str:
    """A variable that must be there."""
    value = os.environ.get(name, "").strip()
    if not value:
        _PROBLEMS.append(f"{name} is not set: {remedy}")
    return value


def _number(name: str, usual: int, least: int, most: int) -> int:
    value = os.environ.get(name, "").strip() or str(usual)
    if not value.isdecimal() or not least <= int(value) <= most:
        _PROBLEMS.append(f"{name} is {value!r}: give it a whole number from {least} to {most}")
        return usual
    return int(value)


def _switch(name: str) -> bool:
    value = os.environ.get(name, "").strip() or "0"
    if value not in ("0", "1"):
        _PROBLEMS.append(f"{name} is {value!r}: give it 1 or 0")
    return value == "1"


def _secret_key() -> str:
    remedy = "give it a long random value, the same at every start (openssl rand -base64 48)"
    key = _said("SUPERSET_SECRET_KEY", remedy)
    if key and (len(key) < 32 or len(set(key)) < 12):
        _PROBLEMS.append(f"SUPERSET_SECRET_KEY is shorter than 32 characters, or of too few different ones: {remedy}")
    elif any(known in key.lower() for known in _WELL_KNOWN):
        _PROBLEMS.append(f"SUPERSET_SECRET_KEY is a well-known one: {remedy}")
    return key


SECRET_KEY = _secret_key()
PUBLISHED = _said("USAGE_PUBLISHED", "name the folder of published builds, <home>/published")
STATUS = _said("USAGE_STATUS", "name the folder of the status file, <home>/status")
OUTCOMES = _said("USAGE_OUTCOMES", "name the folder of the call list with its outcomes, <home>/outcomes")
FEEDBACK = _said("USAGE_FEEDBACK", "name the folder that outcomes are recorded in, <home>/feedback")
_HOME = os.environ.get("SUPERSET_HOME", os.path.expanduser("~/.superset"))
SQLALCHEMY_DATABASE_URI = os.environ.get("SUPERSET_METADATA_URI", f"sqlite:///{_HOME}/superset.db?timeout=30")
IS_PRODUCTION = _switch("USAGE_PRODUCTION")
IS_HTTPS = _switch("USAGE_HTTPS")
_PROXIES = _number("USAGE_PROXY_COUNT", 0, 0, 10)
_HOSTS = [host.strip().lower() for host in os.environ.get("USAGE_ALLOWED_HOSTS", "").split(",") if host.strip()]
_SESSION_HOURS = _number("USAGE_SESSION_HOURS", 8, 1, 720)
_QUERY_SECONDS = _number("USAGE_QUERY_SECONDS", 30, 1, 600)
_WORKER_MEMORY = _number("USAGE_WORKER_MEMORY_MB", 3072, 1024, 1_000_000) * 2**20
_CACHE_MEGABYTES = _number("USAGE_CACHE_MEGABYTES", 500, 1, 1_000_000)
# reports on a schedule: on where there is a queue for them
_CELERY_URL = os.environ.get("USAGE_CELERY_URL", "").strip()
_SMTP_SECURITY = os.environ.get("USAGE_SMTP_SECURITY", "").strip() or "starttls"
_CHROMEDRIVER = os.environ.get("USAGE_CHROMEDRIVER", "").strip() or "/usr/bin/chromedriver"
_SMTP_PORT = _number("USAGE_SMTP_PORT", {"starttls": 587, "tls": 465}.get(_SMTP_SECURITY, 25), 1, 65535)
_INTERNAL_URL = _PAGES_URL = ""
if _CELERY_URL:
    if not _CELERY_URL.startswith(("redis://", "rediss://", "redis+socket://")):
        _PROBLEMS.append("USAGE_CELERY_URL names no Redis: write redis://host:6379/1")
    _said("USAGE_SMTP_HOST", "the mail server that reports go through")
    _said("USAGE_MAIL_FROM", "the address that reports come from")
    _PAGES_URL = _said("USAGE_PUBLIC_URL", "the address of the dashboards as people know it: links in mail lead there")
    _INTERNAL_URL = _said("USAGE_INTERNAL_URL", "the address that the worker's browser finds this server at")
    for _name, _url in (("USAGE_PUBLIC_URL", _PAGES_URL), ("USAGE_INTERNAL_URL", _INTERNAL_URL)):
        if _url and not re.match(r"https?://[^/]", _url):
            _PROBLEMS.append(f"{_name} is {_url!r}: write it with http:// or https://")
    if _HOSTS and _INTERNAL_URL and (urlsplit(_INTERNAL_URL).hostname or "") not in _HOSTS:
        _PROBLEMS.append(
            "USAGE_INTERNAL_URL has a name that USAGE_ALLOWED_HOSTS lacks: add it, or the worker is sent away"
        )
    if _SMTP_SECURITY not in ("starttls", "tls", "none"):
        _PROBLEMS.append(f"USAGE_SMTP_SECURITY is {_SMTP_SECURITY!r}: give it starttls, tls or none")
    if bool(os.environ.get("USAGE_SMTP_USER")) != bool(os.environ.get("USAGE_SMTP_PASSWORD")):
        _PROBLEMS.append("USAGE_SMTP_USER and USAGE_SMTP_PASSWORD go together: give both, or neither")
if IS_PRODUCTION:
    _said("USAGE_HTTPS", "1 where users come over https (as they should), 0 where they do not")
    _said("USAGE_PROXY_COUNT", "the number of proxies before this server: whose word about a client's address is taken")
    _said("USAGE_ALLOWED_HOSTS", "the names that users know this server by, with commas between them")
    if SQLALCHEMY_DATABASE_URI.startswith("sqlite") and not _switch("USAGE_ALLOW_SQLITE"):
        _PROBLEMS.append(
            "SUPERSET_METADATA_URI is SQLite: name a PostgreSQL database, or set USAGE_ALLOW_SQLITE=1 for one machine"
        )
if _PROBLEMS:
    raise SystemExit("superset_config.py: " + "; ".join(_PROBLEMS))

APP_NAME = "Usage"
FEATURE_FLAGS = {
    "ALERT_REPORTS": bool(_CELERY_URL),
    "ESCAPE_MARKDOWN_HTML": True,
    "DRILL_BY": False,
    "DRILL_TO_DETAIL": False,
    # each of these is off by itself too; a release of Superset that turns one on must not open a door here
    "ALLOW_ADHOC_SUBQUERY": False,
    "DYNAMIC_PLUGINS": False,
    "EMBEDDABLE_CHARTS": False,
    "EMBEDDED_SUPERSET": False,
    "ENABLE_DASHBOARD_SCREENSHOT_ENDPOINTS": False,
    "ENABLE_JAVASCRIPT_CONTROLS": False,
    "ENABLE_SUPERSET_META_DB": False,
    "ENABLE_TEMPLATE_PROCESSING": False,
    # roles that are limited to some accounts (row_limits.py) are limited in SQL of their own too
    "RLS_IN_SQLLAB": True,
    "THUMBNAILS": False,
}
ROW_LIMIT = 10_000
NATIVE_FILTER_DEFAULT_ROW_LIMIT = 10_000
SQL_MAX_ROW = 100_000
# from so many rows on Superset would write a CSV row by row, with formulas and HTML as they come; no result has them
CSV_STREAMING_ROW_THRESHOLD = 10**9
SUPERSET_WEBSERVER_TIMEOUT = 60
ENABLE_UI_THEME_ADMINISTRATION = False

# ---------------------------------------------------------------- who comes in

# SUPERSET_CONFIG_PATH names this file, not its folder; after all others, so that nothing in it hides a package
sys.path.append(os.path.dirname(os.path.abspath(__file__)))
from usage_superset.build_cache import build_of_request, note_opened  # noqa: E402
from usage_superset.display import d3_format, d3_time_format  # noqa: E402
from usage_superset.encrypted_contacts import is_encrypted, key_problem, opener  # noqa: E402
from usage_superset.event_log import EventLog  # noqa: E402
from usage_superset.request_limits import seconds_left  # noqa: E402
from usage_superset.sql_rules import CLOSED_FUNCTIONS  # noqa: E402
from usage_superset.texts import ENGLISH, language, language_problem  # noqa: E402
from usage_superset.usage_security import UsageSecurityManager, is_long_enough  # noqa: E402

if _key_problem := key_problem():
    raise SystemExit(f"superset_config.py: {_key_problem}")

if _language_problem := language_problem():
    raise SystemExit(f"superset_config.py: {_language_problem}")
# words of Superset itself, beside ours; whoever logs in cannot choose another
BABEL_DEFAULT_LOCALE = language()
LANGUAGES = {} if language() == ENGLISH else {language(): {"flag": language(), "name": language()}}
D3_FORMAT = d3_format()
D3_TIME_FORMAT = d3_time_format()
CUSTOM_SECURITY_MANAGER = UsageSecurityManager
AUTH_USER_REGISTRATION = False
PUBLIC_ROLE_LIKE = None
FAB_API_SWAGGER_UI = False
FAB_PASSWORD_COMPLEXITY_ENABLED = True
FAB_PASSWORD_COMPLEXITY_VALIDATOR = is_long_enough
# the guests of embedded pages are off; a key that everybody knows must not stand there all the same
GUEST_TOKEN_JWT_SECRET = hashlib.sha256(b"guests" + SECRET_KEY.encode()).hexdigest()

# what counts is a login that fails (log_ins.py); Superset's own limit counts another address than the one that the
# form is sent to
AUTH_RATE_LIMITED = False
RATELIMIT_ENABLED = False
USAGE_LOG_IN_COUNTS = os.environ.get("USAGE_RATELIMIT_STORAGE") or f"usage-file://{_HOME}/failed-log-ins.db"
_LOG_IN_STORE = os.environ.get("USAGE_LOG_IN_STORE", "")

WTF_CSRF_ENABLED = True
ENABLE_CORS = False
PREVENT_UNSAFE_DB_CONNECTIONS = True
ALLOWED_EXTENSIONS: set[str] = set()  # of files to upload
# serve.py stands before every worker, and adds whom it heard from
ENABLE_PROXY_FIX = True
PROXY_FIX_CONFIG = {"x_for": _PROXIES + 1, "x_proto": _PROXIES, "x_host": _PROXIES, "x_port": 0, "x_prefix": 0}

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = IS_HTTPS
SESSION_COOKIE_SAMESITE = "Lax"
PERMANENT_SESSION_LIFETIME = _SESSION_HOURS * 3600
JWT_REFRESH_TOKEN_EXPIRES = PERMANENT_SESSION_LIFETIME
# no host but our own stands in the policy: the front end of the wheel holds a telemetry pixel that nothing switches
# off, and the browser refuses to load it
TALISMAN_ENABLED = True
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        "connect-src": ["'self'"],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'"],
        "font-src": ["'self'", "data:"],
        "script-src": ["'self'", "'strict-dynamic'"],
        # no page of another site holds one of ours, to have it clicked unseen
        "frame-ancestors": "'none'",
        "form-action": ["'self'"],
    },
    "frame_options": "DENY",
    "content_security_policy_nonce_in": ["script-src"],
    "force_https": False,  # TLS ends at the proxy
    "session_cookie_secure": IS_HTTPS,
    "strict_transport_security": IS_HTTPS,
    "strict_transport_security_include_subdomains": False,  # what else lives below this name is not ours to say
}


def FLASK_APP_MUTATOR(app: Any) -> None:  # noqa: N802
    """Bounds this process's memory, answers to no other name than its own, opens the call list, guards requests."""
    from flask import redirect, request
    from usage_superset.account_brief import add_brief
    from usage_superset.chart_guard import guard_charts
    from usage_superset.exports import add_exports
    from usage_superset.html_cells import draw_data_as_text
    from usage_superset.log_ins import add_log_ins
    from usage_superset.outcome_form import add_outcomes
    from usage_superset.page_addresses import address_of
    from usage_superset.page_links import add_links, own_csm
    from usage_superset.page_style import add_style
    from usage_superset.request_guard import guard_requests
    from usage_superset.request_limits import add_turns
    from usage_superset.response_cache import keep_answers
    from usage_superset.sql_templates import render_no_templates
    from usage_superset.superset_internals import check_internals
    from usage_superset.usage_report import add_usage_report
    from usage_superset.user_lists import close_user_lists

    check_internals()
    guard_requests(app, _HOSTS)
    add_log_ins(app, _HOME, _LOG_IN_STORE)
    if folder := os.environ.get("USAGE_SERVE_FOLDER"):  # a worker, not a command
        add_turns(app, os.path.join(folder, "turns"), SECRET_KEY)
    keep_answers()
    guard_charts()
    close_user_lists()
    draw_data_as_text()
    render_no_templates()
    add_style(app)
    add_links(app)
    add_brief(app)
    add_exports(app, PUBLISHED)
    add_usage_report(app)
    add_outcomes(app, FEEDBACK)

    @app.before_request
    def not_what_the_mouse_did() -> Any:
        # pages send it without asking, and a reader's was answered with a whole page; that one was opened is logged
        return ("", 204) if request.path == "/superset/log/" else None

    @app.before_request
    def colors_that_a_page_drew_with() -> Any:
        # pages send them back to be kept; ours come with their colors, and a reader's browser was told 403 for it
        if request.method != "PUT" or not re.fullmatch(r"/api/v1/dashboard/\d+/colors", request.path):
            return None
        from superset import security_manager

        return None if security_manager.can_access("can_write", "Dashboard") else ({}, 200)

    @app.before_request
    def first_page() -> Any:
        if request.path != "/superset/welcome/" or not _may_open_first_page():
            return None
        csm = own_csm()
        return redirect(address_of(_FIRST_SLUG, {"owner": [csm]}) if csm else FIRST_PAGE)

    # a string or a list that a query makes is not counted by DuckDB's own limit
    resource.setrlimit(resource.RLIMIT_DATA, (_WORKER_MEMORY, _WORKER_MEMORY))

    @app.after_request
    def end_a_swollen_worker(response: Any) -> Any:
        # what a large query took is not given back, and the next request would lack it: gunicorn starts another worker
        if _held_memory() > _WORKER_MEMORY // 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return response


def _may_open_first_page() -> bool:
    """Whoever may not see it is sent back by Superset to where he came from, for ever."""
    from superset.exceptions import SupersetSecurityException
    from superset.extensions import db
    from superset.models.dashboard import Dashboard

    from superset import security_manager

    page = db.session.query(Dashboard).filter_by(slug=_FIRST_SLUG).one_or_none()
    if page is None or not security_manager.can_access("can_dashboard", "Superset"):
        return False
    try:
        security_manager.raise_for_access(dashboard=page)
    except SupersetSecurityException:
        return False
    return True


def _held_memory() -> int:
    """Bytes that this process holds of what its limit counts."""
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[5]) * resource.getpagesize()


# ---------------------------------------------------------------- reports on a schedule

# a report is what its owner may see, and he alone is asked for it: never what an administrator could see instead
ALERT_REPORTS_EXECUTORS = ["owner"]
ALERT_REPORTS_NOTIFICATION_DRY_RUN = False
EMAIL_REPORTS_SUBJECT_PREFIX = "[Usage]"
EMAIL_REPORTS_CTA = "Open the page"
SMTP_HOST = os.environ.get("USAGE_SMTP_HOST", "")
SMTP_PORT = _SMTP_PORT
SMTP_STARTTLS = _SMTP_SECURITY == "starttls"
SMTP_SSL = _SMTP_SECURITY == "tls"
SMTP_SSL_SERVER_AUTH = True
SMTP_USER = os.environ.get("USAGE_SMTP_USER", "")
SMTP_PASSWORD = os.environ.get("USAGE_SMTP_PASSWORD", "")
SMTP_MAIL_FROM = os.environ.get("USAGE_MAIL_FROM", "")
WEBDRIVER_BASEURL = _INTERNAL_URL.rstrip("/") + "/"
WEBDRIVER_BASEURL_USER_FRIENDLY = _PAGES_URL.rstrip("/") + "/"
# Selenium and Debian's own driver: Superset's way with Playwright takes no other Chromium than Playwright's download
WEBDRIVER_TYPE = "chrome"
# which finds its own Chromium: the place of another one cannot be named, Superset 6.1 hands it to the wrong function
WEBDRIVER_CONFIGURATION = {"service": {"executable_path": _CHROMEDRIVER}}
WEBDRIVER_OPTION_ARGS = [
    "--headless=new",
    "--no-sandbox",  # containers allow no name spaces; it opens our own pages, and nothing else
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WEBDRIVER_WINDOW = {"dashboard": (1600, 2400), "slice": (1600, 1200), "pixel_density": 1}
SCREENSHOT_LOCATE_WAIT = 60
SCREENSHOT_LOAD_WAIT = 120


class CELERY_CONFIG:  # noqa: N801
    """The queue: beat looks each minute which reports are due, a worker makes them."""

    broker_url = _CELERY_URL
    result_backend = _CELERY_URL
    imports = ("superset.tasks.scheduler",)
    worker_prefetch_multiplier = 1
    task_acks_late = False
    # nobody asks for the outcome: it stands in the log of the report
    result_expires = 3600
    beat_schedule = {  # noqa: RUF012
        "reports.scheduler": {
            "task": "reports.scheduler",
            "schedule": crontab(minute="*"),
            "options": {"expires": 7 * 24 * 3600},
        },
        "reports.prune_log": {"task": "reports.prune_log", "schedule": crontab(minute=0, hour=0)},
    }


@task_prerun.connect
def _due_as_a_moment(task: Any = None, **_: Any) -> None:
    """Celery hands over the time a report was due as text, which SQLite takes for no time."""
    if isinstance(task.request.eta, str):
        task.request.eta = datetime.fromisoformat(task.request.eta).astimezone(UTC).replace(tzinfo=None)


if not _CELERY_URL:
    CELERY_CONFIG = None  # type: ignore[assignment,misc]

# ---------------------------------------------------------------- results, kept by build

EVENT_LOGGER = EventLog()
DATA_CACHE_CONFIG = {
    "CACHE_TYPE": "usage_superset.build_cache.results",
    "CACHE_DIR": os.path.join(_HOME, "results"),
    "CACHE_MEGABYTES": _CACHE_MEGABYTES,
    "CACHE_REDIS_URL": os.environ.get("USAGE_CACHE_URL"),
    "CACHE_DEFAULT_TIMEOUT": 24 * 3600,
}

# ---------------------------------------------------------------- what DuckDB may do

# beside usage_security.py, which reads SQL before it runs: what shows settings, paths, or SQL hidden in a text
DISALLOWED_SQL_FUNCTIONS = {"duckdb": CLOSED_FUNCTIONS}
# the browser hears of an end of time from DuckDB first, then from Superset, then from serve.py, which ends the worker
SQLLAB_TIMEOUT = _QUERY_SECONDS + 1

# the databases of superset/assets/databases: the folder whose link `current` says what is shown, and the file in it
_FILES = {
    "usage_warehouse": (PUBLISHED, "warehouse.duckdb"),
    "usage_contacts": (PUBLISHED, "contacts.duckdb"),
    "usage_status": (STATUS, "usage_status.duckdb"),
    "usage_outcomes": (OUTCOMES, "usage_outcomes.duckdb"),
}
# the right without which no connection to one is opened, whatever door somebody came through
_RIGHTS = {
    "usage_warehouse": "[Usage].[mart]",
    "usage_contacts": "[Usage contacts].[personal]",
    "usage_status": "[Usage status].[status]",
    "usage_outcomes": "[Usage outcomes].[outcomes]",
}


def DB_CONNECTION_MUTATOR(  # noqa: N802
    uri: Any, params: dict[str, Any], _username: str | None = None, security_manager: Any = None, *_: Any
) -> tuple[Any, dict[str, Any]]:
    """Points a database of ours to the file that is shown now, read-only and locked down.

    Raises ValueError for another DuckDB file, SupersetSecurityException for somebody without the database's right.
    """
    if uri.get_backend_name() != "duckdb":
        return uri, params
    name = os.path.basename(uri.database or "")
    if name not in _FILES:
        raise ValueError(f"no database '{name}': only {', '.join(_FILES)} are served")
    if security_manager is not None:
        security_manager.raise_for_database(_RIGHTS[name])
    if not seconds_left(_QUERY_SECONDS):
        raise ValueError(f"this request has taken more than {_QUERY_SECONDS} seconds")
    note_opened(name)
    # the path of a build, or of a status, never changes its content
    folder, file = _FILES[name]
    shown = build_of_request() if folder == PUBLISHED else os.path.realpath(os.path.join(folder, "current"))
    if not os.path.isdir(shown):
        raise ValueError("no build is published yet: the first refresh has not ended (see Dagster, Runs)")
    path = os.path.join(shown, file)
    uri = uri.set(database=path)
    config = {
        "enable_external_access": "false",
        "autoload_known_extensions": "false",
        "autoinstall_known_extensions": "false",
        "python_enable_replacements": "false",
        # nothing is written to a disk: what does not fit into memory is refused
        "temp_directory": "",
        "lock_configuration": "true",
        "threads": os.environ.get("USAGE_DUCKDB_THREADS", "2"),
        "memory_limit": os.environ.get("USAGE_DUCKDB_MEMORY", "1GB"),
    }
    if name == "usage_contacts" and is_encrypted(path):
        params["creator"] = opener(path, config)
    else:
        params["connect_args"] = {"read_only": True, "config": config}
    params["pool_events"] = [(_watch, "checkout"), (_unwatch, "checkin")]
    return uri, params


def _watch(connection: Any, record: Any, _proxy: Any) -> None:
    """Ends whatever a connection does once its request's time is up; a chart has no other limit in Superset."""
    done = record.info["done"] = threading.Event()
    seconds = seconds_left(_QUERY_SECONDS)

    def interrupt() -> None:
        if done.wait(seconds):
            return
        while not done.wait(1):  # again and again: an interrupt ends one statement, and more may follow
            with contextlib.suppress(Exception):
                connection.interrupt()

    threading.Thread(target=interrupt, daemon=True).start()


def _unwatch(_connection: Any, record: Any) -> None:
    record.info.pop("done").set()


# ---------------------------------------------------------------- what people see first, and what they take away

_FIRST_SLUG = "call-list"
FIRST_PAGE = f"/superset/dashboard/{_FIRST_SLUG}/"
# drawn here, so that no file and no font comes from anywhere else: four weeks, the last one marked
_LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="28" viewBox="0 0 40 28"><g fill="#1b6ca8">'
    '<rect x="2" y="14" width="6" height="12" rx="1"/><rect x="12" y="8" width="6" height="18" rx="1"/>'
    '<rect x="22" y="2" width="6" height="24" rx="1"/></g>'
    '<rect x="32" y="16" width="6" height="10" rx="1" fill="#d1495b"/></svg>'
)


def _theme(algorithm: str, primary: str, placeholder: str) -> dict[str, Any]:
    return {
        "algorithm": algorithm,
        "token": {
            "brandAppName": APP_NAME,
            "brandLogoAlt": APP_NAME,
            "brandLogoUrl": "data:image/svg+xml;base64," + base64.b64encode(_LOGO.encode()).decode(),
            "brandLogoMargin": "14px 0",
            "brandLogoHref": FIRST_PAGE,
            "brandLogoHeight": "28px",
            "colorPrimary": primary,
            "colorLink": primary,
            "colorTextPlaceholder": placeholder,
            "colorError": "#d1495b",
            "colorWarning": "#edae49",
            "colorSuccess": "#4c9f70",
            "colorInfo": primary,
            "fontUrls": [],
            "fontFamily": "Inter, Helvetica, Arial, sans-serif",
            "fontFamilyCode": "'IBM Plex Mono', 'Courier New', monospace",
            "fontSizeXS": "8",
            "fontSizeXXL": "28",
            "fontWeightNormal": "400",
            "fontWeightLight": "300",
            "fontWeightStrong": "500",
            "fontWeightBold": "700",
            "transitionTiming": 0.2,
            "brandIconMaxWidth": 40,
        },
    }


THEME_DEFAULT = _theme("default", "#1b6ca8", "#667079")
THEME_DARK = _theme("dark", "#6db3e8", "#9aa5b1")
