"""Records of outcomes: written once, chained, kept in history; what is changed or missing is found."""

import json
import stat
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from usage_superset import outcome_records as written_by

from usage_pipeline.core.files import is_tmp_path
from usage_pipeline.outcomes import records
from usage_pipeline_tests.support.outcomes import MOMENT, answer, record


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "feedback", tmp_path / "history"


def three(feedback: Path, **other: Any) -> list[Path]:
    return [record(feedback, f"A{n}", f"note {n}", MOMENT + timedelta(minutes=n), **other) for n in range(3)]


def words(places: tuple[Path, Path]) -> list[tuple[str, str]]:
    return [(problem.name, problem.words) for problem in records.problems(*places)]


def change(file: Path, **other: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | other))


def test_the_form_writes_what_the_pipeline_reads(places: tuple[Path, Path]) -> None:
    file = record(places[0], "A/1 <b>", "called\nthem", status="snoozed", snoozed_until="2026-12-01")
    (found,) = records.read_records(*places)
    assert (found.account_id, found.status, str(found.snoozed_until)) == ("A/1 <b>", "snoozed", "2026-12-01")
    assert found.recorded_at == MOMENT
    assert found.note and found.note.text == "called\nthem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(places[0].stat().st_mode) == 0o700
    assert [path.name for path in places[0].iterdir()] == [file.name], "nothing is left beside it"


@given(st.text(max_size=40), st.text(max_size=60), st.lists(st.booleans(), max_size=3))
@settings(max_examples=60, deadline=None)
def test_both_sides_agree_on_the_hash(tmp_path_factory: Any, account: str, note: str, useful: list[bool]) -> None:
    """Whatever people and accounts are called: the two modules share no code."""
    folder = tmp_path_factory.mktemp("agree")
    answers = [{"call_reason": f"kind {n}", "is_useful": said, "why_not": None} for n, said in enumerate(useful)]
    file = record(folder / "f", "A1", note.encode("utf-8", "replace").decode(), account=account.encode("utf-8", "replace").decode(), useful=answers)  # fmt: skip
    read = records.read(file)
    assert read.words == ""
    assert read.own_hash == written_by.hash_of(json.loads(file.read_text()))
    assert records.problems(folder / "f", folder / "h") == []


def test_a_sound_chain_has_no_problems_before_and_after_it_is_kept(places: tuple[Path, Path]) -> None:
    three(places[0])
    assert words(places) == []
    assert records.keep(*places) == 3
    assert records.keep(*places) == 0
    assert words(places) == []


def test_two_at_once_are_both_kept(places: tuple[Path, Path]) -> None:
    record(places[0])
    start = threading.Barrier(8)

    def write(n: int) -> None:
        start.wait()
        record(places[0], f"B{n}", now=MOMENT + timedelta(seconds=1))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records.read_records(*places)) == 9
    assert words(places) == []


def test_a_fork_is_no_problem(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = record(places[0])
    known = written_by.hash_of(json.loads(first.read_text()))
    monkeypatch.setattr(written_by, "_newest_hash", lambda _: known)
    forks = [record(places[0], f"B{n}", now=MOMENT + timedelta(seconds=n + 1)) for n in range(2)]
    assert {json.loads(fork.read_text())["previous"] for fork in forks} == {known}
    assert words(places) == []
    assert len(records.read_records(*places)) == 3


@pytest.mark.parametrize("field", ["status", "recorded_by", "was_reached", "owner", "previous"])
def test_a_change_before_it_is_kept_is_told_by_the_one_after(places: tuple[Path, Path], field: str) -> None:
    _, middle, last = three(places[0])
    change(middle, **{field: None if field == "was_reached" else "open" if field == "status" else "x"})
    told = dict(words(places))
    assert told[last.name] == "names a record before it that is missing or was changed"


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_a_change_after_it_is_kept_is_told_and_the_copy_counts(places: tuple[Path, Path], nth: int) -> None:
    files = three(places[0])
    records.keep(*places)
    change(files[nth], status="open")
    assert words(places) == [(files[nth].name, "was changed; its copy in history counts")]
    assert [found.status for found in records.read_records(*places)] == ["done"] * 3


def test_what_is_missing_is_told(places: tuple[Path, Path]) -> None:
    files = three(places[0])
    files[1].unlink()
    assert [name for name, _ in words(places)] == [files[2].name], "before it is kept, the next one tells"
    files = [*files[:1], *files[2:]]
    records.keep(*places)
    files[-1].unlink()
    assert (files[-1].name, "is missing; its copy in history counts") in words(places)
    assert len(records.read_records(*places)) == 2


def test_a_note_that_was_rewritten_is_told(places: tuple[Path, Path]) -> None:
    file = record(places[0], note="they leave")
    change(file, note={"nonce": json.loads(file.read_text())["note"]["nonce"], "text": "they stay"})
    assert words(places) == [(file.name, "was changed: the note is not the one that was written")]
    assert records.read_records(*places) == [], "nobody reads it as theirs"
    assert records.keep(*places) == 0


def test_a_note_can_be_taken_out_and_the_chain_stays_whole(places: tuple[Path, Path]) -> None:
    files = three(places[0])
    records.keep(*places)
    assert written_by.forget_note(places[0], json.loads(files[0].read_text())["id"])
    assert not written_by.forget_note(places[0], json.loads(files[0].read_text())["id"]), "there is none any more"
    assert words(places) == [
        (files[0].name, "lost its note in one of two places; erase the person again, or put it back")
    ]
    records.forget_note(records.kept_folder(places[1]) / files[0].name)
    assert words(places) == []
    assert [found.note is None for found in records.read_records(*places)] == [True, False, False]
    assert "note 0" not in "".join(file.read_text() for folder in places for file in folder.rglob("*.json"))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema": 2}', '{"schema": 1, "id": "x"}', "\x00"])
def test_what_is_no_record_is_told_and_stops_nobody(places: tuple[Path, Path], content: str) -> None:
    record(places[0])
    broken = places[0] / "20261124T100000000000Z-aaaaaaaaaaaa-bbbb.json"
    broken.write_text(content)
    record(places[0], "A2", now=MOMENT + timedelta(hours=2))
    # what reads as an object is named by the one after
    assert broken.name in [name for name, _ in words(places)]
    assert len(records.read_records(*places)) == 2


def test_a_record_under_the_name_of_another_is_told(places: tuple[Path, Path]) -> None:
    first = record(places[0])
    copy = first.with_name(first.name.replace(first.stem[-32:], "0" * 32))
    copy.write_bytes(first.read_bytes())
    assert words(places) == [(copy.name, "was changed: its name is that of another record")]


def test_after_a_restore_what_superset_never_had_is_not_missing(places: tuple[Path, Path]) -> None:
    files = three(places[0])
    records.keep(*places)
    for file in files:
        file.unlink()
    records.note_restored(*places)
    assert words(places) == []
    assert len(records.read_records(*places)) == 3
    new = record(places[0], "A9", now=MOMENT + timedelta(days=1))
    assert words(places) == [], "a new chain begins"
    records.keep(*places)
    new.unlink()
    assert words(places) == [(new.name, "is missing; its copy in history counts")]


def test_a_name_is_never_taken_twice(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Same:
        hex = "a" * 32

    file = record(places[0])
    before = file.read_bytes()
    taken = places[0] / file.name.replace(file.stem[-32:], Same.hex)
    file.rename(taken)
    monkeypatch.setattr("uuid.uuid4", lambda: Same)
    with pytest.raises(FileExistsError):
        written_by.write_record(places[0], answer(), "", MOMENT)
    assert taken.read_bytes() == before
    assert [path.name for path in places[0].iterdir()] == [taken.name]


def test_what_a_killed_writer_leaves_has_a_name_that_is_cleaned(places: tuple[Path, Path]) -> None:
    made = written_by._written_beside(places[0].parent / "a.json", {"a": 1})
    assert is_tmp_path(made.name)
    assert records.files_in(made.parent) == []
