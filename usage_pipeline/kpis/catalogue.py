"""The KPI sheet: its catalogue, and what SQL a definition becomes.

Belongs here: `usage_pipeline/kpis.yaml` read and checked, and the parts of SQL that depend on it. Does not: facts,
entities and periods, which are the same for every KPI (`sql/`).

A KPI is one of five kinds, and its kind says how it may be added up; a catalogue that says otherwise is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import duckdb
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from usage_pipeline.config.settings import Sources
from usage_pipeline.core.tables import Aggregation
from usage_pipeline.core.texts import slug, texts

KPIS = Path(__file__).with_name("kpis.yaml")
# the KPI that averages are taken over
DENOMINATOR = "active_accounts"
Need = Literal["users", "records", "subscriptions", "seats", "annual_value"]
Format = Literal[",d", ",.1f", ",.2f", "$,.0f"]
_NAME = r"^[a-z][a-z0-9_]*$"
_TAKEN = ("entity_no", "period_no", "nth", "is_present")
# money and shares too: sums of decimals are the same in whatever order the rows come
_EXACT = "DECIMAL(18, 4)"
_SUBSCRIPTION_COLUMNS = (
    "clicks BIGINT, records_created BIGINT, active_users BIGINT, is_subscribed BOOLEAN, "
    "seats BIGINT, seats_taken BIGINT, annual_value DOUBLE, usage_state VARCHAR, is_at_risk BOOLEAN, change VARCHAR"
)
_USE_COLUMNS = "clicks BIGINT, records_created BIGINT"


class KpiError(ValueError):
    """The catalogue cannot be used; the message names the file, the entry, the field and the remedy."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sum(_Model):
    """An amount of each subscription and month, summed over both."""

    kind: Literal["sum"]
    expression: str = Field(min_length=1)

    @property
    def aggregation(self) -> Aggregation:
        return "additive"

    @property
    def measure(self) -> str:
        return _summed(self.expression)


class Events(_Model):
    """Subscriptions to which something happened, month by month."""

    kind: Literal["events"]
    change: Literal["new", "reactivated", "kept", "lapsed", "churned", "expired"]

    @property
    def aggregation(self) -> Aggregation:
        return "additive"

    @property
    def measure(self) -> str:
        return _summed(f"CAST(change = '{self.change}' AS INTEGER)")


class Distinct(_Model):
    """Different users, accounts or subscriptions with a row of use in the period."""

    kind: Literal["distinct"]
    count: Literal["users", "accounts", "subscriptions"]
    where: str = Field(min_length=1)

    @property
    def aggregation(self) -> Aggregation:
        # an account lies in one segment, but in several applications
        return "semi_additive" if self.count == "subscriptions" else "non_additive"

    @property
    def thing(self) -> str:
        """The number of what is counted, in a row of use."""
        return {"users": "user_no", "accounts": "account_no", "subscriptions": "account_application_no"}[self.count]


class Stock(_Model):
    """What there is at the end of the period's last day."""

    kind: Literal["stock"]
    count: Literal["accounts", "subscriptions"] | None = None
    sum: str | None = Field(None, min_length=1)
    where: str = Field(min_length=1)

    @model_validator(mode="after")
    def _counts_or_sums(self) -> Self:
        if (self.count is None) == (self.sum is None):
            raise ValueError("give either `count` (accounts or subscriptions) or `sum` (an expression)")
        return self

    @property
    def aggregation(self) -> Aggregation:
        return "non_additive" if self.count == "accounts" else "semi_additive"

    @property
    def measure(self) -> str:
        where = f"FILTER (WHERE {self.where})"
        if self.sum is None:
            counted = "DISTINCT account_no"
            if self.count == "subscriptions":
                # a subscription about a whole account is no application of it
                counted, where = "*", f"FILTER (WHERE ({self.where}) AND NOT is_whole_account)"
            # where the condition is unknown for all, so is the count
            return f"CASE WHEN count(({self.where})) > 0 THEN count({counted}) {where} END"
        # what is subscribed at no known price is worth nobody knows how much; where nothing is, that is 0
        return (
            f"CASE WHEN count(*) {where} > 0 THEN {_summed(self.sum)} {where} WHEN count(({self.where})) > 0 THEN 0 END"
        )


class Ratio(_Model):
    """The numerators of the period's months divided by their denominators."""

    kind: Literal["ratio"]
    numerator: str
    denominator: str
    in_percent: bool = False

    @property
    def aggregation(self) -> Aggregation:
        return "non_additive"


Computed = Annotated[Sum | Events | Distinct | Stock | Ratio, Field(discriminator="kind")]


class BigChange(_Model):
    """A rate never stands without its floor."""

    share: float = Field(gt=0, description="smallest difference, as a share of the value a year ago")
    floor: float = Field(gt=0, description="smallest difference, in the KPI's unit")


class Part(_Model):
    """A figure that only ratios are made of."""

    name: str = Field(pattern=_NAME)
    description: str = Field(min_length=1)
    computed: Sum | Events | Stock = Field(discriminator="kind")


class Kpi(_Model):
    """An entry of the catalogue; `kpis.yaml` says what each field means."""

    name: str = Field(pattern=_NAME)
    title: str = Field(min_length=1)
    description: str = Field(min_length=1)
    unit: str = Field(min_length=1)
    format: Format
    group: str = Field(min_length=1)
    aggregation: Aggregation
    computed: Computed
    needs: tuple[Need, ...] = ()
    per_active_account: bool
    good: Literal["up", "down", "neither"]
    big_change: BigChange

    @model_validator(mode="after")
    def _adds_up_as_its_kind(self) -> Self:
        if self.aggregation != self.computed.aggregation:
            raise ValueError(
                f"aggregation is '{self.aggregation}', but it is computed as '{self.computed.aggregation}': write that"
            )
        return self


class KpiCatalogue(_Model):
    """KPIs in the order of the page, and the parts of their ratios."""

    kpis: tuple[Kpi, ...]
    parts: tuple[Part, ...]

    @property
    def entries(self) -> list[Kpi | Part]:
        return [*self.kpis, *self.parts]

    def of_kind(self, *kinds: str) -> list[Kpi | Part]:
        """The KPIs and parts that are computed so."""
        return [entry for entry in self.entries if entry.computed.kind in kinds]


def read_kpis(file: Path = KPIS, told: Mapping[str, str] | None = None) -> KpiCatalogue:
    """The catalogue; `told`: texts by id, of the language in force where none are given.

    Raises KpiError with the first thing that is wrong.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise KpiError(f"{file.name}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("kpis"), dict) or set(content) > {"kpis", "parts"}:
        raise KpiError(f"{file.name}: expected the keys `kpis` and `parts`, each with entries by name")
    told = texts() if told is None else told
    kpis = tuple(
        _entry(Kpi, name, _with_texts(name, entry, told, file), file) for name, entry in content["kpis"].items()
    )
    parts = tuple(_entry(Part, name, entry, file) for name, entry in (content.get("parts") or {}).items())
    catalogue = KpiCatalogue(kpis=kpis, parts=parts)
    for problem in _problems(catalogue):
        raise KpiError(f"{file.name}: {problem}")
    return catalogue


def text_ids(name: str, unit: str, group: str) -> dict[str, str]:
    """The ids of a KPI's texts, by field."""
    return {
        "title": f"kpi.{name}.title",
        "description": f"kpi.{name}.description",
        "unit": f"kpi_unit.{slug(unit)}",
        "group": f"kpi_group.{slug(group)}",
    }


def _with_texts(name: str, entry: object, told: Mapping[str, str], file: Path) -> object:
    if not isinstance(entry, dict):
        return entry
    for field in ("title", "description"):
        if field in entry:
            raise KpiError(f"{file.name}: {name}: {field}: texts stand in usage_pipeline/texts; move it there")
    filled = {}
    for field, key in text_ids(name, str(entry.get("unit")), str(entry.get("group"))).items():
        if field in ("unit", "group") and field not in entry:
            continue  # said to be missing by the model
        if key not in told:
            raise KpiError(f"{file.name}: {name}: {field}: there is no text {key}; add it to usage_pipeline/texts")
        filled[field] = told[key]
    return entry | filled


def _entry(kind: type[Any], name: str, entry: object, file: Path) -> Any:
    if not isinstance(entry, dict):
        raise KpiError(f"{file.name}: {name}: expected fields such as unit, format and computed")
    try:
        return kind(name=name, **entry)
    except ValidationError as error:
        first = error.errors()[0]
        # pydantic names the kind that it tried in the location; a reader of the YAML knows the field
        kinds = ("sum", "events", "distinct", "stock", "ratio")
        where = ".".join(str(part) for part in first["loc"] if part not in kinds) or "the entry"
        remedy = {"missing": "missing; add it", "extra_forbidden": "unknown field; remove it or correct it"}
        message = remedy.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise KpiError(f"{file.name}: {name}: {where}: {message}") from error


def _problems(catalogue: KpiCatalogue) -> list[str]:
    """What is wrong between entries, a sentence each."""
    problems = []
    names = [entry.name for entry in catalogue.entries]
    titles = [kpi.title for kpi in catalogue.kpis]
    for name in {name for name in names if names.count(name) > 1}:
        problems.append(f"{name}: stands under kpis and under parts; rename one of them")
    problems += [f"{name}: the name is taken by a column of ours; rename it" for name in names if name in _TAKEN]
    for title in {title for title in titles if titles.count(title) > 1}:
        problems.append(f"title: two KPIs are called '{title}'; a reader could not tell them apart")
    summable = {entry.name for entry in catalogue.of_kind("sum", "events", "distinct", "stock")}
    for kpi in catalogue.kpis:
        if isinstance(kpi.computed, Ratio):
            for field in ("numerator", "denominator"):
                if (name := getattr(kpi.computed, field)) not in summable:
                    problems.append(
                        f"{kpi.name}: computed.{field}: '{name}' is no KPI or part that can be summed; "
                        f"there are {', '.join(sorted(summable))}"
                    )
    over = next((kpi for kpi in catalogue.kpis if kpi.name == DENOMINATOR), None)
    if over is None or not isinstance(over.computed, Distinct) or over.computed.count != "accounts":
        problems.append(f"{DENOMINATOR}: averages are taken over it; it must be there, as a distinct count of accounts")
    return problems


def check_expressions(catalogue: KpiCatalogue) -> None:
    """Raises KpiError where an expression or condition cannot be computed over the columns that there are."""
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE subscriptions ({_SUBSCRIPTION_COLUMNS})")
        connection.execute(f"CREATE TABLE use ({_USE_COLUMNS})")
        for entry in catalogue.of_kind("sum", "stock", "distinct"):
            table, columns = "subscriptions", _SUBSCRIPTION_COLUMNS
            if entry.computed.kind == "distinct":
                table, columns = "use", _USE_COLUMNS
            for field, kind in (("expression", "DOUBLE"), ("sum", "DOUBLE"), ("where", "BOOLEAN")):
                if (sql := getattr(entry.computed, field, None)) is None:
                    continue
                try:
                    connection.execute(f"SELECT CAST(({sql}) AS {kind}) FROM {table}")
                except duckdb.Error as error:
                    first = str(error).strip().splitlines()[0]
                    known = ", ".join(column.split()[0] for column in columns.split(", "))
                    raise KpiError(f"{entry.name}: computed.{field}: {first}; it may name {known}") from error


def delivered(sources: Sources) -> dict[str, bool]:
    """Of what KPIs need, whether the sources deliver it."""
    usage, subscriptions = sources.usage, sources.subscriptions
    return {
        "users": usage.delivers("user_id"),
        "records": usage.delivers("records_created"),
        "subscriptions": subscriptions is not None,
        "seats": subscriptions is not None and subscriptions.delivers("seats"),
        "annual_value": subscriptions is not None and subscriptions.delivers("annual_value"),
    }


def _summed(expression: str) -> str:
    return f"sum(CAST(({expression}) AS {_EXACT}))"


def measures(catalogue: KpiCatalogue) -> str:
    """The select list of sums, events and stocks over rows of subscriptions."""
    entries = catalogue.of_kind("sum", "events", "stock")
    return ", ".join(f"CAST({e.computed.measure} AS DOUBLE) AS {e.name}" for e in entries)  # type: ignore[union-attr]


def filled(catalogue: KpiCatalogue, is_delivered: Mapping[str, bool]) -> str:
    """The select list of an entity's month: its figure, and 0 where it was not there and the figure is known at all.

    Reads `own` (the entity's row), `known` (that of nothing) and `counted` (different users and so on).
    """
    columns = [
        f"CASE WHEN own.entity_no IS NOT NULL THEN own.{e.name} WHEN known.{e.name} IS NOT NULL THEN 0 END AS {e.name}"
        for e in catalogue.of_kind("sum", "events", "stock")
    ]
    columns += [_counted(e, is_delivered) for e in catalogue.of_kind("distinct")]
    return ", ".join(columns)


def _counted(entry: Kpi | Part, is_delivered: Mapping[str, bool]) -> str:
    needs = entry.needs if isinstance(entry, Kpi) else ()
    value = (
        f"coalesce(counted.{entry.name}, 0)" if all(is_delivered[need] for need in needs) else "CAST(NULL AS BIGINT)"
    )
    return f"{value} AS {entry.name}"


def pivoted(catalogue: KpiCatalogue) -> str:
    """The select list that makes a column of each distinct count."""
    return ", ".join(
        f"max(number) FILTER (WHERE kpi = '{entry.name}') AS {entry.name}" for entry in catalogue.of_kind("distinct")
    )


def over_periods(catalogue: KpiCatalogue, is_delivered: Mapping[str, bool]) -> str:
    """The select list of a period, over the filled months of an entity (`steps`) that lie in it."""
    columns = []
    for kpi in catalogue.kpis:
        if not all(is_delivered[need] for need in kpi.needs):
            value = "NULL"
        elif isinstance(kpi.computed, Distinct):
            value = f"any_value(counted.{kpi.name})"
            value = f"coalesce({value}, 0)"
        elif isinstance(kpi.computed, Stock):
            value = f"max(steps.{kpi.name}) FILTER (WHERE steps.nth = periods.last_nth)"
        elif isinstance(kpi.computed, Ratio):
            value = _ratio(kpi.computed)
        else:
            value = f"CASE WHEN count(steps.{kpi.name}) = count(*) THEN sum(steps.{kpi.name}) END"
        columns.append(f"CAST({value} AS DOUBLE) AS {kpi.name}")
    return ", ".join(columns)


def _ratio(ratio: Ratio) -> str:
    """NULL where a month is not known; a month without a denominator has no share in either sum."""
    above, below = f"steps.{ratio.numerator}", f"steps.{ratio.denominator}"
    counts = f"FILTER (WHERE {below} > 0)"
    return (
        f"CASE WHEN count({above}) = count(*) AND count({below}) = count(*) "
        f"THEN {100 if ratio.in_percent else 1} * sum({above}) {counts} / sum({below}) {counts} END"
    )
