"""Who is a regular user of an account's application: one definition for anomalies, risks, people, and their sentences.

As of a week, a regular user came in at least `REGULAR_WEEKS` complete weeks of the baseline; the baseline is the
`BASELINE_WEEKS` weeks before the `RECENT_WEEKS` that end with the week. Who of them did not come in the recent weeks is
lost. The model learns with it, so it is no setting.
"""

REGULAR_WEEKS = 2
BASELINE_WEEKS = 8
RECENT_WEEKS = 4


def regular_user_values() -> dict[str, int]:
    """What SQL files bind of it: weeks ago are counted from the week of as-of, which is 0."""
    return {
        "regular_weeks": REGULAR_WEEKS,
        "regular_recent_weeks": RECENT_WEEKS,
        "regular_reach_weeks": RECENT_WEEKS + BASELINE_WEEKS,
    }
