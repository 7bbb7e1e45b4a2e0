"""What the pipeline wants of each source: the columns, their types, and which of them cannot be missing.

Belongs here: what we read of a lake, as data. Does not: how a company's own columns map onto it
(`config.py`), nor how files are read (`sources.py`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceColumn:
    """A column of ours: its DuckDB type, and what it means.

    `required`: every configuration maps it. `needed_if_mapped`: a file that lacks it though it is mapped would count
    for nothing, and is quarantined.
    """

    name: str
    type: str
    description: str
    required: bool = False
    needed_if_mapped: bool = False


@dataclass(frozen=True)
class SourceSchema:
    """A source of ours: what one row is, and its columns.

    `adds`: a delivery adds to what was taken before, so that neither its size nor what it leaves out says anything.
    """

    name: str
    grain: str
    columns: tuple[SourceColumn, ...]
    adds: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns if c.required)

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns without which a file cannot be read, if they are mapped."""
        return tuple(c.name for c in self.columns if c.required or c.needed_if_mapped)

    def column(self, name: str) -> SourceColumn:
        return next(c for c in self.columns if c.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)


USAGE = SourceSchema(
    "usage",
    "an event, or an already summed count",
    (
        SourceColumn("account_id", "VARCHAR", "the customer that used the application", required=True),
        SourceColumn("application", "VARCHAR", "the application that was used", required=True),
        SourceColumn("user_id", "VARCHAR", "the person; a user is (account_id, user_id)"),
        SourceColumn(
            "event_time",
            "TIMESTAMP",
            "when; a timestamp, a day, or absent where only week folders come",
            needed_if_mapped=True,
        ),
        SourceColumn("event_id", "VARCHAR", "key of the row; a second row of the same key is dropped and counted"),
        SourceColumn("clicks", "BIGINT", "clicks the row stands for (default 1 a row)", needed_if_mapped=True),
        SourceColumn("records_created", "BIGINT", "records created in the row"),
    ),
)
ACCOUNTS = SourceSchema(
    "accounts",
    "one row an account",
    (
        SourceColumn("account_id", "VARCHAR", "the customer", required=True),
        SourceColumn("account_name", "VARCHAR", "its name"),
        SourceColumn("segment", "VARCHAR", "kind of customer"),
        SourceColumn("region", "VARCHAR", "region"),
        SourceColumn("country", "VARCHAR", "ISO country code"),
        SourceColumn("state", "VARCHAR", "state or province code"),
        SourceColumn("owner", "VARCHAR", "the CSM, who looks after the account"),
        SourceColumn("size", "DOUBLE", "how large it is, such as its population; only to find its peers"),
    ),
)
SUBSCRIPTIONS = SourceSchema(
    "subscriptions",
    "one row a subscription period",
    (
        SourceColumn("account_id", "VARCHAR", "the customer", required=True),
        SourceColumn("application", "VARCHAR", "the application; empty = the whole account"),
        SourceColumn("start_date", "DATE", "first subscribed day", required=True),
        SourceColumn("notice_date", "DATE", "day that notice was given"),
        SourceColumn("end_date", "DATE", "last subscribed day; empty = running"),
        SourceColumn("end_reason", "VARCHAR", "cancelled, completed or renewed"),
        SourceColumn("renewal_date", "DATE", "next renewal"),
        SourceColumn("seats", "BIGINT", "seats sold"),
        SourceColumn("annual_value", "DOUBLE", "value a year"),
        SourceColumn("currency", "VARCHAR", "ISO code of the currency that the value is in; empty = `currency.code`"),
    ),
)
CONTACTS = SourceSchema(
    "contacts",
    "one row a person in an account",
    (
        SourceColumn("user_id", "VARCHAR", "the person", required=True),
        SourceColumn("account_id", "VARCHAR", "the customer", required=True),
        SourceColumn("name", "VARCHAR", "full name"),
        SourceColumn("email", "VARCHAR", "e-mail address"),
        SourceColumn("phone", "VARCHAR", "telephone number"),
        SourceColumn("role", "VARCHAR", "role in the account"),
        SourceColumn("is_primary", "BOOLEAN", "the first person to call"),
    ),
)
APPLICATIONS = SourceSchema(
    "applications",
    "one row an application",
    (
        SourceColumn("application", "VARCHAR", "key of the application", required=True),
        SourceColumn("application_type", "VARCHAR", "group of applications"),
        SourceColumn("application_name", "VARCHAR", "name to show"),
    ),
)
KNOWN_CAUSES = SourceSchema(
    "known_causes",
    "one row a known cause of unusual usage",
    (
        SourceColumn("account_id", "VARCHAR", "the customer; empty = all"),
        SourceColumn("application", "VARCHAR", "the application; empty = all"),
        SourceColumn("first_day", "DATE", "first day that it explains", required=True),
        SourceColumn("last_day", "DATE", "last day; empty = until further notice"),
        SourceColumn("cause", "VARCHAR", "what is known, in words: stands beside the anomaly", required=True),
    ),
)
CRM_OUTCOMES = SourceSchema(
    "crm_outcomes",
    "one row an outcome of a call that was recorded in the CRM",
    (
        SourceColumn("account_id", "VARCHAR", "the customer", required=True),
        SourceColumn("recorded_at", "TIMESTAMP", "when it was recorded or changed last", required=True),
        SourceColumn("call_status", "VARCHAR", "done, snoozed or open; other words by `call_statuses`", required=True),
        SourceColumn("snoozed_until", "DATE", "day until which it is snoozed; empty = until something new happens"),
        SourceColumn("was_reached", "BOOLEAN", "whether somebody was reached"),
        SourceColumn("is_useful", "BOOLEAN", "whether the reasons of the call were useful"),
        SourceColumn("recorded_by", "VARCHAR", "who recorded it"),
    ),
    adds=True,
)

REFERENCE = (ACCOUNTS, SUBSCRIPTIONS, CONTACTS, APPLICATIONS, KNOWN_CAUSES, CRM_OUTCOMES)
SOURCE_SCHEMAS = {schema.name: schema for schema in (USAGE, *REFERENCE)}
END_REASONS = ("cancelled", "completed", "renewed")
CALL_STATUSES = ("done", "snoozed", "open")
