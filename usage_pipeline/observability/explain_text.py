"""An explanation as one screen of plain words.

Belongs here: sentences. Does not: finding anything out (`explain.py`).
"""

import textwrap
from collections import Counter
from datetime import date, timedelta
from typing import Any

from usage_pipeline.core.formatting import day
from usage_pipeline.observability.explain import COMPARED, Explanation, Row

_TITLE = 12
_WIDTH = 118
_USERS_SHOWN = 8
_ROWS_SHOWN = 4
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_BASIS = {
    "application": "from rows of the application",
    "account": "inferred from the account's own rows and from use",
    "usage": "inferred from use alone: no subscription was delivered",
}
_WHY_NOT = {
    "running": "it has not ended yet",
    "never arrived": "the lake never delivered it, or no run has read it: what came is not known, and is not 0",
    "only late rows": "the lake never delivered its folder; what is shown came late, in the folder beside",
    "files quarantined": "a file of it could not be read; what is shown is only what the others hold",
    "many rows rejected": "too many of its rows were rejected to judge by it",
    "far fewer rows than usual": "part of it is probably missing",
    "far more rows than usual": "it was probably delivered twice",
    "not settled yet": "rows may still come late",
    "not read since it ended": "the last run read it before it was over: the next one reads it again",
    "has not begun": "it lies ahead",
    "before the first week on record": "nothing of it was ever read",
}


def as_text(found: Explanation) -> list[str]:
    """One line of text each, at most about a screen."""
    week = found.week.week_start
    lines = [f"{found.application} at {found.account}, week of {day(week)} to {day(week + timedelta(days=6))}", ""]
    for title, paragraphs in (
        ("Week", _week(found)),
        ("Raw rows", _raw(found)),
        ("Subscription", _subscription(found)),
        ("Number", _number(found)),
        ("Expected", _expected(found)),
        ("Use", _use(found)),
        ("Risk", _risk(found)),
        ("Shown by", _shown(found)),
    ):
        for number, paragraph in enumerate(paragraphs):
            head = title if number == 0 else ""
            # a table keeps its columns, a sentence is wrapped
            wrapped = [paragraph] if paragraph.startswith(" ") else textwrap.wrap(paragraph, _WIDTH - _TITLE)
            for place, line in enumerate(wrapped):
                lines.append(f"{head if place == 0 else '':{_TITLE}}{'  ' if place else ''}{line}".rstrip())
    return lines


# ---------------------------------------------------------------- week and raw rows


def _week(found: Explanation) -> list[str]:
    week, manifest = found.week, found.week.manifest
    if week.is_complete:
        lines = ["complete: it may be judged by"]
    else:
        why = _WHY_NOT[week.status]
        if week.status in ("running", "not settled yet"):
            why += f"; it counts as whole from {day(week.settled_on)}"
        lines = [f"not complete ({week.status}): {why}; it enters no rank, trend, anomaly or prediction"]
    if manifest is None:
        return [*lines, f"no facts of it are kept: there is no folder facts/week={week.week_start}"]
    rejected = f" ({_counted(manifest.rejected)})" if manifest.rejected else ""
    lines.append(
        f"its folder: {_many(len(manifest.files), 'file')}, {_n(manifest.rows_read)} rows read on "
        f"{manifest.ingested_at[:16].replace('T', ' ')}: {_n(manifest.rows_kept)} kept, "
        f"{_n(manifest.rows_rejected)} rejected{rejected}, {_n(manifest.duplicates)} dropped as duplicates"
        + (f"; {manifest.lost}" if manifest.lost else "")
    )
    return lines + [f"quarantined: {item['key']}: {item['reason']}" for item in manifest.quarantined[:_ROWS_SHOWN]]


def _raw(found: Explanation) -> list[str]:
    rows = found.raw.rows
    if not rows:
        missing = found.week.manifest is None
        lines = [
            "not known: the week's facts are not there" if missing else "none: nobody came, as far as the facts go"
        ]
    else:
        lines = [f"{_many(len(rows), 'row')} of facts: {_measures(found.raw.sums)}", *_table(found)]
        beside = {row["folder"] for row in rows} - {found.week.week_start}
        for folder in sorted(beside):
            count = sum(row["folder"] == folder for row in rows)
            lines.append(
                f"{_many(count, 'row')} of them lie in the folder of {day(folder)}, and count by their own date"
            )
    if waiting := found.raw.rows_after_as_of:
        lines.append(
            f"{_many(waiting, 'row')} dated after {day(found.as_of_day)}: not counted before that day has come"
        )
    return lines + _rejected(found)


def _table(found: Explanation) -> list[str]:
    """Clicks of each user on each day; users beyond those shown are one line."""
    by_user: dict[str | None, Counter[date | None]] = {}
    for row in found.raw.rows:
        by_user.setdefault(row["user_id"], Counter())[row["day"]] += row["clicks"]
    users = sorted(by_user, key=lambda user: (-by_user[user].total(), str(user)))
    days = [found.week.week_start + timedelta(days=i) for i in range(7)] if found.has_days else []
    width = max([len("all of them"), *(len(_user(user)) for user in users[:_USERS_SHOWN])])

    def line(name: str, clicks: Counter[date | None]) -> str:
        cells = "".join(f"{_n(clicks[on]) if clicks[on] else '.':>7}" for on in days)
        return f"  {name:{width}}{cells}{_n(clicks.total()):>9}"

    lines = [f"  {'clicks by':{width}}{''.join(f'{name:>7}' for name in _DAYS if days)}{'week':>9}"]
    lines += [line(_user(user), by_user[user]) for user in users[:_USERS_SHOWN]]
    if len(users) > _USERS_SHOWN:
        others: Counter[date | None] = sum((by_user[user] for user in users[_USERS_SHOWN:]), Counter())
        lines.append(line(f"{len(users) - _USERS_SHOWN} more", others))
    if len(users) > 1:
        lines.append(line("all of them", sum(by_user.values(), Counter())))
    return lines


def _user(user: str | None) -> str:
    return user or "no user"


def _rejected(found: Explanation) -> list[str]:
    rows = found.raw.rejected
    if not rows:
        return ["rejected rows of this account: none"] if found.week.manifest else []
    reasons = Counter(f"{row['reason']}, {row['application'] or 'no application'}" for row in rows)
    lines = [f"rejected rows of this account, of all its applications: {_counted(reasons)}"]
    for row in rows[:_ROWS_SHOWN]:
        lines.append(f"  {row['reason']}: {row['source_file']} row {row['source_row']}")
    return lines


# ---------------------------------------------------------------- subscription


def _subscription(found: Explanation) -> list[str]:
    subscription = found.subscription
    lines = [_delivered(row) for row in subscription.delivered[:6]]
    if not lines and subscription.is_known:
        lines = ["as delivered: no row for this application, nor for the account as a whole; others of it have some"]
    elif not lines:
        lines = ["as delivered: nothing; whether this account has a subscription is not known"]
    for period in subscription.subscription_periods:
        lines.append(
            f"subscription no. {period['period_number']}: {_span(period)}{_told(period)} ({_BASIS[period['basis']]})"
        )
    in_week = {
        "no subscription": "no subscription is known, so the page has no row for a week without use",
        "not started": "before the subscription began: outside a subscription there is no zero, only what was used",
        "ended": "after the subscription ended: outside a subscription there is no zero, only what was used",
        "between two subscriptions": "between two subscriptions: outside one there is no zero, only what was used",
        "not on record": "within the subscription, but the week is not on record",
    }
    said = in_week.get(subscription.state) if subscription.days == 0 else None
    if said is None:
        at_end = {"ended": "it ended in this week", "notice received": "notice was given"}.get(subscription.state)
        said = f"{subscription.days} of 7 subscribed days" + (f"; {at_end}" if at_end else "")
    return [*lines, f"this week: {said}"]


def _delivered(row: Row) -> str:
    what = row["application"] or "the whole account"
    rejected = f"; not used: {row['rejected']}" if row["rejected"] else ""
    return f"as delivered: {what}, {_span(row)}{_told(row)}{rejected}"


def _span(row: Row) -> str:
    if row["end_date"] is None:
        return f"from {day(row['start_date'])}, running"
    return f"{day(row['start_date'])} to {day(row['end_date'])}"


def _told(row: Row) -> str:
    parts = [
        f", notice on {day(row['notice_date'])}" if row["notice_date"] else "",
        f", {row['end_reason']}" if row["end_reason"] else "",
        f", renewal {day(row['renewal_date'])}" if row["renewal_date"] else "",
        f", {_n(row['seats'])} seats" if row["seats"] is not None else "",
        f", {_n(row['annual_value'])} a year" if row["annual_value"] is not None else "",
    ]
    return "".join(parts)


# ---------------------------------------------------------------- number


def _number(found: Explanation) -> list[str]:
    if found.week.manifest is None and not found.raw.rows:
        told = _told_number(found) if found.shown.build_id else "there is no build yet"
        return [f"on the page: {told}", "there are no raw rows to compare it with: what came is not known"]
    raw = found.raw.sums
    page = "there is no build yet" if found.shown.build_id is None else _told_number(found)
    lines = [f"on the page: {page}", f"raw rows:    {_measures(raw)}"]
    wrong = [title for title, agrees in found.page.agrees.items() if not agrees]
    if found.shown.build_id is None:
        return lines
    if not wrong:
        return [*lines, "they agree"]
    lines.append(f"THEY DO NOT AGREE in {', '.join(wrong)}")
    if all(found.warehouse.agrees.values()):
        lines.append("the warehouse holds the raw rows' numbers: the page shows an older build")
    else:
        lines.append("the warehouse does not hold them either: run `usage-pipeline refresh`, and look at its checks")
    return lines


def _told_number(found: Explanation) -> str:
    row = found.page.row
    if row is None and found.week.status in ("has not begun", "before the first week on record"):
        return f"no row: {found.week.status}"
    if row is None:
        return "no row: neither subscribed, nor used in this week or the same week a year before"
    if row["clicks"] is None:
        why = "nobody came on record" if found.week.is_complete else f"the week is not complete ({row['week_status']})"
        if row["subscribed_days"] == 0:
            why = "outside the subscription and not used; the row is there for the same week a year before"
        return f"empty: {why}"
    told = _measures(found.page.value)
    if row["subscribed_days"] == 0:
        told += ", outside the subscription: they make nobody active"
    elif row["clicks"] == 0:
        told += ": nobody came, and that is known"
    return told


def _measures(values: dict[str, int | None]) -> str:
    return ", ".join(_measure(title, values[title]) for title in COMPARED)


def _measure(title: str, value: int | None) -> str:
    if value is None:
        return f"{title} not delivered"
    word = title.removesuffix("s") if value == 1 else title
    return f"{_n(value)} {word}{' created' if title == 'records' else ''}"


# ---------------------------------------------------------------- expected and anomalies


def _expected(found: Explanation) -> list[str]:
    lines = []
    row = found.expected
    if row is None or row["expected_clicks"] is None:
        if found.subscription.days < 7 or not found.week.is_complete:
            lines.append("nothing: only complete weeks of seven subscribed days are judged")
        else:
            lines.append("nothing: it is too new, or had too little use, to expect a number of it")
    else:
        ranges = []
        for title in COMPARED:
            mean, variance = row[f"expected_{title}"], row[f"variance_{title}"]
            if mean is not None and variance is not None:
                margin = 1.64 * variance**0.5
                ranges.append(f"{_n(max(mean - margin, 0))} to {_n(mean + margin)} {title}")
        lines.append(f"{', '.join(ranges)}, once it is known what all accounts did together")
        if row["clicks_before"] is not None:
            lines.append(f"on the page {_n(row['clicks_before'])} clicks: what was expected before the week was known")
    lines += [_anomaly(anomaly) for anomaly in found.anomalies] or ["no anomaly touches this week"]
    if found.anomalies_as_published is None:
        lines.append(
            "as issued: no anomalies of this week are in the history; it was never the newest in a run of ours"
        )
    else:
        said = ", ".join(_short_anomaly(anomaly) for anomaly in found.anomalies_as_published) or "no anomaly"
        lines.append(f"as issued, and kept: {said}")
    return lines


def _anomaly(anomaly: Row) -> str:
    if anomaly["what_happened"]:
        return f"anomaly, {anomaly['confidence']}, {anomaly['state']}: {anomaly['what_happened']}"
    per_week = (
        f"{_n(anomaly['observed'] / anomaly['weeks'])} came, {_n(anomaly['expected'] / anomaly['weeks'])} expected"
    )
    over = f" a week over {anomaly['weeks']} weeks" if anomaly["weeks"] > 1 else ""
    return f"anomaly, {anomaly['confidence']}, {anomaly['state']}: {_short_anomaly(anomaly)}, {per_week}{over}"


def _short_anomaly(anomaly: Row) -> str:
    about = {"application": " of all accounts of the application", "all": " of all accounts"}.get(anomaly["scope"], "")
    what = anomaly["kind"]
    return f"{what} in {anomaly['measure']}{about} ({anomaly['confidence']})"


# ---------------------------------------------------------------- use and risk


def _use(found: Explanation) -> list[str]:
    state, limits, now = found.state, found.limits, found.state_now
    if state is None:
        why = "the week is not complete" if not found.week.is_complete else "it is no full week of a subscription"
        lines = [f"no state: {why}"]
    else:
        lines = [f"{state['usage_state']}, since the week of {day(state['state_since'])}: {_because(state, limits)}"]
    if now is None:
        return [*lines, f"by {day(found.as_of_day)}: never subscribed and never adopted"]
    today = f"by {day(found.as_of_day)}: {now['subscription_state']}"
    if now["subscription_state"] == "ended":
        today += f" on {day(now['end_date'])}, so it has no usage state and can be neither low nor inactive"
    elif now["usage_state"]:
        today += f", {now['usage_state']}" + (f" ({now['reason']})" if now["reason"] else "")
    never = "not used in the subscription that runs" if now["usage_state"] else "never adopted on record"
    used = f"last used on {day(now['last_used_on'])}" if now["last_used_on"] else never
    return [*lines, f"{today}; {used}"]


def _because(state: Row, limits: dict[str, Any]) -> str:
    recent = f"{state['recent_clicks']:.1f} clicks a week over the last {limits['recent_weeks']} weeks"
    kind = state["usage_state"]
    if kind == "new":
        return f"within the first {limits['new_weeks']} full weeks of the subscription"
    if kind == "never adopted":
        return "no use in any week of the subscription on record"
    if kind == "inactive":
        silent = f"{state['weeks_without_use']} weeks without use, {limits['inactive_weeks']} make it inactive"
        return f"{silent}; last used in the week of {day(state['last_used_week'])}"
    usual = state["usual_clicks"]
    if usual is None:
        return f"{recent}; too new for a usual level"
    level = f"{recent}, usually {usual:.1f} (median of up to {limits['usual_weeks']} weeks before)"
    if usual < limits["low_floor_clicks"]:
        return f"{level}; below {limits['low_floor_clicks']:g} usual clicks nothing is called low"
    bound = limits["low_share"] * usual
    sign = "below" if kind == "low" else "not below"
    return f"{level}; {sign} {100 * limits['low_share']:.0f} % of it, which is {bound:.1f}"


def _risk(found: Explanation) -> list[str]:
    if found.week.week_start == found.newest_week:
        lines = [_probability(row) for row in found.risks]
        if not any(row["application"] for row in found.risks):
            lines.insert(0, f"the application is not scored: {_why_not_scored(found)}")
    else:
        lines = ["only the newest complete week is scored"]
    if found.scores_as_published is None:
        return [*lines, "as issued: no scores of this week are in the history"]
    said = ", ".join(
        f"{row['target']}{'' if row['application'] else ' (whole account)'} {_percent(row['probability'])}"
        + (" listed" if row["is_listed"] else "")
        for row in found.scores_as_published
    )
    return [*lines, f"as issued, and kept: {said or 'not scored'}"]


def _probability(row: Row) -> str:
    about = "" if row["application"] else ", all applications of the account"
    reasons = "; ".join(row[name] for name in ("reason_1", "reason_2", "reason_3") if row[name])
    listed = "listed" if row["is_listed"] else "not listed"
    why = f"; why: {reasons}" if reasons else ""
    positive_signal = f"; against it: {row['positive_signal']}" if row["positive_signal"] else ""
    said = f"{_percent(row['probability'])} ({row['probability_text']}), {listed}, by the {row['method']}"
    return f"{row['title']}{about}: {said}{why}{positive_signal}"


def _why_not_scored(found: Explanation) -> str:
    now = found.state_now
    state = now["subscription_state"] if now else "no subscription"
    if state == "active subscription" and not found.subscription.is_known:
        return "no subscription was delivered, so its end cannot be told, and it is not active"
    if state == "active subscription":
        return "too little is on record of it"
    return {
        "ended": "the subscription has ended",
        "notice received": "its end is announced",
        "not started": "the subscription has not begun",
    }.get(state, "it is not subscribed")


def _percent(probability: float | None) -> str:
    return "probability not known" if probability is None else f"{100 * probability:.0f} %"


# ---------------------------------------------------------------- shown by


def _shown(found: Explanation) -> list[str]:
    shown = found.shown
    if shown.build_id is None:
        return ["nothing is published yet: run `usage-pipeline refresh`"]
    pinned = ", pinned by a rollback until `usage-pipeline rollback --release`" if shown.is_pinned else ""
    through = f"data through the week of {shown.newest_week}"
    lines = [f"build {shown.build_id}, as of {(shown.as_of or '')[:10]}, {through}{pinned}"]
    if shown.warehouse_build not in (None, shown.build_id):
        lines.append(f"the warehouse has moved on: its last build is {shown.warehouse_build}")
    if shown.differences:
        told = [
            f"{name} {_shown_value(a)}, in the warehouse {_shown_value(b)}"
            for name, (a, b) in shown.differences.items()
        ]
        lines.append(f"THE PAGE DIFFERS from the warehouse: {'; '.join(told)}")
    else:
        lines.append("what the page shows of this week is what the warehouse holds")
    return lines


# ---------------------------------------------------------------- words


def _shown_value(value: Any) -> str:
    return "empty" if value is None else str(value)


def _n(number: float | None) -> str:
    return "none" if number is None else f"{number:,.0f}"


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())
