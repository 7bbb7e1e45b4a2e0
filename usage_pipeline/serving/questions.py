"""Every question there is, once: addresses of the read API and tools for agents are made of this list.

Belongs here: name, address, parameters and function of each question, so that both doors take the same filters and
pages, and refuse the same. Does not: HTTP (`web.py`), the protocol of agents (`agents.py`), answers (`reads.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from usage_pipeline.serving import asked
from usage_pipeline.serving.asked import Asked
from usage_pipeline.serving.reads import Answer, Reader, Row


@dataclass(frozen=True)
class Question:
    """A question. tool: its name for agents; address: its path; takes: its parameters, those in the path included.

    rows_for_agents: rows of a page where an agent names no limit, since it pays for every row; None: it has no pages.
    """

    tool: str
    address: str
    about: str
    takes: type[Asked]
    ask: Callable[[Reader, Any], Answer | Row]
    rows_for_agents: int | None = None


ACCOUNTS = Question(
    "accounts",
    "/v1/accounts",
    "Accounts, by name; with an application: those that were ever subscribed to it or used it",
    asked.Filters,
    Reader.accounts,
    20,
)
CALL_LIST = Question(
    "call_list",
    "/v1/call-list",
    "Accounts to call, by priority, with reason, ARR at risk and renewal; of a past week as issued",
    asked.CallListAsked,
    Reader.call_list,
    20,
)
ANOMALIES = Question(
    "anomalies",
    "/v1/anomalies",
    "Anomalous weeks of accounts and applications, newest first, each in a sentence",
    asked.AnomaliesAsked,
    Reader.anomalies,
    20,
)
RENEWALS = Question(
    "renewals",
    "/v1/renewals",
    "Renewals of the days ahead, the next first, with ARR and health",
    asked.RenewalsAsked,
    Reader.renewals,
    20,
)
KPIS = Question(
    "kpi",
    "/v1/kpis",
    "KPIs of entities (all, account, application, segment, region, CSM) over a complete period, beside the period "
    "before and a year ago",
    asked.KpisAsked,
    Reader.kpis,
    50,
)
ACCOUNT = Question(
    "account",
    "/v1/accounts/{account}",
    "Everything about one account but its contacts: summary, call, health, subscriptions, usage, risks and more",
    asked.AccountAsked,
    Reader.account,
)
CONTACTS = Question(
    "contacts",
    "/v1/accounts/{account}/contacts",
    "People to call of an account; the token needs the scope contacts",
    asked.OfAccount,
    Reader.contacts,
)
EXPLAIN = Question(
    "explain",
    "/v1/explain",
    "What stands behind the figures of an account (and application) in a week",
    asked.ExplainAsked,
    Reader.explain,
)
DEFINITIONS = Question(
    "definitions",
    "/v1/definitions",
    "What columns, metrics and KPIs mean, by name or title",
    asked.DefinitionsAsked,
    Reader.definitions,
    20,
)
BUILD = Question(
    "build",
    "/v1/build",
    "Which build is shown, and the day that its data goes through",
    Asked,
    Reader.shown_build,
)
QUESTIONS = {
    question.tool: question
    for question in (
        ACCOUNTS,
        CALL_LIST,
        ANOMALIES,
        RENEWALS,
        KPIS,
        ACCOUNT,
        CONTACTS,
        EXPLAIN,
        DEFINITIONS,
        BUILD,
    )
}
