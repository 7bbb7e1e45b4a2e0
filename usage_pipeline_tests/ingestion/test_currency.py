"""Amounts in several currencies: converted by a rate of the configuration, or refused; never added up as they stand."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from usage_pipeline.config.settings import ConfigError, load_settings
from usage_pipeline.ingestion.deliveries import NoDeliveryError, read_held_back
from usage_pipeline_tests.support.lake_probe import check, read_reference
from usage_pipeline_tests.support.lakes import event, write_config, write_week

USAGE = {
    "path": "lake",
    "partitioned": True,
    "columns": {c: c for c in ("account_id", "application", "user_id", "event_time", "clicks")},
}


def configured(folder: Path, amounts: list[tuple[str | None, Any]], maps_currency: bool = True, **changes: Any) -> Path:
    """A configuration with a subscription for each currency and amount."""
    write_week(folder / "lake", "year=2025/week=09", [event("2025-02-25")])
    rows = [(f"A{n}", "permits", "2024-01-01", amount, code) for n, (code, amount) in enumerate(amounts)]
    frame = pd.DataFrame(rows, columns=["account_id", "application", "start_date", "annual_value", "currency"])
    frame.to_csv(folder / "subscriptions.csv", index=False)
    columns = {name: name for name in frame.columns if maps_currency or name != "currency"}
    subscriptions = {"path": "subscriptions.csv", "format": "csv", "columns": columns}
    return write_config(folder, sources={"usage": USAGE, "subscriptions": subscriptions}, **changes)


def values(config: Path) -> list[float | None]:
    rows = read_reference(config, "subscriptions").rows
    return [row["annual_value"] for row in sorted(rows, key=lambda row: row["account_id"])]


def test_amounts_are_converted_to_the_cent_by_the_rates_of_the_configuration(tmp_path: Path) -> None:
    amounts = [("USD", 100), ("EUR", 99.99), (" eur ", 1000), (None, 50), ("GBP", None), ("GBP", 10)]
    config = configured(tmp_path, amounts, currency={"rates": {"EUR": 1.0837, "GBP": 1.27}})
    assert values(config) == [100, 108.36, 1083.7, 50, None, 12.7]
    said = "\n".join(check(config))
    assert "sources.subscriptions.columns.currency: 2 amounts in EUR converted, 1 EUR = 1.0837 USD" in said
    assert "1 amount in GBP converted" in said


def test_the_currency_of_every_amount_is_a_setting(tmp_path: Path) -> None:
    amounts = [("EUR", 100), ("USD", 100), (None, 7)]
    assert values(configured(tmp_path, amounts, currency={"code": "EUR", "rates": {"USD": 0.5}})) == [100, 50, 7]


def test_without_the_column_amounts_are_taken_as_they_stand(tmp_path: Path) -> None:
    assert values(configured(tmp_path, [("EUR", 100), ("USD", 100)], maps_currency=False)) == [100, 100]


def test_amounts_written_in_several_currencies_are_refused_and_in_one_other_noted(tmp_path: Path) -> None:
    several = configured(tmp_path, [(None, "$100"), (None, "EUR 99"), (None, "100")], maps_currency=False)
    said = (
        "sources.subscriptions.columns.annual_value: amounts are written in several currencies, EUR, USD, and cannot be"
    )
    assert any(line.startswith(said) for line in check(several))
    with pytest.raises(NoDeliveryError):
        read_reference(several, "subscriptions")
    one = configured(tmp_path, [(None, "€100"), (None, "99 EUR"), (None, "7")], maps_currency=False)
    assert values(one) == [100, 99, 7]
    assert any(
        "amounts are written in EUR and taken as USD: if they are not, set currency.code" in s for s in check(one)
    )
    ours = configured(tmp_path, [(None, "$100"), (None, "CAD 5")], maps_currency=False, currency={"code": "CAD"})
    assert not any("amounts are written in" in line for line in check(ours))


def test_an_amount_written_in_another_currency_than_its_row_says_is_noted(tmp_path: Path) -> None:
    """€1,000.00 beside USD was read as 1,000 USD, and nobody said so."""
    amounts = [("USD", "€1,000.00"), ("USD", "$5"), ("EUR", "€7"), (None, "8"), (None, "£9")]
    said = check(configured(tmp_path, amounts, currency={"rates": {"EUR": 1.1}}))
    (note,) = [line for line in said if "written in another currency" in line]
    assert note.startswith("sources.subscriptions.columns.annual_value: 2 amounts are written in another currency than")
    assert "subscriptions.csv" in note
    assert not any(
        "written in another" in line
        for line in check(configured(tmp_path, [("USD", "$5"), ("EUR", "7")], currency={"rates": {"EUR": 1.1}}))
    )


def test_what_is_said_of_currencies_names_the_file(tmp_path: Path) -> None:
    for amounts, maps_currency in (([("EUR", 99)], True), ([(None, "$1"), (None, "€2")], False)):
        with pytest.raises(NoDeliveryError, match=r"subscriptions\.csv"):
            read_reference(configured(tmp_path, amounts, maps_currency), "subscriptions")


def test_one_row_about_the_whole_account_that_is_delivered_twice_counts_once(tmp_path: Path) -> None:
    config = configured(tmp_path, [(None, 100)])
    file = tmp_path / "subscriptions.csv"
    file.write_text(
        "account_id,application,start_date,annual_value,currency\n"
        + "A,,2024-01-01,100,\n" * 2
        + "A,,2024-01-01,200,\n"
        + "B,p,2024-01-01,100,\n" * 2
    )
    loaded = read_reference(config, "subscriptions").rows
    assert sorted(row["annual_value"] for row in loaded if row["account_id"] == "A") == [100, 200]
    assert len([row for row in loaded if row["account_id"] == "B"]) == 2
    assert any("sources.subscriptions: 1 rows are there once more" in line for line in check(config))


def test_two_subscriptions_that_only_their_number_tells_apart_are_two(tmp_path: Path) -> None:
    config = configured(tmp_path, [(None, 100)])
    file = tmp_path / "subscriptions.csv"
    file.write_text(
        "number,account_id,application,start_date,annual_value,currency\n"
        "1,A,,2024-01-01,100,\n1,A,,2024-01-01,100,\n2,A,,2024-01-01,100,\n"
    )
    assert [row["annual_value"] for row in read_reference(config, "subscriptions").rows] == [100, 100]
    assert any("sources.subscriptions: 1 rows are there once more" in line for line in check(config))


def test_a_currency_without_a_rate_is_refused_with_the_remedy(tmp_path: Path) -> None:
    config = configured(
        tmp_path, [("USD", 100), ("EUR", 99), ("EUR", 98), ("CHF", 97)], currency={"rates": {"GBP": 1.2}}
    )
    told = next(line for line in check(config) if line.startswith("sources.subscriptions.columns.currency: amounts"))
    first, file, last = re.split(r" \((?=\S*subscriptions\.csv)|(?<=\.csv)\): ", told)
    assert first.endswith("amounts are in 'EUR' (2 rows), 'CHF' (1 row), and no rate says what these are worth in USD")
    assert file.endswith("subscriptions.csv")
    assert last == "add one for each under currency.rates, or deliver annual_value in USD alone"
    with pytest.raises(NoDeliveryError) as refused:
        read_reference(config, "subscriptions")
    assert last in str(refused.value)


def test_where_a_delivery_was_taken_before_it_stays_in_force_until_there_is_a_rate(tmp_path: Path) -> None:
    assert values(configured(tmp_path, [("USD", 100), ("USD", 200)])) == [100, 200]
    config = configured(tmp_path, [("USD", 100), ("EUR", 300)])
    assert values(config) == [100, 200]
    settings = load_settings(config)
    held_back = read_held_back(settings.home.history_dir, settings.sources, "subscriptions")
    assert held_back is not None
    assert "amounts are in 'EUR' (1 row)" in str(held_back)
    assert "stays in force" in str(held_back)
    config = configured(tmp_path, [("USD", 100), ("EUR", 300)], currency={"rates": {"EUR": 1.1}})
    assert values(config) == [100, 330]
    settings = load_settings(config)
    assert read_held_back(settings.home.history_dir, settings.sources, "subscriptions") is None


def test_a_rate_that_was_taken_away_stops_the_run_and_says_so(tmp_path: Path) -> None:
    config = configured(tmp_path, [("EUR", 300)], currency={"rates": {"EUR": 1.1}})
    assert values(config) == [330]
    config = configured(tmp_path, [("EUR", 300)])
    with pytest.raises(NoDeliveryError, match=r"cannot be read as configured now: .* no rate says"):
        read_reference(config, "subscriptions")


def test_a_rate_of_today_changes_amounts_of_a_delivery_that_is_the_same(tmp_path: Path) -> None:
    assert values(configured(tmp_path, [("EUR", 100)], currency={"rates": {"EUR": 1.1}})) == [110]
    assert values(configured(tmp_path, [("EUR", 100)], currency={"rates": {"EUR": 1.2}})) == [120]


@pytest.mark.parametrize(
    ("currency", "said"),
    [
        ({"code": "dollars"}, "currency.code"),
        ({"rates": {"EUR": 0}}, "currency.rates.EUR"),
        ({"rates": {"EUR": "much"}}, "currency.rates.EUR"),
        ({"code": "EUR", "rates": {"EUR": 1.1}}, "rates.EUR: EUR is the currency of every amount; remove its rate"),
        ({"symbol": "$"}, "currency.symbol: unknown key"),
    ],
)
def test_a_currency_that_cannot_be_is_refused(tmp_path: Path, currency: dict[str, Any], said: str) -> None:
    config = configured(tmp_path, [("USD", 1)])
    content = yaml.safe_load(config.read_text(encoding="utf-8")) | {"currency": currency}
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_settings(config)
    assert said in str(refused.value)
