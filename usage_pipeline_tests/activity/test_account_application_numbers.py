"""Numbers of accounts x applications: given once, whatever comes and goes; the same when the warehouse is lost."""

import tempfile
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usage_pipeline.activity.account_application_numbers import keep, kept_numbers, number

ACCOUNTS_X_APPLICATIONS = st.sets(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("pqr")), max_size=12)


def refreshed(folder: Path, subscribed: set[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """`core.account_applications` after a refresh into a new warehouse, with what is kept in `folder`."""
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA core")
        connection.execute("CREATE TABLE core.subscription_periods (account_id VARCHAR, application VARCHAR)")
        for row in subscribed:
            connection.execute("INSERT INTO core.subscription_periods VALUES (?, ?), (?, ?)", [*row, *row])
        keep(number(connection, kept_numbers(folder)), folder)
        rows = connection.execute(
            "SELECT account_id, application, account_application_id FROM core.account_applications"
        ).fetchall()
    return {(account, application): found for account, application, found in rows}


@settings(max_examples=60, deadline=None)
@given(st.lists(ACCOUNTS_X_APPLICATIONS, min_size=1, max_size=6))
@pytest.mark.long
def test_a_number_once_given_stays_and_is_never_given_again(runs: list[set[tuple[str, str]]]) -> None:
    ever: dict[tuple[str, str], int] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "account_applications"
        for subscribed in runs:
            found = refreshed(folder, subscribed)
            assert set(found) == subscribed
            assert all(found[key] == ever.get(key, found[key]) for key in found), "nobody is renumbered"
            ever |= found
            # from 1, without gaps, whatever came and went
            assert sorted(ever.values()) == list(range(1, len(ever) + 1))
            # every warehouse here is a new one; a second run gives nothing
            assert refreshed(folder, subscribed) == found
        assert sum(pq.read_metadata(file).num_rows for file in folder.glob("*.parquet")) == len(ever)


def test_the_first_numbers_follow_account_and_application(tmp_path: Path) -> None:
    assert refreshed(tmp_path, {("b", "p"), ("a", "q"), ("a", "p")}) == {("a", "p"): 1, ("a", "q"): 2, ("b", "p"): 3}


def test_a_run_that_is_killed_before_the_warehouse_has_the_numbers_wastes_none(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "account_applications"
    refreshed(folder, {("b", "p")})
    # the file of the killed run is there, its warehouse is not
    refreshed(folder, {("b", "p"), ("a", "p")})
    assert refreshed(folder, {("0", "p"), ("a", "p"), ("b", "p")}) == {("b", "p"): 1, ("a", "p"): 2, ("0", "p"): 3}
    assert [file.name for file in sorted(folder.iterdir())] == [f"{n:010d}.parquet" for n in (1, 2, 3)]
