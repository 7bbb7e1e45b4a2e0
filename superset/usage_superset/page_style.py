"""How pages look beside what Superset draws: our style sheet, the language, what a telephone needs, the name on top.

Templates below `templates/` stand before Superset's own of the same name: `head_custom_extra.html` is empty there, and
meant for this.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from flask import Response, abort, request, send_file
from markupsafe import Markup

from usage_superset.texts import filled, language, shown, slug, text

_HERE = Path(__file__).parent
_STYLES = _HERE / "static"
_HOUR = 3600
_MIMETYPES = {".css": "text/css", ".js": "text/javascript"}


def add_style(app: Any) -> None:
    """Serves style sheets and templates of ours; every page of Superset names its language."""
    from jinja2 import ChoiceLoader, FileSystemLoader

    app.jinja_loader = ChoiceLoader([FileSystemLoader(_HERE / "templates"), app.jinja_loader])
    app.jinja_env.globals |= {
        "usage_style": style_version(),
        "language": language(),
        "text": _html,
        "slug": slug,
        "shown": shown,
    }

    @app.get("/usage-style/<name>")
    def usage_style(name: str) -> Any:
        if name not in _static():
            abort(404)
        answer = Response(_static()[name], mimetype=_MIMETYPES[Path(name).suffix])
        answer.cache_control.max_age = _HOUR
        return answer

    @app.before_request
    def words_of_superset_itself() -> Any:
        # Superset gives them to whoever may see pages; the log-in page needs them too, and they are no secret
        if request.path != f"/superset/language_pack/{language()}/":
            return None
        import superset

        file = Path(superset.__file__).parent / "translations" / language() / "LC_MESSAGES" / "messages.json"
        return send_file(file, mimetype="application/json", max_age=_HOUR) if file.exists() else None

    @app.after_request
    def say_the_language(response: Any) -> Any:
        if response.mimetype == "text/html" and not response.direct_passthrough:
            page = response.get_data()
            if b"<html>" in page[:4000]:
                response.set_data(page.replace(b"<html>", f'<html lang="{language()}">'.encode(), 1))
        return response


def style_sheet(name: str) -> str:
    """A style sheet of ours, for a page that is a file."""
    return _static()[f"{name}.css"]


def style_version() -> str:
    """Changes with the style sheets and the script, so that no browser keeps an old one."""
    return hashlib.sha256("".join(_static().values()).encode()).hexdigest()[:12]


@cache
def _static() -> dict[str, str]:
    """The style sheets and the script by name, with their texts."""
    files = sorted(file for file in _STYLES.iterdir() if file.suffix in _MIMETYPES)
    return {file.name: filled(file.read_text(encoding="utf-8")) for file in files}


def _html(name: str, /, **values: Any) -> Markup:
    """A text for a template: texts are ours and may stand as they are, values are escaped."""
    return Markup(text(name)).format(**values) if values else Markup(text(name))  # noqa: S704 - of the catalogue
