"""The only clock of the product: the moment that a run looks at the data from, and the weeks that follow from it.

Belongs here: what `as_of`, the time zone and the look-back say. Does not: rules of the calendar (`core/weeks.py`), and
when a week is whole (`ingestion/facts.py`). Nobody else asks what time it is, where figures depend on it.
"""

from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from usage_pipeline.core.weeks import WEEK, monday_of


@dataclass(frozen=True)
class Clock:
    """A moment in the zone that days and weeks are cut in; `is_pinned` where it was given and does not go on."""

    as_of: datetime
    timezone: str
    is_pinned: bool
    lookback_weeks: int
    first_week: date | None

    @property
    def as_of_day(self) -> date:
        return self.as_of.astimezone(ZoneInfo(self.timezone)).date()

    @property
    def running_week(self) -> date:
        return monday_of(self.as_of_day)

    @property
    def window_start(self) -> date:
        """First week that is listed and read."""
        return self.running_week - self.lookback_weeks * WEEK

    @property
    def history_start(self) -> date:
        """First week that partitions exist for; earlier than the window, so that old weeks stay visible."""
        if self.first_week is not None:
            return monday_of(self.first_week)
        return monday_of(date(self.window_start.isocalendar().year, 1, 4))
