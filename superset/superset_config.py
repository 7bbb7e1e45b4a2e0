"""Superset's configuration: everything that differs between installations comes from the environment.

Required: SUPERSET_SECRET_KEY, USAGE_PUBLISHED (the folder of published builds) and USAGE_STATUS (that of the status
file). The server refuses to start without them. Optional: SUPERSET_METADATA_URI (default: SQLite in SUPERSET_HOME),
USAGE_HTTPS=1 behind TLS.

Pages read DuckDB files that are replaced as a whole: the link `current` is resolved anew for each connection, so a
query sees exactly one build. DuckDB itself is locked down: read-only alone would still read any file of the machine.
"""

import base64
import html
import os
import re
from collections.abc import Callable
from typing import Any

_PROBLEMS = [
    f"{name} is not set: {remedy}"
    for name, remedy in (
        ("SUPERSET_SECRET_KEY", "give it a long random value, the same at every start"),
        ("USAGE_PUBLISHED", "name the folder of published builds, <home>/published"),
        ("USAGE_STATUS", "name the folder of the status file, <home>/status"),
    )
    if not os.environ.get(name)
]
if _PROBLEMS:
    raise SystemExit("superset_config.py: " + "; ".join(_PROBLEMS))

SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
_HOME = os.environ.get("SUPERSET_HOME", os.path.expanduser("~/.superset"))
SQLALCHEMY_DATABASE_URI = os.environ.get("SUPERSET_METADATA_URI", f"sqlite:///{_HOME}/superset.db?timeout=30")
PUBLISHED = os.environ["USAGE_PUBLISHED"]
STATUS = os.environ["USAGE_STATUS"]
IS_HTTPS = os.environ.get("USAGE_HTTPS") == "1"

APP_NAME = "Usage"
LANGUAGES: dict[str, Any] = {}
FEATURE_FLAGS = {
    "ALERT_REPORTS": False,
    # what a table's cell holds comes from our own marts; links in them are wanted, scripts are removed
    "ESCAPE_MARKDOWN_HTML": False,
    "DRILL_BY": False,
    "DRILL_TO_DETAIL": False,
}
ROW_LIMIT = 10_000
SQL_MAX_ROW = 100_000
SUPERSET_WEBSERVER_TIMEOUT = 60
ENABLE_UI_THEME_ADMINISTRATION = False
FAB_ADD_SECURITY_API = False
AUTH_USER_REGISTRATION = False
PUBLIC_ROLE_LIKE = None

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = IS_HTTPS
SESSION_COOKIE_SAMESITE = "Lax"
PERMANENT_SESSION_LIFETIME = 8 * 3600
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
    },
    "content_security_policy_nonce_in": ["script-src"],
    "force_https": False,  # TLS ends at the proxy
    "session_cookie_secure": IS_HTTPS,
}

# the databases of superset/assets/databases: the folder whose link `current` says what is shown, and the file in it
_FILES = {
    "usage_warehouse": (PUBLISHED, "warehouse.duckdb"),
    "usage_contacts": (PUBLISHED, "contacts.duckdb"),
    "usage_status": (STATUS, "usage_status.duckdb"),
}


def DB_CONNECTION_MUTATOR(uri: Any, params: dict[str, Any], *_: Any) -> tuple[Any, dict[str, Any]]:  # noqa: N802
    """Points a database of ours to the file that is shown now, read-only and locked down."""
    if uri.get_backend_name() != "duckdb":
        return uri, params
    name = os.path.basename(uri.database or "")
    if name not in _FILES:
        raise ValueError(f"no database '{name}': only {', '.join(_FILES)} are served")
    # resolved here, at each connection: the path of a build, or of a status, never changes its content
    folder, file = _FILES[name]
    uri = uri.set(database=os.path.join(os.path.realpath(os.path.join(folder, "current")), file))
    params["connect_args"] = {
        "read_only": True,
        "config": {
            "enable_external_access": "false",
            "lock_configuration": "true",
            "threads": os.environ.get("USAGE_DUCKDB_THREADS", "2"),
            "memory_limit": os.environ.get("USAGE_DUCKDB_MEMORY", "1GB"),
        },
    }
    return uri, params


# ---------------------------------------------------------------- what people see first, and what they take away

FIRST_PAGE = "/superset/dashboard/call-list/"
# drawn here, so that no file and no font comes from anywhere else: four weeks, the last one marked
_LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="28" viewBox="0 0 40 28"><g fill="#1b6ca8">'
    '<rect x="2" y="14" width="6" height="12" rx="1"/><rect x="12" y="8" width="6" height="18" rx="1"/>'
    '<rect x="22" y="2" width="6" height="24" rx="1"/></g>'
    '<rect x="32" y="16" width="6" height="10" rx="1" fill="#d1495b"/></svg>'
)


def _theme(algorithm: str, primary: str) -> dict[str, Any]:
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


THEME_DEFAULT = _theme("default", "#1b6ca8")
THEME_DARK = _theme("dark", "#6db3e8")
_LINK = re.compile(r'^<a href="([^"]+)">[^<]*</a>$')


def without_html(value: Any, host: str) -> Any:
    """A cell of a download: a link becomes the address that it leads to."""
    found = _LINK.match(value) if isinstance(value, str) else None
    return host.rstrip("/") + html.unescape(found[1]) if found else value


def _exporting_without_html(export: Callable[..., Any]) -> Callable[..., Any]:
    def exported(frame: Any, *args: Any, **kwargs: Any) -> Any:
        from flask import request

        texts = {
            name: frame[name].map(lambda v: without_html(v, request.host_url)) for name in frame.select_dtypes("O")
        }
        return export(frame.assign(**texts), *args, **kwargs)

    return exported


def FLASK_APP_MUTATOR(app: Any) -> None:  # noqa: N802
    """Opens the call list after logging in, and lets no HTML into a CSV or XLSX."""
    from flask import redirect, request
    from superset.utils import csv, excel

    @app.before_request
    def first_page() -> Any:
        return redirect(FIRST_PAGE) if request.path == "/superset/welcome/" else None

    csv.df_to_escaped_csv = _exporting_without_html(csv.df_to_escaped_csv)
    excel.df_to_excel = _exporting_without_html(excel.df_to_excel)
