"""Pinned images and exposed packages stand in one list, which is checked offline; advisories are asked for by name."""

import json
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import audit
import check
import pytest
import yaml

from usage_pipeline_tests.compose.stand_ins import FILES, sentence

REPO = Path(__file__).parents[2]
DAY = date(2026, 11, 29)


def listed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPO / "pins" / "pins.yaml").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository with one of each: compose, Dockerfile, lock, list."""
    (tmp_path / "pins").mkdir()
    (tmp_path / "docker-compose.yml").write_text(
        "services:\n  redis: {image: 'redis:7.4.11-bookworm'}\n  ours: {image: 'ours:latest', build: .}\n"
    )
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE=python:3.11.17-slim\nFROM ${BASE} AS a\nFROM a AS b\nCOPY --from=a /x /x\n"
    )
    (tmp_path / "some.lock").write_text("flask==2.3.3 \\\n")
    of_day = {"looked_at": DAY}
    (tmp_path / "pins" / "pins.yaml").write_text(
        yaml.safe_dump(
            {
                "warn_after_days": 60,
                "images": [{"image": "redis:7.4.11-bookworm"} | of_day, {"image": "python:3.11.17-slim"} | of_day],
                "packages": [{"name": "flask", "version": "2.3.3", "lock": "some.lock"} | of_day],
            }
        )
    )
    return tmp_path


def test_the_list_is_that_of_this_repository() -> None:
    assert set(check.images_in_use(REPO)) == {entry["image"] for entry in listed()["images"]}
    assert list(check.faults(REPO, listed())) == []


def test_every_entry_says_when_and_where_it_was_looked_at_and_whether_it_was_pulled() -> None:
    for entry in listed()["images"]:
        assert isinstance(entry["looked_at"], date)
        assert re.search(r"\d", entry["seen_in"])
        assert entry["pulled"] is False, "say where it was pulled"
    for entry in listed()["packages"]:
        assert isinstance(entry["looked_at"], date)
        assert entry["why"]


def test_a_sound_list_is_silent(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(small, DAY) == 0
    assert capsys.readouterr().out == "3 pins are as pins/pins.yaml says\n"


def test_the_calendar_alone_warns_and_fails_nothing(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(small, DAY + timedelta(days=60)) == 0
    assert "warning" not in capsys.readouterr().out
    for days in (61, 4000):
        assert check.main(small, DAY + timedelta(days=days)) == 0
        said = capsys.readouterr().out
        assert f"warning: redis:7.4.11-bookworm was last looked at {days} days ago" in said
        assert f"warning: flask of some.lock was last looked at {days} days ago" in said
    assert check.main(small, DAY - timedelta(days=1)) == 0
    assert "yet to come" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (
            "docker-compose.yml",
            "7.4.11",
            "7.4.5",
            "docker-compose.yml pulls redis:7.4.5-bookworm, and pins/pins.yaml names",
        ),
        (
            "docker-compose.yml",
            "redis:7.4.11-bookworm",
            "minio/minio:1",
            "pulls minio/minio:1, which pins/pins.yaml does",
        ),
        ("Dockerfile", "3.11.17", "3.11.14", "Dockerfile pulls python:3.11.14-slim, and pins/pins.yaml names"),
        ("Dockerfile", "--from=a", "--from=busybox:1", "Dockerfile pulls busybox:1, which"),
        ("Dockerfile", "BASE=python:3.11.17-slim", "BASE", "Dockerfile pulls ${BASE}, which"),
        ("some.lock", "2.3.3", "3.1.0", "some.lock holds flask 3.1.0, and pins/pins.yaml says 2.3.3"),
        ("some.lock", "flask", "other", "pins/pins.yaml names flask, which some.lock does not hold"),
    ],
)
def test_what_differs_from_the_list_fails_by_its_name(
    small: Path, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, says: str
) -> None:
    """Before, redis 7.4.5 and an image that had left its registry passed every check."""
    text = (small / file).read_text()
    assert old in text
    (small / file).write_text(text.replace(old, new))
    assert check.main(small, DAY) == 1
    assert says in capsys.readouterr().err


def test_what_nothing_pulls_any_more_is_named(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small / "docker-compose.yml").write_text("services: {}\n")
    assert check.main(small, DAY) == 1
    assert "names redis:7.4.11-bookworm, which nothing pulls: take it out" in capsys.readouterr().err


# ---------------------------------------------------------------- advisories


def pip_audit(folder: Path, answer: str, complaint: str = "") -> list[str]:
    """A command that answers as pip-audit does, with what it writes and how it complains."""
    (folder / "answer").write_text(answer)
    (folder / "complaint").write_text(complaint)
    return ["sh", "-c", f'cat "{folder}/answer"; cat "{folder}/complaint" >&2']


FLASK = {"name": "flask", "version": "2.3.3", "vulns": []}
HOLE = {"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "fix_versions": ["2.3.4"], "description": "x"}
SKIPPED = {"name": "six", "skip_reason": "Dependency not found on PyPI and could not be audited: six (1.17.0)"}


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([FLASK], audit.CLEAN, "nothing is known against its 1 packages"),
        ([FLASK | {"vulns": [HOLE]}], audit.KNOWN, "flask 2.3.3: PYSEC-1 CVE-2026-1, fixed in 2.3.4"),
        ([FLASK, SKIPPED], audit.NOT_ASKED, "NOT AUDITED, the service of advisories knew nothing of 1 of 2 packages"),
        ([FLASK | {"vulns": [HOLE]}, SKIPPED], audit.KNOWN, "NOT AUDITED"),
    ],
)
def test_an_audit_says_what_is_known_and_what_was_not_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], packages: list[dict[str, Any]], code: int, says: str
) -> None:
    """pip-audit alone ends with 0 and "no known vulnerabilities" where its service answers for no package at all."""
    answer = json.dumps({"dependencies": packages, "fixes": []})
    assert audit.main(pip_audit(tmp_path, answer), [REPO / "requirements.lock"]) == code
    said = capsys.readouterr().out
    assert says in said
    assert ("This is no clean bill" in said) == (code == audit.NOT_ASKED)


def test_a_service_that_is_not_reached_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = pip_audit(tmp_path, "", "Traceback (most recent call last):\n  ...\nConnectionError: no such host\n")
    assert audit.main(silent, [REPO / "requirements.lock"]) == audit.NOT_ASKED
    said = capsys.readouterr().out
    assert "requirements.lock: NOT AUDITED, the service of advisories cannot be asked: ConnectionError" in said
    assert "Traceback" not in said


# ---------------------------------------------------------------- what the tests of the deployment leave out


def test_stand_ins_are_named_for_what_they_replace() -> None:
    """Before, the tests ran with stand-ins in silence, and an image that nobody could pull any more passed."""
    said = sentence(REPO, FILES)
    for image in (entry["image"] for entry in listed()["images"]):
        assert f"for {image}" in said
    assert "STAND-INS" in said
    assert "s3" not in said, "the demo's store is built of our own lock there as well"
    assert "STAND-INS" not in sentence(REPO, FILES[:1])


@pytest.mark.parametrize("lock", ["deploy/s3/requirements.lock", "pins/tools.lock"])
def test_a_lock_names_hashes_and_no_index(lock: str) -> None:
    text = (REPO / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=\w)", text.strip()))
