"""Working days: a week with a public holiday is expected to be quieter, where that holiday is kept."""

from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache

import holidays
import numpy as np
from numpy.typing import NDArray


def working_days(country: str | None, state: str | None, weeks: Sequence[date]) -> NDArray[np.float64]:
    """Monday to Friday without public holidays, as a share of five, of each week (a Monday).

    Where the country is not known, every week has five; where the state is not, only the holidays of the whole country
    count.
    """
    public = _public(str(country).upper(), state) if is_known(country) else ()
    found = [5 - sum(week + timedelta(days=d) in public for d in range(5)) for week in weeks]
    # a week without any working day is still expected to be used a little
    return np.maximum(np.array(found, dtype=float) / 5, 0.1)


def is_known(country: str | None) -> bool:
    """Whether the public holidays of a country (ISO code) are known."""
    return bool(country) and str(country).upper() in holidays.list_supported_countries()


@cache
def _public(country: str, state: str | None) -> holidays.HolidayBase:
    states = holidays.list_supported_countries().get(country, [])
    return holidays.country_holidays(country, subdiv=state if state in states else None)
