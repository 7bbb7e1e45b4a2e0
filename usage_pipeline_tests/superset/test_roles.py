"""Files of roles: what they give, what they limit, and what is wrong with them. What a limit leaves of a table."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import yaml
from usage_superset import roles as of_roles
from usage_superset.roles import MARK, RolesError, limits, roles
from usage_superset.row_limits import OPEN_TO_ALL, rules_of

from usage_pipeline.core.tables import TABLES
from usage_pipeline.operations.local import SUPERSET
from usage_pipeline.serving import access

ACCOUNTS = [("a", "A", "North", "Ann"), ("b", "B", "South", "Ann"), ("c", "C", "North", "Bo")]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("USAGE_ROLES", str(tmp_path / "roles.yaml"))
    limits.cache_clear()
    yield tmp_path / "roles.yaml"
    limits.cache_clear()


def test_a_role_takes_over_all_rights_of_those_it_includes_and_is_marked_as_limited(file: Path) -> None:
    file.write_text(
        "Mine: {includes: [Usage analyst], accounts: {region: [North], owner: [Ann, Bo]}}", encoding="utf-8"
    )
    given = roles()
    assert given["Mine"] == given["Usage analyst"] | {MARK}
    assert given["Usage viewer"] < given["Mine"]
    assert limits() == {"Mine": {"region": ("North",), "owner": ("Ann", "Bo")}}


def test_what_a_file_says_wrongly_is_told_with_the_remedy(
    file: Path,
) -> None:
    wrong = {
        "cannot be read": "a: [",
        "holds no roles": "- a",
        "is there already": "Usage viewer: {includes: [Usage viewer]}",
        "unknown key account": "Mine: {includes: [Usage viewer], account: {}}",
        "includes 'Usage reader'": "Mine: {includes: [Usage reader]}",
        "take rights over": "Mine: {includes: [Usage viewer], rights: [[can_read, Chart]]}",
        "at least one of owner": "Mine: {includes: [Usage viewer], accounts: {}}",
        "accounts.city is none of": "Mine: {includes: [Usage viewer], accounts: {city: [a]}}",
        "is a list of names": "Mine: {includes: [Usage viewer], accounts: {region: north}}",
        "looks like a template": "Mine: {includes: [Usage viewer], accounts: {region: ['{{ x }}']}}",
    }
    with pytest.raises(RolesError, match="is not there"):
        roles()
    for words, text in wrong.items():
        file.write_text(text, encoding="utf-8")
        with pytest.raises(RolesError, match=str(file)) as told:
            roles()
        assert words in str(told.value)


@pytest.mark.parametrize(
    ("found", "left"),
    [
        ([], "abc"),
        ([{"region": ("North",)}], "ac"),
        ([{"region": ("North",), "owner": ("Ann",)}], "a"),
        ([{"region": ("South",)}, {"owner": ("Bo",)}], "bc"),
        ([{"region": ("North",)}, None], "ac"),
        ([None], ""),
        ([{"region": ("' OR TRUE --",)}], ""),
    ],
)
def test_a_limit_leaves_the_rows_of_its_accounts(found: list[of_roles.Limit | None], left: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE SCHEMA mart; CREATE TABLE mart.accounts_summary (account_id VARCHAR, account VARCHAR, region VARCHAR, owner VARCHAR)"
        )
        connection.executemany("INSERT INTO mart.accounts_summary VALUES (?, ?, ?, ?)", ACCOUNTS)
        rules = rules_of("mart", "accounts_summary", {"account_id", "account", "region", "owner"}, found)
        where = " AND ".join(f"({rule.clause})" for rule in rules) or "TRUE"
        rows = connection.execute(f"SELECT account_id FROM mart.accounts_summary WHERE {where} ORDER BY 1").fetchall()
    assert "".join(row[0] for row in rows) == left


def test_a_table_that_nobody_thought_of_is_closed() -> None:
    (rule,) = rules_of("mart", "something_new", {"clicks"}, [{"region": ("North",)}])
    assert rule.clause == "(FALSE)"


def test_tables_that_are_open_to_all_are_there_and_have_no_account() -> None:
    datasets = [yaml.safe_load(file.read_text()) for file in (SUPERSET / "assets" / "datasets").rglob("*.yaml")]
    columns = {(d["schema"], d["table_name"]): {c["column_name"] for c in d["columns"]} for d in datasets}
    assert set(columns) >= OPEN_TO_ALL
    for table in OPEN_TO_ALL:
        assert columns[table].isdisjoint({"account", "account_id", "owner", "region", "entity"}), table


def test_programs_are_limited_as_people_are() -> None:
    """Two environments, so the rules stand twice: in `row_limits.py` for pages, in `serving/access.py` for programs."""
    # programs do not read the status file
    assert {table for table in OPEN_TO_ALL if table[0] != "status"} == access.OPEN_TO_ALL
    assert tuple(access.LIMITS) == of_roles.LIMITS
    for limits_found in ({"region": ("North",)}, {"owner": ("Ann",)}, {"region": ("North",), "owner": ("Ann",)}):
        for table in TABLES.values():
            if table.schema not in ("mart", "outcomes", "personal"):
                continue
            columns = set(table.column_names)
            rules = rules_of(table.schema, table.name, columns, [limits_found])
            (people,) = [rule.clause for rule in rules] or ["TRUE"]
            programs, _ = access.rows_open_to(access.Access("p", limits=limits_found), table)
            for word in ("TRUE", "FALSE", "entity_type = 'account'", "entity_type = 'region'", "entity_type = 'CSM'"):
                assert (word in people) == (word in programs), (table.name, limits_found, people, programs)
            if set(limits_found) <= columns and (table.schema, table.name) not in OPEN_TO_ALL:
                assert all(column in people and column in programs for column in limits_found), table.name


def test_a_file_that_its_maker_alone_may_read_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container set-up ended with `[Errno 13] Permission denied` where the file was made with a strict umask."""

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(
        RolesError, match=r"roles\.yaml may not be read by user \d+: chmod a\+r it and a\+rx its folder"
    ):
        roles()
