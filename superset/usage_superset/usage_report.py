"""Who looked at which page: /use-of-dashboards, for administrators only.

It is about the behaviour of people, so it is in no dataset, no chart and no download: one page, drawn here, which asks
who wants it before it asks the metadata. What it shows stands in Superset's own log anyway (`event_log.py`), in SQLite
as in PostgreSQL. Pages that a scheduled report opened are not counted: nobody looked.
"""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from flask import redirect, render_template, request
from flask_login import current_user

from usage_superset.display import date_format
from usage_superset.texts import text

ADDRESS = "/use-of-dashboards"
WEEKS = 4
# accounts of set-up and of the pipeline, which nobody can log in to
_OURS = ("usage-set-up", "warming")


def add_usage_report(app: Any) -> None:
    """Serves the page to administrators."""

    @app.get(ADDRESS)
    def use_of_dashboards() -> Any:
        from superset import security_manager

        if not current_user.is_authenticated:
            return redirect(f"/login/?next={quote(request.path)}")
        if not security_manager.is_admin():
            return text("use.refused"), 403, {"Content-Type": "text/plain"}
        page = render_template("usage_report.html", **_use(datetime.utcnow()))
        return page, 200, {"Cache-Control": "no-store"}


def _use(now: datetime) -> dict[str, Any]:
    from superset.extensions import db
    from superset.models.core import Log
    from superset.models.dashboard import Dashboard

    from superset import security_manager

    since = now - timedelta(weeks=WEEKS)
    users = {
        user.id: user for user in security_manager.get_all_users() if user.is_active and user.username not in _OURS
    }
    titles = dict(db.session.query(Dashboard.id, Dashboard.dashboard_title).all())
    opened = db.session.query(Log.user_id, Log.dashboard_id, Log.dttm).filter(
        Log.action == "dashboard",
        Log.dttm >= since,
        Log.user_id.in_(users),
        Log.dashboard_id.in_(titles),
        Log.json.notlike('%"standalone"%'),
    )
    times: dict[tuple[int, int], list[datetime]] = {}
    for user, dashboard, moment in opened:
        times.setdefault((user, dashboard), []).append(moment)
    looks = [
        {
            "who": users[user].username,
            "title": titles[dashboard],
            "opened": len(moments),
            "days": len({moment.date() for moment in moments}),
            "last": _moment(max(moments)),
        }
        for (user, dashboard), moments in times.items()
    ]
    pages = []
    for number, title in titles.items():
        moments = [moment for (_, dashboard), all_of in times.items() if dashboard == number for moment in all_of]
        people = sum(dashboard == number for _, dashboard in times)
        last = _moment(max(moments)) if moments else text("use.not_opened")
        pages.append({"title": title, "opened": len(moments), "people": people, "last": last})
    looking = {user for user, _ in times}
    return {
        "now": _moment(now),
        "since": since.strftime(date_format()),
        "pages": sorted(pages, key=lambda page: (-page["opened"], page["title"])),
        "looks": sorted(looks, key=lambda look: (look["who"].lower(), -look["opened"], look["title"])),
        "silent": sorted(user.username for number, user in users.items() if number not in looking),
    }


def _moment(moment: datetime) -> str:
    return moment.strftime(f"{date_format()} %H:%M")
