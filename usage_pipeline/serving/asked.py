"""What may be asked, as models that addresses and tools for agents share; and what a wrong question is told.

Belongs here: names, kinds and limits of parameters. Does not: which values a build knows, and answers (`reads.py`).

A parameter that is not known is refused, never left out: an answer to less than was asked looks like an answer.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from usage_pipeline.core.names import meant
from usage_pipeline.kpis.selection import PERIODS
from usage_pipeline.serving.access import LIMITS
from usage_pipeline.serving.parts import ACCOUNT_PARTS

Period = Literal["month", "3 months", "6 months", "12 months", "year to date", "week"]
Status = Literal["open", "done", "snoozed", "all"]
assert set(Period.__args__) == set(PERIODS)  # type: ignore[attr-defined]
MOST_ROWS = 1000
# a question asks for what a person could name: each name is looked up, and compared with all others where it is none
LONGEST_NAME = 200
_MOST_WORDS = 100
# of a value that was wrong, so much is repeated
_LONGEST_REPEATED = 40
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class AskedWronglyError(Exception):
    """A filter or value is not known; the message says what is meant, or what there is."""


def _as_written(value: Any) -> Any:
    """A day as it is written: a bare number would be taken for seconds since 1970."""
    if isinstance(value, date) or (isinstance(value, str) and _DAY.fullmatch(value)):
        return value
    raise ValueError("write a day as YYYY-MM-DD")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Word = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Urgency = Literal["Urgent", "This week", "Watch"]
# several values of a filter: any of them; a text alone is a list of one
Words = Annotated[
    list[Word], BeforeValidator(_as_list, json_schema_input_type=list[Word]), Field(max_length=_MOST_WORDS)
]
Urgencies = Annotated[
    list[Urgency], BeforeValidator(_as_list, json_schema_input_type=list[Urgency]), Field(max_length=_MOST_WORDS)
]
Day = Annotated[date, BeforeValidator(_as_written, json_schema_input_type=date)]


class Asked(BaseModel):
    """A question without a parameter."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Asked):
    """Which rows of the answer are wanted."""

    limit: int = Field(100, ge=1, le=MOST_ROWS, description="rows of a page")
    offset: int = Field(0, ge=0, le=2**31, description="rows to leave out before it; `next_offset` says the next")

    def filters(self) -> dict[str, Any]:
        """What was asked for, without pages and defaults."""
        return self.model_dump(mode="json", exclude={"limit", "offset"}, exclude_defaults=True)


class AccountFilters(Page):
    """Filters of accounts, named as on the pages; several values of one: any of them; several filters: all of them."""

    csm: Words = Field([], description="customer success managers, as the pages name them")
    segment: Words = Field([], description="segments of accounts")
    region: Words = Field([], description="regions of accounts")
    account: Words = Field([], description="accounts, by id or name")


class Filters(AccountFilters):
    """Filters of accounts and applications."""

    application: Words = Field([], description="applications, by key or name")


class CallListAsked(Filters):
    urgency: Urgencies = Field([], description="priorities; default: all")
    week: Day | None = Field(None, description="any day of a past week: the list as it was issued; default: now")
    status: Status = Field("all", description="what came of the call; of the list of now only")


class AnomaliesAsked(Filters):
    confidence: Words = Field([], description="such as high; default: all")
    since: Day | None = Field(None, description="anomalies that last until this day or longer")


class RenewalsAsked(Filters):
    within_days: int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="days ahead; default: all that are listed. The build lists them as far ahead as the setting "
        "`calls.renewal_horizon_days` says (180 by default): `notes` tell through which day",
    )


class KpisAsked(Page):
    """Filters of the KPI sheet, whose rows are about one entity each."""

    csm: Words = Field([], description="CSMs themselves; with `entity_type=account`: their accounts")
    segment: Words = Field([], description="segments themselves; with `entity_type=account`: their accounts")
    region: Words = Field([], description="regions themselves; with `entity_type=account`: their accounts")
    account: Words = Field(
        [],
        description="accounts, by id or name. Of csm, segment, region and account together: the accounts that are in "
        "all of them",
    )
    application: Words = Field(
        [],
        description="applications themselves, by key or name; not beside a filter of accounts: the sheet has no figure "
        "of both",
    )
    period: Period = Field("month", description="what a figure is added up over")
    month: Day | None = Field(
        None, description="any day of the last month of the period (of the week); default: the newest complete one"
    )
    kpi: Words = Field([], description="KPIs by title or key, such as Clicks or clicks")
    kpi_group: Words = Field([], description="groups of KPIs, such as Usage")
    entity_type: Words = Field(
        [],
        description="such as all, account, application, segment, region or CSM; default: what the filters name, or all "
        "types. Not every type has a figure for every period: `notes` say so",
    )
    entity: Words = Field([], description="entities by name or key, of any type")


class AccountParts(Asked):
    part: Words = Field(
        [],
        description="parts that are wanted; default: all",
        json_schema_extra={"items": {"type": "string", "enum": list(ACCOUNT_PARTS)}},
    )
    weeks: int = Field(13, ge=1, le=160, description="weeks of usage, the newest first")


class OfAccount(Asked):
    account: Word = Field(description="account, by id or name")


class AccountAsked(AccountParts, OfAccount):
    """Parts of one account."""


class ExplainAsked(OfAccount):
    application: Word | None = Field(None, description="application, by key or name; default: all of them")
    week: Day | None = Field(None, description="any day of the week; default: the newest complete week")


class DefinitionsAsked(Page):
    limit: int = Field(MOST_ROWS, ge=1, le=MOST_ROWS, description="rows of a page")
    name: Words = Field([], description="columns, metrics or KPIs by name or title; default: all")


A = TypeVar("A", bound=Asked)


def understood(model: type[A], given: Mapping[str, Any]) -> A:
    """A question of what was given; null is as if it were left out. Raises AskedWronglyError with what is wrong."""
    try:
        return model(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise AskedWronglyError(refusal(model, error.errors())) from error


def refusal(model: type[Asked], problems: Iterable[Mapping[str, Any]]) -> str:
    """Each problem of a question in a sentence: which parameter, and what it takes.

    problems: as pydantic tells them, their `loc` beginning with the name of the parameter.
    """
    described = model.model_json_schema()["properties"] if model.model_fields else {}
    said = {}
    for problem in problems:
        name = str(problem["loc"][0])
        said[name] = _refused(name, described.get(name), problem, list(described))
    return "; ".join(said.values())


def _refused(name: str, schema: dict[str, Any] | None, problem: Mapping[str, Any], names: list[str]) -> str:
    if schema is None:
        return _unknown(name, names)
    if problem["type"] == "missing":
        return f"{name} is missing: {schema.get('description', _takes(schema))}"
    value = problem.get("input")
    is_short = isinstance(value, (str, int, float)) and len(str(value)) <= _LONGEST_REPEATED
    return f"{name} takes {_takes(schema)}{f', not {value!r}' if is_short else ''}"


def _takes(schema: dict[str, Any]) -> str:
    """What a parameter takes, in words."""
    kinds = schema.get("anyOf", [schema])
    kind = next(one for one in kinds if one.get("type") != "null")
    if "enum" in kind:
        return f"one of: {', '.join(kind['enum'])}"
    if kind["type"] == "array":
        return f"a list of at most {kind['maxItems']}, each {_takes(kind['items'])}"
    if kind["type"] == "integer":
        return f"a whole number from {kind['minimum']:,} to {kind['maximum']:,}"
    if kind.get("format") == "date":
        return "a day, written YYYY-MM-DD"
    return f"a text of 1 to {kind['maxLength']} characters"


def _unknown(name: str, names: list[str]) -> str:
    if not names:
        return f"there is no parameter '{name}': nothing is asked here"
    near = LIMITS.get(name)
    said = f"; did you mean {near}?" if near in names else meant(name, names)
    there_are = f" There are {', '.join(names)}" if "did you mean" in said else ""
    return f"there is no parameter '{name}'{said}{there_are}"
