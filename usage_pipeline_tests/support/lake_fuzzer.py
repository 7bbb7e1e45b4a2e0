"""Fuzzes the reading of lakes: `python -m usage_pipeline_tests.support.lake_fuzzer --seeds 0-99 [--keep DIR]`.

Belongs here: storing a world, driving ingest and reference over it, and comparing what became of it with what
`docs/reading.md` promises. Does not: drawing worlds (`lake_worlds.py`), bytes (`lake_writer.py`), or an opinion of
what is right (`lake_oracle.py`).

Odd cases: seeds 0 to 9999 are for everybody. 50000 to 50999 are held out for the proof (`soak`): whoever tunes the
reader by them makes the proof worthless.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time as clock
import traceback
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import yaml

from usage_pipeline_tests.support import lake_oracle as oracle
from usage_pipeline_tests.support.lake_oracle import Delivery, ExpectedReference, ExpectedUsage, UsageLake
from usage_pipeline_tests.support.lake_worlds import Step, World, make_world
from usage_pipeline_tests.support.lake_writer import to_bytes
from usage_pipeline_tests.support.processes import end_process

OPEN_SEEDS = range(10_000)
HELD_OUT_SEEDS = range(50_000, 51_000)
SHOWN_AT_MOST = 6
CHECKED_EVERY = 5
KEYS = {"aws_access_key_id": "fuzz", "aws_secret_access_key": "fuzz", "region_name": "us-east-1"}
# what a reason speaks of, in whatever words
SPEAKS_OF = {"account_id": "account", "application": "application", "time": "day|time|date|week"}
SPEAKS_OF |= {"count": "clicks|records|count|number"}


@dataclass(frozen=True)
class Difference:
    """One thing that became otherwise than promised."""

    kind: str
    text: str


@dataclass
class Report:
    """What one seed showed."""

    seed: int
    config: Path
    differences: list[Difference] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.config}"]
        return "\n  ".join([*lines, *(f"{d.kind}: {d.text}" for d in self.differences)])


# --- storing a world -----------------------------------------------------------------------------------------------


class FolderStore:
    """A lake in a folder beside the configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, below: str) -> str:
        """How the configuration names it."""
        return below

    def settings(self) -> dict[str, Any]:
        """Keys of the configuration that say how it is reached."""
        return {}

    def put(self, tree: dict[str, bytes]) -> None:
        """Makes the lake hold exactly these files; those that stay as they are are not touched."""
        for top in {key.split("/")[0] for key in tree} | {"lake", "ref"}:
            for file in [f for f in (self.folder / top).rglob("*") if f.is_file()]:
                if file.relative_to(self.folder).as_posix() not in tree:
                    file.unlink()
        for key, content in tree.items():
            file = self.folder / key
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists() or file.read_bytes() != content:
                file.write_bytes(content)
        self._remove_empty_folders()

    def _remove_empty_folders(self) -> None:
        folders = [f for top in ("lake", "ref") for f in (self.folder / top).rglob("*") if f.is_dir()]
        for folder in sorted(folders, key=lambda f: -len(f.parts)):
            if not any(folder.iterdir()):
                folder.rmdir()


class BucketStore:
    """A lake in a bucket of an S3 server."""

    def __init__(self, address: str, bucket: str) -> None:
        self.address, self.bucket = address, bucket
        self.client = boto3.client("s3", endpoint_url=address, **KEYS)
        self.client.create_bucket(Bucket=bucket)
        self.held: dict[str, bytes] = {}

    def path(self, below: str) -> str:
        """How the configuration names it."""
        return f"s3://{self.bucket}/{below}"

    def settings(self) -> dict[str, Any]:
        """Keys of the configuration that say how it is reached."""
        keys = {"access_key_id": "fuzz", "secret_access_key": "fuzz"}
        return {"store": {"endpoint": self.address, "region": "us-east-1", **keys}}

    def put(self, tree: dict[str, bytes]) -> None:
        """Makes the bucket hold exactly these files; those that stay as they are are not touched."""
        for key in self.held.keys() - tree.keys():
            self.client.delete_object(Bucket=self.bucket, Key=key)
        for key, content in tree.items():
            if self.held.get(key) != content:
                self.client.put_object(Bucket=self.bucket, Key=key, Body=content)
        self.held = dict(tree)


@contextmanager
def s3_server() -> Iterator[str]:
    """An S3 server on a free port of this machine; gives its address."""
    folder = Path(tempfile.mkdtemp())
    process = subprocess.Popen(
        [sys.executable, "-m", "usage_pipeline_tests.support.s3_server", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = folder / "port"
        for _ in range(300):
            if port.exists() and port.read_text():
                break
            assert process.poll() is None, "the S3 server did not start"
            clock.sleep(0.1)
        yield f"http://127.0.0.1:{port.read_text()}"
    finally:
        end_process(process)
        shutil.rmtree(folder)


def tree_of(world: World, step: Step) -> dict[str, bytes]:
    """All files of a step by key."""
    tree = {key: to_bytes(file) for key, file in world.siblings.items()}
    usage = _last_usage(world, step)
    tree |= {f"lake/{key}": to_bytes(file) for key, file in usage.files.items()}
    for source, delivery in step.deliveries.items():
        tree |= {f"ref/{source}/{key}": to_bytes(file) for key, file in delivery.files.items()}
    return tree


def _last_usage(world: World, step: Step) -> UsageLake:
    """The usage of a step, or of the one before where only deliveries go on."""
    known = [s.usage for s in world.steps[: world.steps.index(step) + 1] if s.usage]
    return known[-1]


def write_config(world: World, step: Step, store: FolderStore | BucketStore, folder: Path) -> Path:
    """The configuration of a step."""
    usage = _last_usage(world, step)
    sources: dict[str, Any] = {"usage": _usage_source(world, usage, store)}
    for source, delivery in step.deliveries.items():
        sources[source] = _reference_source(world, delivery, store)
    content: dict[str, Any] = {
        "name": f"Fuzz {world.seed}",
        "home": "home",
        "timezone": usage.rules.zone,
        "as_of": str(step.as_of),
        "lookback_weeks": world.lookback,
        "completeness": {
            "late_days": usage.late_days,
            "largest_count": usage.largest_count,
            "collapse_share": 0,
        },
        "sources": sources,
    }
    file = folder / "sources.yaml"
    file.write_text(yaml.safe_dump(content | store.settings(), allow_unicode=True), encoding="utf-8")
    return file


def _usage_source(world: World, usage: UsageLake, store: FolderStore | BucketStore) -> dict[str, Any]:
    source: dict[str, Any] = {
        "path": store.path("lake") + ("/" if world.trailing_slash else ""),
        "format": usage.format,
        "partitioned": usage.partitioned,
        "partition_calendar": usage.calendar,
        "columns": usage.columns,
    }
    if usage.rules.naive_zone:
        source["partition_timezone"] = usage.rules.naive_zone
    if usage.format == "csv" and world.delimiter:
        source["delimiter"] = world.delimiter
    return source | _cell_settings(usage.rules)


def _reference_source(world: World, delivery: Delivery, store: FolderStore | BucketStore) -> dict[str, Any]:
    path = store.path(world.reference_paths[delivery.source])
    source = {"path": path, "format": delivery.format, "columns": delivery.columns}
    return source | _cell_settings(delivery.rules)


def _cell_settings(rules: oracle.CellRules) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if rules.null_values:
        found["null_values"] = rules.null_values
    if rules.date_order != "auto":
        found["date_order"] = rules.date_order
    if rules.decimal != "auto":
        found["decimal"] = rules.decimal
    if rules.end_reasons:
        found["end_reasons"] = rules.end_reasons
    return found


# --- comparing -----------------------------------------------------------------------------------------------------


def _listed(items: Any) -> str:
    shown = [repr(item) for item in items]
    more = f" ... and {len(shown) - SHOWN_AT_MOST} more" if len(shown) > SHOWN_AT_MOST else ""
    return "; ".join(shown[:SHOWN_AT_MOST]) + more


def _compare_maps(kind: str, expected: dict[Any, Any], found: dict[Any, Any]) -> list[Difference]:
    """Differences of two maps, as one that is missing, one too many, and one that is another."""
    differences = []
    parts: dict[str, list[tuple[Any, ...]]] = {
        "promised and missing": [(k, v) for k, v in expected.items() if k not in found],
        "there and not promised": [(k, v) for k, v in found.items() if k not in expected],
        "promised -> found": [(k, v, found[k]) for k, v in expected.items() if k in found and found[k] != v],
    }
    for words, items in parts.items():
        if items:
            differences.append(Difference(kind, f"{words}: {_listed(_readable(i) for i in sorted(items, key=repr))}"))
    return differences


def _readable(value: Any) -> Any:
    if isinstance(value, date):
        return str(value)
    return tuple(_readable(part) for part in value) if isinstance(value, tuple) else value


def compare_usage(expected: ExpectedUsage, found: Any, stays: list[date]) -> list[Difference]:
    """How what became of usage differs from the promise. Of weeks that vanished (`stays`) only facts are compared."""

    def without(weeks: dict[date, Any]) -> dict[date, Any]:
        return {week: value for week, value in weeks.items() if value and week not in stays}

    differences = _compare_maps("facts", dict(expected.facts), found.facts)
    both = expected.records.keys() & found.records.keys()
    differences += _compare_maps("records", {k: expected.records[k] for k in both}, {k: found.records[k] for k in both})
    differences += _compare_rejected(without(expected.rejected), without(found.rejected))
    differences += _compare_maps("duplicates", without(expected.duplicates), without(found.duplicates))
    differences += _compare_quarantined(expected, without(found.quarantined))
    differences += _compare_named(expected, found.named, stays)
    unreadable = {week: dict(cells) for week, cells in expected.unreadable.items()}
    differences += _compare_maps("unreadable cells", without(unreadable), without(found.unreadable))
    differences += [
        Difference("does not add up", f"{k}: {v}") for k, v in found.does_not_add_up.items() if k not in stays
    ]
    differences += [Difference("week not read", f"{week}: {why}") for week, why in found.not_read.items()]
    return differences


def _compare_rejected(expected: dict[date, Counter[str]], found: dict[date, dict[str, int]]) -> list[Difference]:
    totals = {week: sum(counts.values()) for week, counts in expected.items()}
    differences = _compare_maps("rejected", totals, {week: sum(c.values()) for week, c in found.items()})
    if differences:
        return [Difference(d.kind, f"{d.text}; by what: {expected} -> {found}") for d in differences]
    for week, counts in expected.items():
        if "several" not in counts and (by_what := _by_what(found[week])) != counts:
            differences.append(
                Difference("reasons of rejection", f"{week}: {dict(counts)} -> {found[week]} ({by_what})")
            )
    return differences


def _by_what(reasons: dict[str, int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for reason, count in reasons.items():
        speaks_of = (what for what, words in SPEAKS_OF.items() if re.search(words, reason))
        found[next(speaks_of, reason)] += count
    return found


def _same_key(expected: str, found: str) -> bool:
    """Keys are told with or without the path before them."""
    return found == expected or found.endswith(f"/lake/{expected}") or found == f"lake/{expected}"


def _compare_quarantined(expected: ExpectedUsage, found: dict[date, dict[str, str]]) -> list[Difference]:
    differences, open_keys = [], set(expected.quarantined)
    for week, files in found.items():
        for key, reason in files.items():
            match = next((k for k in expected.quarantined if _same_key(k, key)), None)
            if match is None:
                differences.append(Difference("quarantined, against the promise", f"{week} {key}: {reason}"))
            elif week not in expected.quarantined[match]:
                differences.append(Difference("quarantined in another week", f"{key} under {week}"))
            else:
                open_keys.discard(match)
                if not reason:
                    differences.append(Difference("quarantined without a reason", key))
    return differences + [Difference("not quarantined", key) for key in sorted(open_keys)]


def _compare_named(expected: ExpectedUsage, found: dict[str, str], stays: list[date]) -> list[Difference]:
    """A folder that is named stands for all that lies below it."""
    keys = {re.sub(r"^.*?(^|/)lake/", "", key).rstrip("/") for key in found}

    def covers(key: str, file: str) -> bool:
        return file == key or file.startswith(f"{key}/")

    differences = [
        Difference("not named", file) for file in sorted(expected.named) if not any(covers(k, file) for k in keys)
    ]
    for key in sorted(keys):
        sound = [file for file in [*expected.read, *expected.quarantined] if covers(key, file)]
        if sound:
            differences.append(Difference("named, though to be read", f"{key} ({_listed(sound)})"))
        elif not stays and not any(covers(key, file) for file in expected.named):
            differences.append(Difference("named, and not in the lake", key))
    return differences


def _comparable(value: Any) -> Any:
    return round(float(value), 6) if isinstance(value, float) else value


def compare_reference(delivery: Delivery, expected: ExpectedReference, found: Any) -> list[Difference]:
    """How what became of a delivery differs from the promise."""
    source = delivery.source
    if expected.held_back != bool(found.held_back):
        text = f"{source}: promised {expected.held_back}, found {found.held_back!r}"
        return [Difference("held back", text)]
    rows = Counter(tuple(_comparable(row.get(name)) for name in delivery.columns) for row in found.rows)
    promised = Counter(tuple(_comparable(value) for value in row) for row in expected.rows)
    differences = [
        Difference(f"{source}: {words}", _listed(_readable(row) for row in sorted(these.elements(), key=repr)))
        for words, these in (("rows missing", promised - rows), ("rows not promised", rows - promised))
        if these
    ]
    if len(found.kept_aside) != expected.kept_aside:
        text = f"{source}: promised {expected.kept_aside}, found {_listed(found.kept_aside)}"
        differences.append(Difference("kept aside", text))
    if not expected.held_back:
        differences += _compare_cells_and_notes(source, expected, found)
    return differences


def _compare_cells_and_notes(source: str, expected: ExpectedReference, found: Any) -> list[Difference]:
    counted = {name: n for name, n in found.unreadable.items() if n and name not in oracle.KEEPS_ASIDE[source]}
    differences = _compare_maps(f"{source}: unreadable cells", dict(expected.unreadable), counted)
    for word in sorted(set(expected.notes_about)):
        if not any(word in note for note in found.notes):
            differences.append(Difference("not noted", f"{source}: {word}, in {_listed(found.notes)}"))
    return differences


# --- driving -------------------------------------------------------------------------------------------------------


def fuzz(seed: int, folder: Path, s3_address: str | None) -> Report:
    """Makes the world of a seed in `folder`, has it read step by step, and compares."""
    world = make_world(seed)
    bucket = f"fuzz-{seed}-{uuid.uuid4().hex[:8]}"
    store = BucketStore(s3_address, bucket) if world.on_s3 and s3_address else FolderStore(folder)
    report = Report(seed, folder / "sources.yaml")
    for number, step in enumerate(world.steps, 1):
        store.put(tree_of(world, step))
        config = write_config(world, step, store, folder)
        differences = _compare_step(step, config)
        if seed % CHECKED_EVERY == 0:
            differences += _check(config, step)
        for difference in differences:
            report.differences.append(Difference(difference.kind, f"step {number}: {difference.text}"))
    return report


def _compare_step(step: Step, config: Path) -> list[Difference]:
    # not at the top: the generator and the oracle are tested without the reader
    from usage_pipeline_tests.support.lake_probe import read_reference, read_usage

    differences: list[Difference] = []
    if step.expected_usage:
        try:
            differences += compare_usage(step.expected_usage, read_usage(config), step.stays)
        except Exception as error:
            differences.append(Difference("usage raised", _raised(error)))
    for source, delivery in step.deliveries.items():
        try:
            found = read_reference(config, source)
            differences += compare_reference(delivery, step.expected[source], found)
        except Exception as error:
            differences.append(Difference("reference raised", f"{source}: {_raised(error)}"))
    return differences


def _check(config: Path, step: Step) -> list[Difference]:
    """What `sources check` does not list of files that are named or quarantined."""
    from usage_pipeline_tests.support.lake_probe import check

    try:
        lines = check(config)
    except Exception as error:
        return [Difference("sources check raised", _raised(error))]
    expected, calendar = step.expected_usage, step.usage.calendar if step.usage else "iso"
    keys = sorted({*expected.named, *expected.quarantined}) if expected else []
    return [
        Difference("not listed by sources check", key)
        for key in keys
        if not any(spelled in line for line in lines for spelled in _spelled(key, calendar))
    ]


def _spelled(key: str, calendar: str) -> list[str]:
    """A key, and the folders above it that can be named in its place: those that are no ordinary week folder."""
    parts = key.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    return [key, *(folder for folder in above if not _is_ordinary(folder, calendar))]


def _is_ordinary(folder: str, calendar: str) -> bool:
    if re.fullmatch(r"year=\d{4}", folder):
        return True
    week = oracle.folder_of_key(f"{folder}/file") if folder.count("/") == 1 else None
    return week is not None and bool(week.weeks(calendar))


def _raised(error: Exception) -> str:
    """What was raised, and where, on a line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {place.name}: {' '.join(str(error).split())[:600]}"


def seeds_of(text: str) -> range:
    """`0-99` or `7`."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    """Runs seeds by hand: each difference, and at the end how many lakes showed each kind."""
    parser = argparse.ArgumentParser(description="Fuzzes the reading of lakes.")
    parser.add_argument(
        "--seeds", type=seeds_of, default=seeds_of("0-99"), help="such as 0-99; 50000-50999 are held out"
    )
    parser.add_argument("--keep", type=Path, help="folder that lakes with differences are kept in")
    parser.add_argument("--questions", action="store_true", help="say what the promise left open, and how often")
    given = parser.parse_args()
    kinds: Counter[str] = Counter()
    questions: Counter[str] = Counter()
    bad = 0
    with s3_server() as address:
        for seed in given.seeds:
            report = _fuzz_by_hand(seed, given.keep, address)
            if given.questions:
                questions += make_world(seed).questions
            if report.differences:
                bad += 1
                print(report, flush=True)
                kinds.update({difference.kind for difference in report.differences})
    print(f"\n{len(given.seeds)} lakes, {bad} with differences")
    for kind, lakes in [*kinds.most_common(), *questions.most_common()]:
        print(f"{lakes:6} {kind}")
    return 1 if bad else 0


def _fuzz_by_hand(seed: int, keep: Path | None, address: str) -> Report:
    if keep is None:
        with tempfile.TemporaryDirectory() as passing:
            return fuzz(seed, Path(passing), address)
    folder = keep / str(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    report = fuzz(seed, folder, address)
    if not report.differences:
        shutil.rmtree(folder)
    return report


if __name__ == "__main__":
    sys.exit(main())
