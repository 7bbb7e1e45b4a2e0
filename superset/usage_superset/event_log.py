"""What Superset writes down of its use: everything but the steps of answering the charts of a page.

Superset commits three rows to its metadata for each kept answer and six for another: a third of what a kept answer
costs, and they grow without end. That a page was opened is a row of its own and stays; so is each reading of what is
not the warehouse's, personal data above all.
"""

from typing import Any

from superset.utils.log import DBEventLogger

from usage_superset.build_cache import may_be_kept

_ASKED = "ChartDataRestApi.data"
_STEPS = {
    "ChartDataRestApi.json_dumps",
    "QueryObject.post_processing",
    "_get_data_response",
    "execute_sql",
    "load_into_dataframe",
}


class EventLog(DBEventLogger):
    """Superset's log in its metadata, without the steps of answering a chart."""

    def log(self, user_id: int | None, action: str, *args: Any, **kwargs: Any) -> None:
        if action in _STEPS or (action == _ASKED and may_be_kept()):
            return
        super().log(user_id, action, *args, **kwargs)
