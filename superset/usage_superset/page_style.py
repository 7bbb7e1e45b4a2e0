"""How pages look beside what Superset draws: our style sheet, the language, what a telephone needs, the name on top.

Templates below `templates/` stand before Superset's own of the same name: `head_custom_extra.html` is empty there, and
meant for this.
"""

import hashlib
from pathlib import Path
from typing import Any

from flask import send_from_directory

_HERE = Path(__file__).parent
_STYLES = _HERE / "static"
_HOUR = 3600


def add_style(app: Any) -> None:
    """Serves style sheets and templates of ours; every page of Superset names its language."""
    from jinja2 import ChoiceLoader, FileSystemLoader

    app.jinja_loader = ChoiceLoader([FileSystemLoader(_HERE / "templates"), app.jinja_loader])
    app.jinja_env.globals["usage_style"] = style_version()

    @app.get("/usage-style/<name>.<any(css, js):kind>")
    def usage_style(name: str, kind: str) -> Any:
        return send_from_directory(_STYLES, f"{name}.{kind}", max_age=_HOUR)

    @app.after_request
    def say_the_language(response: Any) -> Any:
        if response.mimetype == "text/html" and not response.direct_passthrough:
            page = response.get_data()
            if b"<html>" in page[:4000]:
                response.set_data(page.replace(b"<html>", b'<html lang="en">', 1))
        return response


def style_sheet(name: str) -> str:
    """A style sheet of ours, for a page that is a file."""
    return (_STYLES / f"{name}.css").read_text(encoding="utf-8")


def style_version() -> str:
    """Changes with the style sheets and the script, so that no browser keeps an old one."""
    sheets = b"".join(file.read_bytes() for file in sorted(_STYLES.iterdir()))
    return hashlib.sha256(sheets).hexdigest()[:12]
