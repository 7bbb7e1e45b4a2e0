"""The account brief: /brief/<account>, one page for the meeting with a customer, to be printed or saved as PDF.

Belongs here: what stands on it, read as any chart reads it, for the person who asks, and the picture of two years of
use. Does not: how it is laid out (`templates/account_brief.html`). Contacts are on it for their role alone, and only
where they are asked for (`?contacts=1`). No script. `briefs.py` writes the same as files.
"""

from datetime import date, timedelta
from typing import Any
from urllib.parse import quote

from flask import redirect, render_template, request

from usage_superset.display import date_format, money
from usage_superset.page_links import chosen_before, logged_in, may_see_contacts, no_such
from usage_superset.rows import rows_of
from usage_superset.texts import number, text

_WIDTH, _HEIGHT, _LEFT = 700, 150, 46
_RECENT_WEEKS = 13
_SUMMARY = [
    *("account", "segment", "region", "owner", "renewal_date", "days_to_renewal", "notice_date", "last_used_on"),
    *("applications_owned", "applications_used", "seats", "active_users", "annual_value"),
]
_APPLICATIONS = [
    *("application", "subscription_state", "usage_state", "usage_trend", "recent_clicks", "usual_clicks", "seats"),
    *("annual_value", "renewal_date"),
]


def add_brief(app: Any) -> None:
    """Serves the brief, and leads to that of the account that the page before was about."""

    @app.get("/brief/")
    def brief_of_the_page() -> Any:
        if away := logged_in():
            return away
        chosen = chosen_before().get("account")
        return redirect(f"/brief/{quote(chosen[0], safe='')}" if chosen else "/superset/dashboard/account/")

    @app.get("/brief/<path:name>")
    def brief(name: str) -> Any:
        if away := logged_in():
            return away
        found = rows_of("accounts_summary", _SUMMARY, {"account": name})
        if not found:
            return no_such("account", name, "brief")
        is_open = may_see_contacts()
        parts = brief_of(found[0], with_contacts=is_open and request.args.get("contacts") == "1")
        page = render_template("account_brief.html", **parts, may_see_contacts=is_open)
        return page, 200, {"Cache-Control": "no-store"}

    app.jinja_env.filters |= {"day": _day, "money": _money, "count": _count, "share": _share}


def brief_as_file(name: str, *, with_contacts: bool) -> str:
    """The brief of an account that is there, with its styles in it and no way to other pages."""
    from usage_superset.page_style import style_sheet

    (account,) = rows_of("accounts_summary", _SUMMARY, {"account": name})
    parts = brief_of(account, with_contacts=with_contacts)
    styles = style_sheet("small-pages") + style_sheet("brief")
    return render_template("account_brief.html", **parts, styles=styles)


def brief_of(account: dict[str, Any], *, with_contacts: bool) -> dict[str, Any]:
    """What stands on the brief of an account; each part empty where its data is not delivered."""
    of_account = {"account": account["account"]}
    health = rows_of(
        "account_health",
        ["health", "health_color", "health_reason"],
        of_account | {"application_key": "all"},
    )
    weeks = rows_of(
        "usage_by_week",
        ["week_start", "clicks", "expected_clicks"],
        of_account | {"is_complete": True},
        limit=10_000,
    )
    build = rows_of("build", ["data_through"])
    through = date.fromisoformat(build[0]["data_through"]) if build else date.max
    since = (through - timedelta(weeks=_RECENT_WEEKS)).isoformat()
    anomalies = rows_of(
        "anomaly_weeks",
        ["first_week", "last_week", "what_happened"],
        of_account | {"scope": "account", "is_event_row": True},
    )
    recent = [row for row in anomalies if (row["last_week"] or "") >= since]
    return {
        "account": account,
        "health": health[0] if health else None,
        "factors": sorted(
            rows_of(
                "health_factor_points",
                ["factor", "measured_text", "points", "points_missing"],
                of_account | {"application_key": "all"},
            ),
            key=lambda row: -(row["points_missing"] or 0),
        ),
        "picture": picture(weeks),
        "peers": rows_of(
            "peers",
            ["peer_measure", "peer_value", "percentile", "peers", "peer_group"],
            of_account | {"application_key": "all"},
        ),
        "applications": _in_force(rows_of("subscription_overview", _APPLICATIONS, of_account)),
        "anomalies": sorted(recent, key=lambda row: row["first_week"], reverse=True),
        "renewals": sorted(
            rows_of("renewals", ["renewal_date", "renewing", "arr_renewing"], of_account),
            key=lambda row: row["renewal_date"],
        ),
        "reasons": sorted(
            rows_of("call_reasons", ["urgency_rank", "call_reason", "application", "reason"], of_account),
            key=lambda row: row["urgency_rank"],
        ),
        "status": rows_of("call_status", ["call_status_text"], of_account, schema="outcomes"),
        "contacts": rows_of("account_contacts", ["name", "role", "email", "phone"], of_account, schema="personal")
        if with_contacts
        else [],
        "data_through": build[0]["data_through"] if build else None,
    }


def _in_force(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    running = [row for row in rows if row["subscription_state"] in ("active subscription", "notice received")]
    return sorted(running, key=lambda row: (-(row["annual_value"] or 0), row["application"]))


# ---------------------------------------------------------------- the picture


def picture(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Points of clicks and of what was expected, week by week, in the units of the drawing; None without two weeks."""
    clicks: dict[str, float] = {}
    expected: dict[str, float] = {}
    for row in rows:
        clicks[row["week_start"]] = clicks.get(row["week_start"], 0) + (row["clicks"] or 0)
        expected[row["week_start"]] = expected.get(row["week_start"], 0) + (row["expected_clicks"] or 0)
    days = sorted(clicks)
    most = max([*clicks.values(), *expected.values()], default=0)
    if len(days) < 2 or most == 0:
        return None
    first = date.fromisoformat(days[0])
    span = (date.fromisoformat(days[-1]) - first).days

    def points(values: dict[str, float]) -> str:
        return " ".join(
            f"{_LEFT + (date.fromisoformat(day) - first).days / span * (_WIDTH - _LEFT):.1f},"
            f"{_HEIGHT * (1 - values[day] / most):.1f}"
            for day in days
            if values[day] or values is clicks
        )

    return {
        "clicks": points(clicks),
        "expected": points(expected),
        "most": most,
        "first": days[0],
        "last": days[-1],
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
    }


# ---------------------------------------------------------------- how values are written


def _day(value: str | None) -> str:
    return date.fromisoformat(value[:10]).strftime(date_format()) if value else text("word.not_known")


def _money(value: float | None) -> str:
    return money(value) if value is not None else text("word.not_delivered")


def _count(value: float | None, places: int = 0) -> str:
    return number(value, places) if value is not None else text("word.not_delivered")


def _share(value: float | None) -> str:
    return f"{value:.0%}" if value is not None else text("word.not_known")
