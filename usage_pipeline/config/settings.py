"""`sources.yaml`: where the data lies, how its columns map onto ours, and the settings of a run.

Belongs here: the typed configuration and its loading. Everything is checked before anything is read; each
mistake is one sentence that names the file, the key, and the remedy. Does not: paths (`data_home.py`), time
(`clock.py`), and looking into the data (`ingestion/sources.py` matches columns against what the files really hold).

Odd cases: relative paths are relative to the configuration's own folder; `${NAME}` and `${NAME:-default}` are
taken from the environment, so that no secret and no path of a machine needs to stand in the file.
"""

import difflib
import os
import re
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from usage_pipeline.config.clock import Clock
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.source_schemas import SOURCE_SCHEMAS
from usage_pipeline.core.weeks import PartitionCalendar, monday_of

CONFIG_VARIABLE = "USAGE_PIPELINE_CONFIG"
AS_OF_VARIABLE = "USAGE_PIPELINE_AS_OF"
SILENT_VARIABLE = "USAGE_DISABLE_NOTIFICATIONS"

Discount = Annotated[float, Field(gt=0.5, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds one sentence each, with the remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expression(_Model):
    """A column of ours computed from theirs."""

    sql: str = Field(description="DuckDB expression over the source's own columns", min_length=1)


class FileSet(_Model):
    """Files of one shape in one place."""

    path: str = Field(description="a file, a folder (all files of the format below it) or a glob; folder or s3://")
    format: Literal["parquet", "csv"] = Field("parquet", description="how the files are written")
    partitioned: bool = Field(False, description="whether the files lie in year=/week= folders below `path`")
    delimiter: str | None = Field(None, description="CSV only; found by looking at the file where absent")


class EarlierColumns(_Model):
    """Names that columns had in older week folders, before somebody renamed them."""

    until: date = Field(description="any day of the last week whose folder has these names")
    columns: dict[str, str | Expression] = Field(description="only the columns that were named otherwise")


class DeliverySettings(_Model):
    """When a new delivery of a reference source cannot be right, and the one before stays in force."""

    min_rows: Positive = Field(
        20, description="rows of the delivery before, and ids in use, below which shares say too little to go by"
    )
    min_share: Share = Field(0.7, description="share of the rows before, below which a delivery is held back")
    max_share: float = Field(2.0, ge=1, description="the same, above which it is held back")
    max_keys_gone: Share = Field(0.2, description="share of the keys before that are gone, above which it is held back")
    max_match_lost: Share = Field(
        0.2, description="share of what is in use that the delivery before knew and it does not, likewise"
    )


class Source(_Model):
    """One source: a plain set of files (pruned by week), or a SELECT over several named sets."""

    path: str | None = Field(None, description="a file, a folder or a glob, or s3://; without it `files` and `query`")
    format: Literal["parquet", "csv"] = Field("parquet", description="how the files are written")
    partitioned: bool = Field(False, description="whether the files lie in year=/week= folders below `path`")
    delimiter: str | None = Field(None, description="CSV only; found by looking at the file where absent")
    files: dict[str, FileSet] = Field(default_factory=dict, description="named sets, each a table of `query`")
    query: str | None = Field(None, description="SELECT over the named sets; a join or a union")
    columns: dict[str, str | Expression] = Field(description="our column: theirs, or {sql: expression}")
    earlier: list[EarlierColumns] = Field(
        default_factory=list, description="usage in week folders only: columns that were renamed half-way through"
    )
    partition_calendar: PartitionCalendar = Field(
        "iso", description="which year the folder of 30 December carries: that of its ISO week, or the calendar's"
    )
    partition_timezone: str | None = Field(None, description="zone that the folders are cut in, if not `timezone`")
    null_values: list[str] = Field(
        default_factory=list,
        description="words that mean that a cell is empty, such as NA; in any case",
    )
    date_order: Literal["auto", "mdy", "dmy"] = Field(
        "auto", description="whether month or day comes first in days such as 03/01/2025; auto: the data says"
    )
    decimal: Literal["auto", "point", "comma"] = Field(
        "auto", description="which sign of 1.200 or 1,200 in text is the decimal sign; auto: the column says"
    )
    end_reasons: dict[str, Literal["cancelled", "completed", "renewed"]] = Field(
        default_factory=dict,
        description="subscriptions only: your words for why one ended, and ours",
    )
    call_statuses: dict[str, Literal["done", "snoozed", "open"]] = Field(
        default_factory=dict,
        description="crm_outcomes only: your words for what became of a call, and ours",
    )
    deliveries: DeliverySettings = Field(
        DeliverySettings(), description="reference sources only: when a delivery is held back"
    )

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if (self.path is None) == (not self.files):
            raise ValueError("give either `path` (a plain set of files) or `files` with a `query`, not both or neither")
        if bool(self.files) != bool(self.query):
            raise ValueError("`files` and `query` go together: the query is a SELECT over the named sets")
        if any(files.partitioned for files in self.files.values()):
            raise ValueError("a source with a `query` is read whole: `partitioned` belongs to a plain set of files")
        if self.earlier and not self.partitioned:
            raise ValueError("`earlier` goes by week folders: a source that is read whole renames in its `query`")
        if self.partition_timezone is not None and self.partition_timezone not in available_timezones():
            hint = _did_you_mean(self.partition_timezone, available_timezones())
            raise ValueError(f"partition_timezone '{self.partition_timezone}' is not a time zone{hint}")
        for name in self.files:
            if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
                raise ValueError(f"the file set '{name}' is used as a table: lower-case letters, digits and _ only")
        return self

    @property
    def file_sets(self) -> dict[str, FileSet]:
        """The named sets; a plain set is named `files`."""
        if self.path is None:
            return self.files
        plain = FileSet(path=self.path, format=self.format, partitioned=self.partitioned, delimiter=self.delimiter)
        return {"files": plain}

    def at(self, week: date) -> "Source":
        """The source as it is to be read in one week (a Monday): with the names that its columns had then."""
        valid = [names for names in self.earlier if monday_of(names.until) >= week]
        then = min(valid, key=lambda names: names.until).columns if valid else {}
        return self.model_copy(update={"columns": self.columns | then, "earlier": []})

    def delivers(self, column: str) -> bool:
        """Whether the source has this column of ours at all: what it does not deliver is unknown, never 0."""
        return column in self.columns


class Sources(_Model):
    """The seven sources; only usage is indispensable."""

    usage: Source
    accounts: Source | None = None
    subscriptions: Source | None = None
    contacts: Source | None = None
    applications: Source | None = None
    known_causes: Source | None = None
    crm_outcomes: Source | None = None

    def get(self, name: str) -> Source | None:
        source: Source | None = getattr(self, name)
        return source

    @model_validator(mode="after")
    def _known_columns(self) -> Self:
        for name, schema in SOURCE_SCHEMAS.items():
            source = self.get(name)
            if source is None:
                continue
            earlier = [column for names in source.earlier for column in names.columns]
            for column in [*source.columns, *earlier]:
                if column not in schema.names:
                    raise ValueError(
                        f"{name}.columns.{column} is not a column of ours{_did_you_mean(column, schema.names)}; "
                        f"{name} has {', '.join(schema.names)}"
                    )
            wanted = set(schema.required)
            missing = sorted(wanted - set(source.columns))
            if missing:
                raise ValueError(f"{name}.columns lacks {', '.join(missing)}, which cannot be missing: map it")
            if source.end_reasons and name != "subscriptions":
                raise ValueError(f"{name}.end_reasons: only subscriptions end; remove it")
            if source.call_statuses and name != "crm_outcomes":
                raise ValueError(f"{name}.call_statuses: only calls of crm_outcomes have one; remove it")
        if self.usage.deliveries != DeliverySettings():
            raise ValueError(
                "usage.deliveries: only deliveries of reference sources are held back; weeks of usage that are too "
                "small or too large are marked by completeness.collapse_share and completeness.explosion_share"
            )
        if not self.usage.partitioned and not self.usage.delivers("event_time"):
            raise ValueError(
                "usage.columns lacks event_time: without year=/week= folders nothing says when usage happened; "
                "map event_time, or set usage.partitioned: true"
            )
        return self


class StoreSettings(_Model):
    """How s3:// paths are reached; whatever is absent comes from the usual AWS chain (environment, profile, role)."""

    endpoint: str | None = Field(None, description="address of an S3-compatible store, http:// or https://")
    region: str | None = Field(None, description="region of the buckets")
    profile: str | None = Field(None, description="profile of the AWS configuration files")
    access_key_id: str | None = Field(None, description="${NAME} of the environment, never the key itself")
    secret_access_key: str | None = Field(None, description="${NAME} of the environment, never the key itself")
    session_token: str | None = Field(None, description="${NAME} of the environment, never the token itself")
    retry_seconds: float = Field(
        60, ge=0, description="pauses, in all, between the 4 times that a file is asked for before it is left for later"
    )
    timeout_seconds: float = Field(10, gt=0, description="seconds without an answer before it is asked again")

    @field_validator("endpoint")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/]", value):
            raise ValueError("write the address with http:// or https://")
        return value


class SparkSettings(_Model):
    """Where Spark Connect listens; what the cluster needs to read the lake is set there, and never sent from here."""

    connect: str = Field(pattern=r"^sc://[^\s/:;@]+(:\d+)?$", description="sc://host:15002 of the Spark Connect server")
    token: str | None = Field(None, description="${NAME} of the environment, never the token itself; wants tls")
    tls: bool = Field(False, description="whether the server, or the proxy before it, speaks TLS")
    weeks_at_once: Positive = Field(4, description="weeks that the cluster is given side by side")
    wait_seconds: Positive = Field(20, description="seconds to wait for the cluster's first answer, before giving up")
    week_seconds: Positive = Field(1800, description="seconds to wait for one week, before giving up")

    @model_validator(mode="after")
    def _no_token_in_the_clear(self) -> Self:
        if self.token and not self.tls:
            raise ValueError("a token without TLS can be read by anybody on the way: set tls: true")
        return self


class IngestSettings(_Model):
    """What makes the facts, and what reading may use of the machine."""

    engine: Literal["embedded", "spark"] = Field("embedded", description="what turns raw events into facts")
    spark: SparkSettings | None = Field(None, description="of the engine spark")
    cores: Positive = Field(default_factory=lambda: os.cpu_count() or 1, description="weeks read side by side, at most")
    memory_mb: Positive = Field(
        1000,
        description="memory that reading may take, in MB; the rest goes to disk (the process has 300 to 700 more)",
    )
    wait_seconds: Count = Field(3600, description="seconds to wait for another run that reads, before giving up")

    @model_validator(mode="after")
    def _engine_is_known(self) -> Self:
        if self.engine == "spark" and self.spark is None:
            raise ValueError("the engine spark wants to know where: add spark: {connect: sc://host:15002}")
        return self


class CompletenessSettings(_Model):
    """When a week may enter ranks, trends, anomalies and predictions."""

    # a week is made of its own folder and the two beside it
    late_days: int = Field(
        2, ge=0, le=7, description="days a row may lie outside its folder's week, kept under its own date; 7 at most"
    )
    settle_days: Count = Field(1, description="whole days after a week's Sunday before the week counts as complete")
    collapse_share: Share = Field(
        0.35, description="share of the median rows of the eight weeks before, below which a week is suspect"
    )
    explosion_share: float = Field(
        1.8, ge=1, description="the same, and of the same weeks a year ago: above it a week may have come twice"
    )
    collapse_floor_rows: Count = Field(100, description="median rows below which no week is called suspect")
    largest_count: Positive = Field(
        10_000_000, description="clicks or records of one row above which the row is rejected as absurd"
    )
    rejected_share: Share = Field(0.2, description="share of a week's rows rejected, above which the week is suspect")
    rejected_warning_share: Share = Field(0.01, description="share of rows rejected, above which a check warns")
    unmatched_warning_share: Share = Field(
        0.01, description="share of clicks of accounts or applications that no reference data knows, likewise"
    )


class ActivitySettings(_Model):
    """What the usage states mean."""

    renewal_gap_days: int = Field(
        30,
        ge=7,
        description="fewer days between two subscriptions of one application make them one; a week has one",
    )
    new_weeks: Positive = Field(
        4, description="first full weeks of a subscription period in which an application is new"
    )
    inactive_weeks: Positive = Field(4, description="complete weeks without use that make an application inactive")
    recent_weeks: Positive = Field(4, description="weeks averaged as the recent level")
    usual_weeks: Positive = Field(26, description="weeks before the recent ones whose median is the baseline")
    low_share: Share = Field(0.5, description="recent share of the baseline below which an application is low")
    low_floor_clicks: float = Field(
        5, ge=0, description="baseline in clicks a week below which no application is called low"
    )
    rank_floor_clicks: float = Field(1, ge=0, description="clicks in a period below which no application is ranked")


class AnomalySettings(_Model):
    """What is a spike, a usage drop, a step, a slow decline."""

    discounts: tuple[Discount, ...] = Field(
        (0.9, 0.95, 0.98),
        min_length=1,
        description="weights of a week in the level, against the week after it: of each series the one that fits",
    )
    minimum_weeks: Positive = Field(8, description="full subscribed weeks that make a level of its own")
    settling_weeks: Count = Field(4, description="first weeks of a subscription period, which make no level")
    peer_weeks: Positive = Field(
        4, description="full weeks from which on an application is judged with the help of its peers"
    )
    listed_share: Share = Field(0.01, description="share of ordinary weeks that is listed: four fifths of it as drops")
    false_discovery_rate: Share = Field(0.1, description="aim: share of ordinary weeks among those of high confidence")
    relative_floor: Share = Field(0.25, description="smallest change, as a share of what was expected")
    absolute_floor: float = Field(10, ge=0, description="smallest change, in clicks or records")
    absolute_floor_users: float = Field(3, ge=0, description="smallest change, in active users")
    shift_weeks: Positive = Field(6, description="weeks after which a step is the usual level")
    decline_weeks: Positive = Field(
        26,
        description="weeks over which a slow decline of an account with an application is looked for, beside a year",
    )
    decline_share: Share = Field(
        0.35,
        description="smallest slow decline, of an account with an application and of a whole application; an account "
        "that lost half of it is one of those that lost",
    )
    platform_accounts: Positive = Field(
        10, description="accounts of an application from which on they can move together"
    )
    common_z: float = Field(4.0, gt=0, description="distance from which on a common move is a platform-wide event")
    common_share: Share = Field(0.2, description="smallest common move, as a share")
    listed_weeks: Positive = Field(13, description="newest complete weeks whose anomalies are listed on the page")


class RiskSettings(_Model):
    """What is predicted, how it is tested, and the rule that stands in where no model holds."""

    low_weeks: Positive = Field(8, description="horizon of low use: low or inactive in one of so many coming weeks")
    churn_days: Positive = Field(90, description="horizon of notice or cancellation, in days")
    lead_weeks: Count = Field(0, description="weeks between a probability and the start of its horizon, to act in")
    every_weeks: Positive = Field(2, description="weeks between two weeks of as-of that are learned from")
    history_weeks: Positive = Field(13, description="weeks on record before the first of them")
    origins: int = Field(4, ge=4, description="back-tests, one after the other in time")
    origin_weeks: Positive = Field(13, description="weeks that each back-test covers")
    minimum_positives: Positive = Field(
        200, description="accounts or applications with the outcome, without which nothing is learned"
    )
    minimum_negatives: Positive = Field(500, description="accounts or applications without the outcome, likewise")
    largest_training: Positive = Field(
        100_000, description="rows learned from: all positives, and a sample of the negatives"
    )
    bootstraps: Positive = Field(200, description="resamples of accounts behind the interval of a difference")
    seed: Count = Field(7, description="of everything drawn at random")
    listed_lift: float = Field(2, ge=1, description="times the base rate from which on a risk is listed")
    rule_lift: float = Field(
        1.5, gt=1, description="of the rule: times as badly as the others those named must have fared, to be listed"
    )
    rule_events: Positive = Field(30, description="of the rule: outcomes without which nothing that it names is listed")
    share: Share = Field(0.7, description="of the rule: recent share of the 8 weeks before, below which it is a risk")
    floor_clicks: float = Field(5, ge=0, description="of the rule: clicks a week before, below which there is none")


class ChangeSettings(_Model):
    """What is a gainer or a decliner."""

    relative_floor: Share = Field(0.25, description="smallest change, as a share of last year's")
    absolute_floor_clicks: float = Field(40, ge=0, description="smallest change, in clicks over the weeks compared")


class CallSettings(_Model):
    """What makes an account one to call."""

    renewal_days: Positive = Field(60, description="days before a renewal in which it is near")
    urgent_renewal_days: Positive = Field(
        30, description="days before a renewal in which any other sign of its account is urgent"
    )
    renewal_horizon_days: Positive = Field(
        180,
        description="days ahead in which renewals are listed; within them ARR at risk counts up to twice",
    )
    recent_weeks: Positive = Field(4, description="weeks for which a notice or inactivity is recent, and urgent")


class HealthFactor(_Model):
    """A part of the health score: what it weighs, and from which value to which it goes from 0 to 100."""

    weight: float = Field(
        ge=0, description="share in the score, against the sum of the weights that are known; 0: left out"
    )
    zero_at: float = Field(description="value that scores 0")
    full_at: float = Field(description="value that scores 100")

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if self.zero_at == self.full_at:
            raise ValueError("zero_at and full_at are the same value: a score needs a way from one to the other")
        return self


class HealthFactors(_Model):
    """What health is made of; each is a share, but recency."""

    adoption: HealthFactor = Field(
        HealthFactor(weight=20, zero_at=0.5, full_at=1),
        description="of an account: active applications among those subscribed, new ones that nobody opened aside",
    )
    use: HealthFactor = Field(
        HealthFactor(weight=20, zero_at=0.4, full_at=1), description="clicks of the recent weeks against the baseline"
    )
    users: HealthFactor = Field(
        HealthFactor(weight=15, zero_at=0.5, full_at=1),
        description="active users of four weeks against the mean of the three times four weeks before",
    )
    seats: HealthFactor = Field(
        HealthFactor(weight=10, zero_at=0, full_at=0.7), description="active users of four weeks against seats"
    )
    recency: HealthFactor = Field(
        HealthFactor(weight=15, zero_at=4, full_at=0), description="complete weeks without use, up to the newest"
    )
    breadth: HealthFactor = Field(
        HealthFactor(weight=10, zero_at=0, full_at=0.5),
        description="clicks of four weeks without those of the most active user, against the baseline",
    )
    trend: HealthFactor = Field(
        HealthFactor(weight=10, zero_at=0.6, full_at=1), description="clicks of 13 weeks against the 13 before"
    )


class HealthSettings(_Model):
    """How health is scored, colored and tested. Health is a weighted mean of the factors that are known."""

    factors: HealthFactors = HealthFactors()
    green_from: float = Field(80, gt=0, le=100, description="health from which it is green")
    amber_from: float = Field(60, gt=0, le=100, description="health from which it is amber; below it is red")
    notice_score: float = Field(20, ge=0, le=100, description="the most that a subscription with a notice can have")
    known_share: Share = Field(
        0.5, description="share of the weights that has to be known, else health is not known; half takes three factors"
    )
    backtest_quarters: Count = Field(7, description="quarters before the newest week in which colors are tested")
    signal_ratio: float = Field(
        2, ge=1, description="how many times as often as green red has to churn to be called a signal"
    )
    signal_events: Positive = Field(30, description="churned ones, red and green, that such a claim needs")

    @model_validator(mode="after")
    def _colors_are_in_order(self) -> Self:
        if self.amber_from >= self.green_from:
            raise ValueError("amber_from has to be below green_from")
        return self


class OutcomeSettings(_Model):
    """What follows from the outcomes that people record for rows of the call list."""

    window_weeks: Positive = Field(
        52, description="weeks before as_of whose answers say how useful a kind of reason is"
    )
    useless_share: Share = Field(
        0.5, description="share of answers that call a kind of reason useless, above which it moves down one priority"
    )
    min_answers: Positive = Field(20, description="answers about a kind of reason without which it stays where it is")


class PeopleSettings(_Model):
    """When an account depends on one person, and when its main user has gone silent."""

    dependence_weeks: Positive = Field(13, description="newest weeks over which the share of one user is measured")
    dependence_share: Share = Field(
        0.5, description="share of the clicks that one user makes, from which on an application depends on them"
    )
    dependence_floor_clicks: Count = Field(
        26, description="clicks in these weeks below which nothing depends on anyone"
    )
    dependence_floor_weeks: Positive = Field(4, description="weeks of these in which that user came, at least")
    champion_weeks: Positive = Field(13, description="weeks before the silence in which the main user is looked for")
    champion_steady_weeks: Positive = Field(9, description="complete weeks of these in which they came, at least")
    champion_share: Share = Field(0.25, description="share of the clicks of these weeks that they made, at least")
    champion_silent_weeks: Positive = Field(4, description="newest weeks without them that make a champion silent")

    @model_validator(mode="after")
    def _steady_fits(self) -> Self:
        if self.champion_steady_weeks > self.champion_weeks:
            raise ValueError("champion_steady_weeks is more than champion_weeks: nobody could be a champion; lower it")
        return self


class OnboardingSettings(_Model):
    """When the use of a new subscription is steady, and when a start is stuck."""

    steady_weeks: Positive = Field(3, description="weeks with use that make steady use")
    steady_of_weeks: Positive = Field(4, description="complete weeks in a row among which they are")
    stuck_weeks: Positive = Field(
        12, description="full weeks of a subscription without steady use from which on its start is stuck"
    )

    @model_validator(mode="after")
    def _steady_fits(self) -> Self:
        if self.steady_weeks > self.steady_of_weeks:
            raise ValueError("steady_weeks is more than steady_of_weeks: no use could be steady; lower it")
        return self


class PeerSettings(_Model):
    """With whom an account is compared."""

    minimum: Positive = Field(8, description="peers below which nothing is compared")
    size_bands: Positive = Field(3, description="bands of equally many accounts that a segment is cut in by size")


class ExpansionSettings(_Model):
    """What a renewal talk is about."""

    gap_share: Share = Field(
        0.5, description="share of peers with an application, from which on it is a gap to lack it"
    )
    used_up_share: float = Field(1, gt=0, description="seat utilization from which on seats are used up")
    shelfware_share: Share = Field(0.25, description="seat utilization up to which a subscription is shelfware")
    shelfware_floor_seats: Positive = Field(4, description="seats below which nothing is shelfware")


class GroupSettings(_Model):
    """Accounts and applications that the KPI sheet takes together; each group is an entity of its own."""

    accounts: dict[str, list[str]] = Field(default_factory=dict, description="name of the group: ids of its accounts")
    applications: dict[str, list[str]] = Field(
        default_factory=dict, description="name of the group: keys of its applications"
    )

    @field_validator("accounts", "applications")
    @classmethod
    def _each_member_once(cls, groups: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, members in groups.items():
            if not members:
                raise ValueError(f"the group '{name}' has no members; list some, or remove it")
            twice = sorted({member for member in members if members.count(member) > 1})
            if twice:
                raise ValueError(f"the group '{name}' names {', '.join(twice)} twice; name each once")
        return groups


class CurrencySettings(_Model):
    """The currency of every amount on the pages; amounts in others are converted as they are read, or refused."""

    code: CurrencyCode = Field("USD", description="currency of every amount, by its code of ISO 4217")
    rates: dict[CurrencyCode, Rate] = Field(
        default_factory=dict,
        description="other currencies that amounts may be delivered in: what one unit is worth, in units of `code`",
    )

    @model_validator(mode="after")
    def _no_rate_of_its_own(self) -> Self:
        if self.code in self.rates:
            raise ValueError(f"rates.{self.code}: {self.code} is the currency of every amount; remove its rate")
        return self


class ScheduleSettings(_Model):
    """When the pipeline runs by itself, in the configured zone."""

    weekly: str = Field("0 6 * * 1", description="cron of the weekly refresh: Mondays at 06:00")
    monthly: str = Field(
        "0 7 5 * *",
        pattern=r"^[0-5]?\d ([01]?\d|2[0-3]) ([1-9]|1\d|2[0-8]) \* \*$",
        description="cron of the monthly refresh, from which on the month before is closed: the 5th at 07:00",
    )
    poll_interval_seconds: Positive = Field(300, description="seconds between two looks of the sensor at the lake")
    max_attempts: Positive = Field(3, description="runs asked for the same change before the sensor gives up")


class PublishSettings(_Model):
    """Builds kept, and what stops a publish."""

    keep_builds: Positive = Field(5, description="builds kept")
    shrink_share: Share = Field(0.5, description="share of the rows of the build before, below which it is not shown")


class DoctorSettings(_Model):
    """What `usage-pipeline doctor` wants of the machine."""

    minimum_free_mb: Positive = Field(1000, description="free disk space below which it fails, in MB")
    free_builds: Positive = Field(3, description="largest builds kept that must fit beside what is there, likewise")
    minimum_memory_mb: Positive = Field(300, description="memory that can be had, below which it fails, in MB")


class CrmFileSettings(_Model):
    """Files for a CRM after each build; without `target` none are written."""

    target: str | None = Field(
        None, description="folder or s3://bucket/prefix that each build's files are written below"
    )

    @field_validator("target", mode="before")
    @classmethod
    def _is_place(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            return None  # ${NAME:-} where the environment does not say
        if isinstance(value, str) and "://" in value and not re.match(r"s3://[^/\s]+", value):
            raise ValueError("write a folder, or s3://bucket/prefix")
        return value


class MetricsSettings(_Model):
    """Metrics for Prometheus, written as a text file after each run; off by default."""

    enabled: bool = Field(False, description="whether the file is written")
    file: str | None = Field(
        None,
        description="where, ending in .prom, such as the folder of node_exporter's textfile collector; default: "
        "status/usage_pipeline.prom below the home",
    )

    @field_validator("file", mode="before")
    @classmethod
    def _is_collected(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            return None  # ${NAME:-} where the environment does not say
        if isinstance(value, str) and not value.endswith(".prom"):
            raise ValueError("collectors of text files read names that end in .prom: write such a name")
        if isinstance(value, str) and "://" in value:
            raise ValueError("write a file of this machine")
        return value


class MailSettings(_Model):
    """How people are written to, and who; without `host` and `webhook` nobody is."""

    host: str | None = Field(None, description="SMTP server; the name that stands in its certificate")
    port: Positive | None = Field(None, description="its port; default: 587 with starttls, 465 with tls, else 25")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="how the connection is encrypted; none only where nobody else can listen"
    )
    user: str | None = Field(None, description="${NAME} of the environment")
    password: SecretStr | None = Field(None, description="${NAME} of the environment, never the password itself")
    from_address: str | None = Field(None, description="address that mail comes from")
    pages_url: str | None = Field(None, description="address of the dashboards, as people know it")
    recipients: dict[str, str] = Field(
        default_factory=dict,
        description="CSM, as the column owner names them: their address; nobody else gets a digest",
    )
    alerts: list[str] = Field(default_factory=list, description="addresses that are told of failures and stale data")
    webhook: SecretStr | None = Field(None, description="${NAME} of the environment: address that gets alerts as JSON")
    timeout_seconds: Positive = Field(30, description="seconds that a server may take to answer")

    @field_validator("host", "port", "user", "password", "from_address", "pages_url", "webhook", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: Any) -> Any:
        # ${NAME:-} where the environment does not say
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("from_address")
    @classmethod
    def _is_sender(cls, value: str | None) -> str | None:
        return value and _address(value)

    @field_validator("alerts")
    @classmethod
    def _are_addresses(cls, value: list[str]) -> list[str]:
        return [_address(item) for item in value]

    @field_validator("recipients")
    @classmethod
    def _have_addresses(cls, value: dict[str, str]) -> dict[str, str]:
        return {owner: _address(item, f" of {owner}") for owner, item in value.items()}

    @field_validator("pages_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s]\S*", value):
            raise ValueError("write the address with http:// or https://")
        return value and value.rstrip("/")

    @field_validator("webhook")
    @classmethod
    def _is_hook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s]\S*", value.get_secret_value()):
            raise ValueError("write the address of the webhook with http:// or https://")
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.host is None:
            return self
        missing = [name for name in ("from_address", "pages_url") if getattr(self, name) is None]
        if missing:
            raise ValueError(f"host is given, and {' and '.join(missing)} is not: add it")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together: give both, or neither")
        if self.user and self.security == "none" and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("with security none the password could be read on its way: use starttls or tls")
        return self

    @property
    def port_in_use(self) -> int:
        return self.port or {"starttls": 587, "tls": 465, "none": 25}[self.security]


def _address(value: str, whose: str = "") -> str:
    if not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+", value):
        raise ValueError(f"'{value}'{whose} is no address: write it as name@company.example")
    return value


class ChatSettings(_Model):
    """A chat address, and what it is told."""

    address: str = Field(
        description="name of the environment variable that holds the address as apprise writes it, never the address"
    )
    tell: list[Literal["digest", "urgent", "alerts"]] = Field(
        ["digest", "urgent"],
        description="the weekly digest of each CSM; each account that becomes Urgent; alerts of the data team",
    )
    owners: list[str] = Field(
        default_factory=list,
        description="CSMs, as the column owner names them, of whose accounts it is told; default: all",
    )


class WebhookSettings(_Model):
    """A signed webhook, which is told of each account that becomes Urgent."""

    address: str = Field(
        description="name of the environment variable that holds the http(s) address, never the address"
    )
    secret: str = Field(
        description="name of the environment variable that holds the secret it is signed with, never the secret"
    )
    owners: list[str] = Field(
        default_factory=list,
        description="CSMs, as the column owner names them, of whose accounts it is told; default: all",
    )


class NotifySettings(_Model):
    """Chat and webhooks that are told of accounts; without any nobody is. Links need `mail.pages_url`."""

    chat: list[ChatSettings] = Field(default_factory=list, description="chat addresses")
    webhooks: list[WebhookSettings] = Field(default_factory=list, description="signed webhooks")

    @field_validator("chat", "webhooks")
    @classmethod
    def _name_variables(cls, value: list[ChatSettings] | list[WebhookSettings]) -> Any:
        for target in value:
            for name in (target.address, getattr(target, "secret", target.address)):
                if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
                    raise ValueError(
                        "an address or secret is no name of an environment variable: write one such as "
                        "USAGE_CHAT_TEAM, and put the address or secret itself into that variable"
                    )
        return value

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        names = self.addresses
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]} is named twice: one entry an address, so that nothing is sent twice")
        return self

    @property
    def addresses(self) -> list[str]:
        """Names of the variables that hold them."""
        return [*(target.address for target in self.chat), *(target.address for target in self.webhooks)]


class Settings(_Model):
    """A whole configuration. `as_of` is the only clock of the product."""

    name: str = Field(min_length=1, description="name of the configuration, shown on the pages")
    home: DataHome = Field(description="the data home; everything that the pipeline writes lies below it")
    timezone: str = Field("UTC", description="zone in which days and weeks are cut")
    as_of: datetime = Field(description="the moment the run looks at the data from; default: now")
    as_of_is_pinned: bool = Field(False, description="set on loading: whether as_of was given")
    lookback_weeks: Positive = Field(104, description="complete weeks before as_of that are read, beside the running")
    first_week: date | None = Field(
        None, description="first week that the history can hold; default: the first of the year the look-back begins in"
    )
    store: StoreSettings = StoreSettings()
    sources: Sources
    ingest: IngestSettings = IngestSettings()
    completeness: CompletenessSettings = CompletenessSettings()
    activity: ActivitySettings = ActivitySettings()
    anomalies: AnomalySettings = AnomalySettings()
    risk: RiskSettings = RiskSettings()
    changes: ChangeSettings = ChangeSettings()
    calls: CallSettings = CallSettings()
    health: HealthSettings = HealthSettings()
    outcomes: OutcomeSettings = OutcomeSettings()
    people: PeopleSettings = PeopleSettings()
    onboarding: OnboardingSettings = OnboardingSettings()
    peers: PeerSettings = PeerSettings()
    expansion: ExpansionSettings = ExpansionSettings()
    groups: GroupSettings = GroupSettings()
    currency: CurrencySettings = CurrencySettings()
    publish: PublishSettings = PublishSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    doctor: DoctorSettings = DoctorSettings()
    mail: MailSettings = MailSettings()
    notify: NotifySettings = NotifySettings()
    crm_files: CrmFileSettings = CrmFileSettings()
    metrics: MetricsSettings = MetricsSettings()

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            hint = _did_you_mean(value, available_timezones())
            raise ValueError(f"'{value}' is not a time zone{hint}; use a name such as America/Denver")
        return value

    @model_validator(mode="after")
    def _engine_can_read(self) -> Self:
        if self.ingest.engine == "spark" and (why := _wants_embedded(self.sources.usage)):
            raise ValueError(f"this source needs the embedded engine: {why}; set ingest.engine: embedded")
        return self

    @model_validator(mode="after")
    def _links_have_a_host(self) -> Self:
        if self.notify.addresses and self.mail.pages_url is None:
            raise ValueError("mail.pages_url: missing, and messages of notify link to pages: add it")
        return self

    @property
    def clock(self) -> Clock:
        """`as_of` and what follows from it."""
        return Clock(self.as_of, self.timezone, self.as_of_is_pinned, self.lookback_weeks, self.first_week)


def _wants_embedded(usage: Source) -> str | None:
    """Why another engine could silently give other facts of a source; None where it cannot."""
    if not usage.partitioned:
        return "usage is read whole, not by year=/week= folders"
    if usage.format != "parquet":
        return "usage is CSV, and each engine guesses types of its own"
    if usage.partition_timezone:
        return "usage.partition_timezone: engines disagree on the hour that a clock shows twice"
    named = usage.columns | {f"{c} (earlier)": theirs for names in usage.earlier for c, theirs in names.columns.items()}
    computed = [ours for ours, theirs in named.items() if isinstance(theirs, Expression)]
    if computed:
        return f"usage.columns.{computed[0]} is an expression in DuckDB's SQL"
    if any(letter in (usage.path or "") for letter in "*?[]{}\\,"):
        return "usage.path holds a letter that Spark takes for a pattern"
    return None


def _did_you_mean(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _expand(value: Any, where: str, problems: list[str]) -> Any:
    """Replaces ${NAME} and ${NAME:-default} in every string below `value`."""
    if isinstance(value, dict):
        return {key: _expand(item, f"{where}.{key}" if where else str(key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, f"{where}[{i}]", problems) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def one(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = os.environ.get(name) or default
        if found is None:
            remedy = f"set it, or write ${{{name}:-default}}"
            problems.append(f"{where}: the environment variable {name} is not set: {remedy}")
            return ""
        return found

    return re.sub(r"\$\{(?P<name>[A-Z_][A-Z0-9_]*)(?::-(?P<default>[^}]*))?\}", one, value)


def _resolve(path: str, base: Path) -> str:
    return path if "://" in path else str((base / Path(path).expanduser()).absolute())


def _sentence(error: Any) -> str:
    """One validation error of pydantic as a sentence that names the key and the remedy."""
    # pydantic names the alternatives of a union in the location; a reader of the YAML knows none of them
    where = ".".join(str(part) for part in error["loc"] if part not in ("str", "Expression"))
    if error["type"] == "missing":
        return f"{where}: missing; add it"
    if error["type"] == "extra_forbidden":
        model: Any = Settings
        for part in error["loc"][:-1]:
            field = getattr(model, "model_fields", {}).get(part)
            model = next((c for c in _models_of(field.annotation) if c), None) if field else None
        known = list(getattr(model, "model_fields", {}))
        listed = f"; known here: {', '.join(known)}" if known else ""
        return f"{where}: unknown key{_did_you_mean(str(error['loc'][-1]), known)}; remove it or correct it{listed}"
    message = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    is_shown = isinstance(given, str | int | float | bool) and not _is_secret(where)
    shown = f" (given: {given!r})" if is_shown else ""
    return f"{where}: {message}{shown}" if where else f"{message}{shown}"


def _is_secret(where: str) -> bool:
    return where.startswith("notify.") or where in ("mail.password", "mail.webhook")


def _models_of(annotation: Any) -> list[Any]:
    options = getattr(annotation, "__args__", (annotation,))
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def load_settings(path: Path | str | None = None, *, as_of: datetime | date | None = None) -> Settings:
    """Reads and checks a configuration.

    `path` defaults to $USAGE_PIPELINE_CONFIG, then `sources.yaml` in the current folder. `as_of` wins over
    $USAGE_PIPELINE_AS_OF, which wins over the file, which wins over now. With $USAGE_DISABLE_NOTIFICATIONS nobody is
    written to, by mail, chat or webhook, and no CRM gets files, whatever the file says.

    Raises ConfigError with every problem found, each naming the key and the remedy.
    """
    file = Path(path or os.environ.get(CONFIG_VARIABLE) or "sources.yaml").absolute()
    if not file.is_file():
        raise ConfigError([f"{file}: no such file; name the configuration with {CONFIG_VARIABLE} or --config"])
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError([f"{file}: not readable as YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(raw, dict):
        raise ConfigError([f"{file}: expected keys such as name, home and sources; see examples/ for a whole one"])

    problems: list[str] = []
    raw = _expand(raw, "", problems)
    if problems:
        raise ConfigError([f"{file}: {problem}" for problem in problems])
    if os.environ.get(SILENT_VARIABLE, "0") not in ("", "0"):
        raw.pop("crm_files", None)
        raw.pop("notify", None)
        if isinstance(raw.get("mail"), dict):
            raw["mail"] |= {"host": None, "webhook": None}
        if isinstance(raw.get("metrics"), dict):
            raw["metrics"] |= {"file": None}  # that of the installation this is a copy of
    given = as_of or os.environ.get(AS_OF_VARIABLE) or raw.get("as_of")
    raw["as_of_is_pinned"] = given is not None
    raw["as_of"] = given or datetime.now().astimezone()
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise ConfigError([f"{file}: {_sentence(problem)}" for problem in error.errors()]) from error
    settings = _anchor(settings, file.parent)
    if (settings.home.root / "ledger").is_dir():
        sentence = "was made by a version with other names for tables and files; name a new folder and refresh into it"
        raise ConfigError([f"{file}: home: {settings.home.root} {sentence}"])
    return settings


def _anchor(settings: Settings, base: Path) -> Settings:
    """Makes paths absolute and `as_of` aware: a day alone is its midnight in the configured zone."""

    def source(value: Source | None) -> Source | None:
        if value is None:
            return None
        files = {name: f.model_copy(update={"path": _resolve(f.path, base)}) for name, f in value.files.items()}
        path = _resolve(value.path, base) if value.path else None
        return value.model_copy(update={"path": path, "files": files})

    target = settings.crm_files.target
    metrics = settings.metrics
    as_of, zone = settings.as_of, ZoneInfo(settings.timezone)
    # in the configured zone whatever clock it came from: it is shown without one
    as_of = as_of.replace(tzinfo=zone) if as_of.tzinfo is None else as_of.astimezone(zone)
    return settings.model_copy(
        update={
            "as_of": as_of,
            "crm_files": CrmFileSettings(target=target and _resolve(target, base)),
            "home": DataHome(Path(_resolve(str(settings.home.root), base))),
            "metrics": metrics.model_copy(update={"file": metrics.file and _resolve(metrics.file, base)}),
            "sources": settings.sources.model_copy(
                update={name: source(settings.sources.get(name)) for name in SOURCE_SCHEMAS}
            ),
        }
    )
