"""Why a value is null: never 0 for want of data, and never called unknown where it is known that there is none.

Belongs here: the sentences, by column. Does not: what a figure means (`core/catalogue.yaml`).
"""

# of a column, or of a whole table
NO_ROW = "not delivered, or not known yet"
_IN_SOME_ROWS = "empty in some rows: its definition says when"
# what all accounts do together, beside an account of its own
OF_ALL_ACCOUNTS = "tells of all accounts: not open to a token that is limited"
_ORDINARY = "nothing out of the ordinary in that week, or the week is not judged"
_NOBODY_TRIED = "nobody tried to reach them, as far as is recorded"
_GOES_ON = "the subscription has not ended"
_OF_NO_ACCOUNT = "about all accounts together"
_OUTSIDE = "no subscription in force"
# columns where null is an answer: there is none
NONE = {
    "account_id": _OF_NO_ACCOUNT,
    "segment": f"not delivered, or {_OF_NO_ACCOUNT}",
    "region": f"not delivered, or {_OF_NO_ACCOUNT}",
    "owner": f"nobody is named, or {_OF_NO_ACCOUNT}",
    "anomaly": _ORDINARY,
    "application_anomaly": _ORDINARY,
    "platform_anomaly": _ORDINARY,
    "annual_value": "no value was delivered of its subscriptions, or there is none in force",
    "big_change": "no big change",
    "cause": "no cause is on file",
    "champion_last_used_on": "no champion is silent",
    "days_silent_before_end": _GOES_ON,
    "end_date": f"no end was delivered: {_GOES_ON}",
    "end_reason": f"no reason was delivered, or {_GOES_ON}",
    "first_used_on": "not used yet",
    "days_to_first_use": "not used yet",
    "last_used_on": "no use on record",
    "notice_date": "no notice was received",
    "outcome_at": "no outcome was recorded",
    "reached": _NOBODY_TRIED,
    "reason_since": "the reason has no day that it began on",
    "renewal_date": "no renewal date was delivered, or none is ahead",
    "days_to_renewal": "no renewal date was delivered, or none is ahead",
    "seats": "no seats were delivered of its subscriptions, or there is none in force",
    "steady_week": "not used steadily yet",
    "weeks_to_steady_use": "not used steadily yet",
    "usage_state": _OUTSIDE,
    "usage_state_since": _OUTSIDE,
    "use_before_end": _GOES_ON,
    "users_going_on": "no champion is silent",
    "was_reached": _NOBODY_TRIED,
    "weeks_in_state": _OUTSIDE,
}


def why_null(column: str, *, in_every_row: bool) -> str:
    """Why a column is null: in every row of the build, or in some rows of the answer."""
    none = NONE.get(column)
    if in_every_row:
        return f"{NO_ROW}, or in every row: {none}" if none else NO_ROW
    return none or _IN_SOME_ROWS
