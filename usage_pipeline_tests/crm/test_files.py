"""Files for a CRM: what is in them, that each build comes once, and that nobody's formula is run."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest
import yaml

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import ConfigError, CrmFileSettings, Settings, load_settings
from usage_pipeline.crm import files as lib
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.hand_made_builds import publish_by_hand
from usage_pipeline_tests.support.lakes import write_config
from usage_pipeline_tests.support.stores import BUCKET, Store, started_store

ACME = {"account_id": "a", "account": "Acme", "subscription_state": "active", "annual_value": 100.0}
FORMULA = {"account_id": "b", "account": '=HYPERLINK("http://x.invalid")', "annual_value": -5.0}
CALL = {"account_id": "a", "account": "Acme", "urgency": "Urgent", "call_reason": "inactive", "owner": "Dana Reyes"}


def publish(home: Path, number: int, accounts: list[dict[str, Any]], calls: list[dict[str, Any]]) -> str:
    health = [{"account_id": "a", "application_key": "all", "health": 41.6, "health_color": "amber"}]
    rows = {"accounts_summary": accounts, "call_list": calls, "account_health": health}
    return publish_by_hand(home, number, "2026-11-22", rows)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load_settings(write_config(tmp_path))
    target = CrmFileSettings(target=str(tmp_path / "crm-files"))
    return found.model_copy(update={"home": DataHome(tmp_path / "home"), "crm_files": target})


def folder_of(settings: Settings, build_id: str) -> Path:
    return Path(str(settings.crm_files.target)) / build_id


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline="")))


def test_accounts_and_calls_are_written_with_a_manifest_and_nobodys_name(settings: Settings) -> None:
    build_id = publish(settings.home.root, 1, [ACME, FORMULA], [CALL])
    done = lib.write_crm_files(settings)
    assert (done.rows, done.changed) == ({"accounts": 2, "calls": 1}, {"accounts": 2, "calls": 1})
    folder = folder_of(settings, build_id)
    acme, formula = rows_of(folder / "accounts.csv")
    assert (acme["health"], acme["urgency"], acme["call_reason"]) == ("42", "Urgent", "inactive")
    assert formula["account"] == "'" + FORMULA["account"], "no spreadsheet runs it"
    assert formula["annual_value"] == "-5.0", "a number is none"
    assert pq.read_table(folder / "accounts.parquet")["account"].to_pylist()[1] == FORMULA["account"]
    assert not any(b"Dana Reyes" in file.read_bytes() for file in folder.iterdir())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) | {"manifest.json"} == {file.name for file in folder.iterdir()}


def test_a_build_is_delivered_once_and_the_next_one_says_what_changed(settings: Settings) -> None:
    first = publish(settings.home.root, 1, [ACME, FORMULA], [CALL])
    lib.write_crm_files(settings)
    assert "delivered before" in lib.write_crm_files(settings).not_written_because
    new = {"account_id": "c", "account": "New"}
    second = publish(settings.home.root, 2, [ACME | {"annual_value": 90.0}, new], [CALL])
    lib.write_crm_files(settings)
    folder = folder_of(settings, second)
    told = {row["account_id"]: row["change"] for row in rows_of(folder / "accounts_changes.csv")}
    assert told == {"a": "changed", "b": "removed", "c": "added"}
    assert rows_of(folder / "calls_changes.csv") == []
    assert json.loads((folder / "manifest.json").read_text())["changed_since_build"] == first


def test_a_delivery_that_broke_off_is_written_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    build_id = publish(settings.home.root, 1, [ACME], [])

    def full(*_: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(lib, "_write", full)
        with pytest.raises(lib.CrmFileError, match=r"no space left.*crm_files\.target"):
            lib.write_crm_files(settings)
    assert lib.write_crm_files(settings).build_id == build_id


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    yield from started_store(tmp_path, monkeypatch)


def test_a_bucket_gets_the_same_files_and_its_manifest_last(tmp_path: Path, store: Store) -> None:
    address = {"endpoint": store.url, "region": "us-east-1", "retry_seconds": 1}
    target = {"target": f"s3://{BUCKET}/for crm/"}
    settings = load_settings(write_config(tmp_path, store=address, crm_files=target))
    build_id = publish(settings.home.root, 1, [ACME, FORMULA], [CALL])
    store.forget()
    assert lib.write_crm_files(settings).build_id == build_id
    written = [path for method, path, _ in store.log() if method in ("PUT", "POST")]
    assert "manifest.json" in written[-1]
    listed = store.client.list_objects_v2(Bucket=BUCKET, Prefix=f"for crm/{build_id}/")["Contents"]
    assert len(listed) == 10

    def body_of(name: str) -> bytes:
        return bytes(store.client.get_object(Bucket=BUCKET, Key=f"for crm/{build_id}/{name}")["Body"].read())

    for name, told in json.loads(body_of("manifest.json"))["files"].items():
        body = body_of(name)
        assert (hashlib.sha256(body).hexdigest(), len(body)) == (told["sha256"], told["bytes"])


def test_a_bucket_that_refuses_is_told_with_the_remedy_and_gets_the_files_later(tmp_path: Path, store: Store) -> None:
    address = {"endpoint": store.url, "region": "us-east-1", "retry_seconds": 1}
    settings = load_settings(write_config(tmp_path, store=address, crm_files={"target": f"s3://{BUCKET}-not-there/x"}))
    build_id = publish(settings.home.root, 1, [ACME], [])
    with pytest.raises(lib.CrmFileError, match=r"not-there/x: the CRM files could not be written.*crm_files\.target"):
        lib.write_crm_files(settings)
    store.client.create_bucket(Bucket=f"{BUCKET}-not-there")
    assert lib.write_crm_files(settings).build_id == build_id


def test_a_copy_of_an_installation_delivers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USAGE_DISABLE_NOTIFICATIONS", "1")
    settings = load_settings(write_config(tmp_path, crm_files={"target": "for-crm"}))
    publish(settings.home.root, 1, [ACME], [])
    assert "target is not set" in lib.write_crm_files(settings).not_written_because
    assert not (tmp_path / "for-crm").exists()


def test_the_schema_names_every_column_of_every_file(settings: Settings) -> None:
    build_id = publish(settings.home.root, 1, [ACME], [CALL])
    lib.write_crm_files(settings)
    folder = folder_of(settings, build_id)
    schema = yaml.safe_load((folder / "schema.odcs.yaml").read_text())
    for described in schema["schema"]:
        names = [field["name"] for field in described["properties"]]
        assert names == pq.read_schema(folder / f"{described['name']}.parquet").names
    assert len(schema["schema"]) == 4


def test_the_data_contract_is_one_by_the_schema_of_the_standard(settings: Settings) -> None:
    build_id = publish(settings.home.root, 1, [ACME], [CALL])
    lib.write_crm_files(settings)
    contract = yaml.safe_load((folder_of(settings, build_id) / "schema.odcs.yaml").read_text())
    standard = json.loads((files("open_data_contract_standard") / "schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft201909Validator(standard)
    assert list(validator.iter_errors(contract)) == []
    assert list(validator.iter_errors({**contract, "odcs": 1})), "what the standard does not have is found"


def test_words_of_the_contract_are_those_of_the_data(demo: Demo, tmp_path: Path) -> None:
    """A picklist made of the contract refused rows: it named a state that never occurs, and not the one of most."""
    lib.preview(demo.settings, tmp_path)
    contract = yaml.safe_load((tmp_path / "schema.odcs.yaml").read_text())
    told = set()
    for described in contract["schema"]:
        table = pq.read_table(tmp_path / f"{described['name']}.parquet")
        for field in (field for field in described["properties"] if "quality" in field):
            told.add(field["name"])
            found = set(table[field["name"]].drop_null().to_pylist())
            assert found <= set(field["quality"][0]["arguments"]["validValues"]), field["name"]
    assert {"subscription_state", "health_color", "urgency", "call_reason", "change"} <= told


def test_nothing_is_written_unless_configured_and_a_rollback_holds_it_back(settings: Settings) -> None:
    build_id = publish(settings.home.root, 1, [ACME], [])
    off = settings.model_copy(update={"crm_files": CrmFileSettings()})
    assert "target is not set" in lib.write_crm_files(off).not_written_because
    (settings.home.published_dir / "pinned").write_text(build_id)
    assert "rollback" in lib.write_crm_files(settings).not_written_because


def test_a_preview_delivers_nothing_and_says_since_when_it_tells_changes(settings: Settings, tmp_path: Path) -> None:
    build_id = publish(settings.home.root, 1, [ACME], [])
    assert lib.preview(settings, tmp_path / "seen").base is None
    assert (tmp_path / "seen" / "manifest.json") in lib.preview(settings, tmp_path / "seen").files
    assert lib.write_crm_files(settings).build_id == build_id
    after = lib.preview(settings, tmp_path / "seen")
    assert (after.base, after.rows["accounts"], after.changed["accounts"]) == (build_id, 1, 0)


def test_a_target_that_is_no_place_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    config.write_text(config.read_text() + "\ncrm_files:\n  target: ftp://crm\n")
    with pytest.raises(ConfigError, match=r"crm_files\.target: write a folder, or s3://bucket/prefix"):
        load_settings(config)
