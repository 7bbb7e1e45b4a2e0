"""Health checks: is everything well with an installation? Servers, data, checks, builds, disk and memory, a line each.

Belongs here: looking, judging, and starting again what is down. Does not: how a server is started or stopped
(`local.py`). Nothing is changed by looking, and no lock is waited for: the warehouse is private to runs, so what is
asked are the published builds and the status file.
"""

import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import duckdb
import psutil

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import DoctorSettings, IngestSettings, MailSettings, NotifySettings, Settings
from usage_pipeline.core.locks import LockTimeoutError, file_lock
from usage_pipeline.core.tables import schema_violation
from usage_pipeline.notifications.alerts import LOOKED_AT, raise_alerts
from usage_pipeline.observability.monitors import (
    Finding,
    Level,
    check_freshness,
    check_held_deliveries,
    check_runs,
    status_rows,
)
from usage_pipeline.operations import local
from usage_pipeline.operations.data_home import open_to_others, unknown
from usage_pipeline.operations.rekey import files_of_contacts, key_problems, plain_files
from usage_pipeline.outcomes.records import problems, read_records
from usage_pipeline.privacy.encryption import ContactsKeyError, contacts_key, open_database
from usage_pipeline.publishing.builds import FILES, Build, BuildStore

_MEGABYTE = 1_000_000
# a server that was started so lately may still be on its way
_START_SECONDS = 300
# on a busy machine it takes minutes
_RESTART_SECONDS = 300
# a busy server is slow to answer, and must not be ended for that
_PATIENCE_SECONDS = 30
_LISTED = 3


def examine(settings: Settings, config: Path, now: datetime) -> list[Finding]:
    """Every finding, in one order. `now` is the moment of the machine; data is judged by `as_of`."""
    store = BuildStore(settings.home.published_dir)
    parts: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("servers", lambda: _servers(settings.home, config)),
        ("data", lambda: check_freshness(settings.clock, settings.completeness, store)),
        ("runs", lambda: check_runs(settings.home.status_path, settings.clock, settings.schedule, now)),
        ("sources", lambda: check_held_deliveries(settings.home.history_dir, settings.sources)),
        ("checks", lambda: _checks(settings.home.status_path)),
        ("files", lambda: _set_aside(settings.home.status_path)),
        ("builds", lambda: _builds(store)),
        ("outcomes", lambda: _outcomes(settings.home)),
        ("home", lambda: _home(settings.home.root)),
        ("modes", lambda: _modes(settings.home.root)),
        ("key", lambda: _key(settings.home)),
        ("disk", lambda: _disk(settings.home.root, settings.doctor, store)),
        ("memory", lambda: _memory(settings.ingest, settings.doctor)),
    ]
    findings: list[Finding] = []
    for about, look in parts:
        try:
            findings += list(look())
        except (OSError, duckdb.Error, local.LocalError, ValueError, TypeError, KeyError) as error:
            # one thing that cannot be looked at hides nothing of the others
            said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            findings.append(Finding(about, "failed", f"cannot be looked at: {said}"))
    return findings


def tell(
    home: DataHome,
    mail: MailSettings,
    notify: NotifySettings,
    name: str,
    findings: list[Finding],
    now: datetime,
    say: local.Say,
) -> None:
    """Tells the data team of what was found, once per incident, also where Dagster itself is down."""
    # checks and files that fail a run are told with the run
    looked_at = ("servers", *LOOKED_AT, "builds", "outcomes", "disk", "memory")
    try:
        raise_alerts(home, mail, notify, name, findings, looked_at, now, say)
    except LockTimeoutError as error:
        say(str(error))


# ---------------------------------------------------------------- servers


def _servers(home: DataHome, config: Path) -> Iterator[Finding]:
    folder = home.root / "run"
    for service in local.services(home, config, folder).values():
        if not _stamp(folder, service).exists():
            yield Finding("servers", "ok", f"{service.name} was not started here, or was stopped: not watched")
            continue
        level, words = _state_of(service, folder)
        remedy = f"`usage-pipeline doctor --restart` starts it again; its log: {folder / service.name}.log"
        yield Finding("servers", level, f"{service.name} {words}", remedy if level == "failed" else "")


def _stamp(folder: Path, service: local.Service) -> Path:
    """Is there from a server's start to its stop, be it alive or not."""
    return folder / f"{service.name}.json"


def _state_of(service: local.Service, folder: Path) -> tuple[Level, str]:
    process = local.running(folder, service.name)
    if process is None:
        return "failed", "is down: its process has ended"
    if _answers_in_time(service):
        return "ok", f"answers{service.place}"
    age = time.time() - process.create_time()
    if age < _START_SECONDS:
        return "warning", f"does not answer yet: it was started {age:.0f} s ago"
    return "failed", f"is down: process {process.pid} runs, and does not answer{service.place}"


def _answers_in_time(service: local.Service) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (found := service.answers()) and time.monotonic() < deadline:
        time.sleep(1)
    return found


def restart(home: DataHome, config: Path, say: local.Say) -> list[Finding]:
    """Stops and starts again the servers that were started here and are down, and waits until they answer.

    Raises LockTimeoutError where another doctor is at it.
    """
    folder = home.root / "run"
    found = []
    with file_lock(folder / "restart.lock", 0, what="restarting", who="usage-pipeline doctor --restart"):
        for service in local.services(home, config, folder).values():
            stamp = _stamp(folder, service)
            if not stamp.exists() or _state_of(service, folder)[0] != "failed":
                continue
            known = stamp.read_text(encoding="utf-8")
            try:
                local.stop(folder, service.name, say)
                local.start([service], folder, say, _RESTART_SECONDS)
            except local.LocalError as error:
                # it is still one that should run: the next doctor tries again
                stamp.write_text(known, encoding="utf-8")
                said = str(error).splitlines()[0].removesuffix(":")
                found.append(Finding("servers", "failed", f"{service.name} could not be started again", said))
    return found


# ---------------------------------------------------------------- checks and files


def _checks(status_path: Path) -> Iterator[Finding]:
    rows = status_rows(
        status_path,
        "SELECT asset, statement, check_result, found FROM status.checks WHERE check_result != 'passed' "
        "ORDER BY check_rank, asset, statement",
    )
    if not rows:
        yield Finding("checks", "ok", "every check passed the last time it ran")
    for row in rows:
        level: Level = "failed" if row["check_result"] == "failed" else "warning"
        name = f"{row['statement']} ({row['asset']})"
        yield Finding("checks", level, f"did not pass: {name}", _short(row["found"] or "see it in the Dagster UI"))


def _set_aside(status_path: Path) -> Iterator[Finding]:
    rows = status_rows(
        status_path,
        "SELECT CAST(week_start AS DATE) AS week, file, quarantined_because FROM status.quarantined_files "
        "ORDER BY week_start DESC, file",
    )
    if not rows:
        yield Finding("files", "ok", "none is quarantined")
    for row in rows[:_LISTED]:
        words = f"quarantined, so the week of {row['week']} is incomplete: {row['file']}"
        yield Finding("files", "warning", words, _short(row["quarantined_because"]))
    if len(rows) > _LISTED:
        listed = "the page Data status has all"
        yield Finding("files", "warning", f"{len(rows) - _LISTED} more are quarantined", listed)


# ---------------------------------------------------------------- builds


def _builds(store: BuildStore) -> Iterator[Finding]:
    builds = store.builds()
    ids = [build.build_id for build in builds]
    if not builds:
        yield Finding("builds", "failed", "there is none", "run `usage-pipeline refresh`")
        return
    current = store.current()
    if current is None:
        kind = "leads nowhere" if store.link.is_symlink() else "is missing"
        remedy = f"`usage-pipeline rollback {ids[-1]}`, then `usage-pipeline rollback --release`"
        yield Finding("builds", "failed", f"the link {store.link} {kind}: pages show errors", remedy)
    problems = {build.build_id: _problems(store, build, whole=build == current) for build in builds}
    for build_id, found in problems.items():
        is_shown = current is not None and build_id == current.build_id
        remedy = "`usage-pipeline rollback` shows the one before" if is_shown else "it cannot be rolled back to"
        for problem in found[:_LISTED]:
            shown = "which pages read, " if is_shown else ""
            yield Finding(
                "builds", "failed" if is_shown else "warning", f"{build_id}, {shown}is broken: {problem}", remedy
            )
    if current is not None and not problems[current.build_id]:
        sound = sum(not found for found in problems.values())
        yield Finding("builds", "ok", f"{current.build_id} is shown and keeps its schema; {sound} of {len(ids)} open")
    if store.pinned is not None:
        words = f"a rollback holds {store.pinned}; the newest is {ids[-1]}"
        yield Finding("builds", "warning", words, "`usage-pipeline rollback --release` shows the newest again")
    if store.pin_problem:
        yield Finding("builds", "warning", store.pin_problem)


def _problems(store: BuildStore, build: Build, *, whole: bool) -> list[str]:
    """What is wrong with a build's files; with `whole`, of every table in them too."""
    problems = []
    for stem, tables in FILES.items():
        file = store.path(build.build_id) / f"{stem}.duckdb"
        if not file.exists():
            problems.append(f"{file.name} is missing")
            continue
        try:
            with open_database(file) as connection:
                for table in tables if whole else ():
                    if broken := schema_violation(connection, table):
                        problems.append(broken.problem)
        except ContactsKeyError:
            continue  # the file is sound: told of as a key that is wrong or missing
        except duckdb.Error as error:
            problems.append(f"{file.name} cannot be read: {_short(str(error))}")
    return problems


def _outcomes(home: DataHome) -> Iterator[Finding]:
    """Records of outcomes that were changed or are missing; and whether the pages show the newest."""
    found = problems(home.feedback_dir, home.history_dir)
    for problem in found[:_LISTED]:
        yield Finding("outcomes", "failed", f"{problem.name} {problem.words}", "ask who can write there")
    if len(found) > _LISTED:
        yield Finding("outcomes", "failed", f"{len(found) - _LISTED} more", "`usage-pipeline outcomes verify` has all")
    if not found:
        records = read_records(home.feedback_dir, home.history_dir)
        yield Finding("outcomes", "ok", f"{len(records):,} recorded, none changed or missing")


def _home(home: Path) -> Iterator[Finding]:
    found = unknown(home)
    if not found:
        yield Finding("home", "ok", f"everything below {home} is known")
    remedy = "no backup packs it; move it away, or remove it, if nobody needs it there"
    for path in found[:_LISTED]:
        yield Finding("home", "warning", f"{path} is none of ours", remedy)
    if len(found) > _LISTED:
        yield Finding("home", "warning", f"{len(found) - _LISTED} more below {home} are none of ours", remedy)


def _modes(home: Path) -> Iterator[Finding]:
    """Personal data and hashes of passwords lie below the home: other accounts of the machine have no way in."""
    found = open_to_others(home)
    if not found:
        yield Finding("modes", "ok", f"no other account of this machine can read below {home}")
    remedy = f"`chmod -R go= {shlex.quote(str(home))}` closes it"
    for path, mode in found[:_LISTED]:
        yield Finding("modes", "failed", f"{path} is open to other accounts of this machine (mode {mode:04o})", remedy)
    if len(found) > _LISTED:
        yield Finding("modes", "failed", f"{len(found) - _LISTED} more below {home} are open to others", remedy)


def _key(home: DataHome) -> Iterator[Finding]:
    """Nothing is said of a home without a key and without encrypted files."""
    problems = key_problems(home)
    for problem in problems[:_LISTED]:
        yield Finding("key", "failed", problem)
    if len(problems) > _LISTED:
        yield Finding("key", "failed", f"{len(problems) - _LISTED} more files cannot be opened with that key")
    if problems or contacts_key() is None:
        return
    plain = plain_files(home)
    for path in plain[:_LISTED]:
        remedy = "the next refresh encrypts it, or `usage-pipeline contacts rekey` does now"
        yield Finding("key", "warning", f"{path} is not encrypted yet", remedy)
    if len(plain) > _LISTED:
        yield Finding("key", "warning", f"{len(plain) - _LISTED} more files of contacts are not encrypted yet")
    if not plain:
        yield Finding("key", "ok", f"all {len(files_of_contacts(home))} files of contacts are encrypted")


# ---------------------------------------------------------------- disk and memory


def _disk(home: Path, limits: DoctorSettings, store: BuildStore) -> Iterator[Finding]:
    free = shutil.disk_usage(home).free / _MEGABYTE
    sizes = [
        sum(file.stat().st_size for file in store.path(build.build_id).iterdir()) / _MEGABYTE
        for build in store.builds()
    ]
    builds = limits.free_builds * max(sizes, default=0)
    wanted = max(builds, limits.minimum_free_mb)
    words = f"{_size(free)} free at {home}, wanted {_size(wanted)}"
    words += f" ({limits.free_builds} builds of {_size(max(sizes))})" if builds > limits.minimum_free_mb else ""
    remedy = "make room, keep fewer builds (publish.keep_builds), or change doctor.minimum_free_mb and free_builds"
    level: Level = "failed" if free < wanted else "warning" if free < 2 * wanted else "ok"
    yield Finding("disk", level, words, "" if level == "ok" else remedy)


def _memory(ingest: IngestSettings, limits: DoctorSettings) -> Iterator[Finding]:
    available = psutil.virtual_memory().available / _MEGABYTE
    wanted = ingest.memory_mb
    words = f"{_size(available)} can be had, reading may use {_size(wanted)} (ingest.memory_mb)"
    level: Level = "failed" if available < limits.minimum_memory_mb else "warning"
    if available >= wanted:
        level = "ok"
    yield Finding("memory", level, words, "" if level == "ok" else "end something else, or lower ingest.memory_mb")


# ---------------------------------------------------------------- words


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:,.1f} GB" if megabytes >= 1000 else f"{megabytes:,.0f} MB"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else f"{line[:159]}…"
