"""Published builds: immutable folders of DuckDB files, and the link that says which one pages read.

A build is written beside the others, checked, sealed (its owner reads it, nobody else), and only then becomes
`current`, with one rename. Whoever resolves the link before opening a file sees exactly one build. A second publish of
the same content writes nothing. Builds beyond the last N are removed, never the current one.

One thing is taken out of builds that are there: people who were erased. Their file is put in place whole, by a rename:
whoever has the old one open goes on reading it, and whoever opens the path finds the new one.

A process that is killed at any point leaves what was published up: what it did not finish has names of its own, and
`finish` brings it to its end or removes it.

Layout: `published/<build id>/warehouse.duckdb` (marts), `contacts.duckdb` (personal data, nothing else), `history/`
(what is kept for good of it, `history.py`), `build.json`; `published/current` -> build id; `published/pinned` while a
rollback holds.
"""

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import PublishSettings
from usage_pipeline.core.files import FOLDER, SEALED, atomic_write, is_tmp_path, remove, seal, sync, sync_tree
from usage_pipeline.core.fingerprints import is_in_slices
from usage_pipeline.core.sql import literal
from usage_pipeline.core.tables import CONTACT_TABLES, WAREHOUSE_TABLES, Table, schema_violation
from usage_pipeline.privacy.encryption import attach, connect_beside, contacts_beside, open_database

FILES = {"warehouse": WAREHOUSE_TABLES, "contacts": CONTACT_TABLES}
# a column that cuts a table, and those of its values whose rows differ
Differing = tuple[str, list[str]]
_NOTHING: Differing = ("", [])


class PublishError(Exception):
    """A build did not pass its checks, and is not shown; the one before stays up. `problems`: one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Build:
    """What is known of a build without opening it."""

    build_id: str
    as_of: str
    newest_week: str
    fingerprint: str
    rows: dict[str, int]
    # the fingerprint of each published table, and what tells those of one warehouse from the next
    contents: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    # the last day that renewals are listed of
    renewals_through: str = ""
    # of tables that are made slice by slice: `by`, the column that cuts them, `slices`, the fingerprint of each, and
    # `promised`, that of the columns
    slices: dict[str, dict[str, Any]] = field(default_factory=dict)


class BuildStore:
    """The builds below one folder."""

    def __init__(self, folder: Path, keep: int = 5, shrink_share: float = 0.5) -> None:
        self.folder = folder
        self.keep = keep
        self.shrink_share = shrink_share

    @property
    def link(self) -> Path:
        return self.folder / "current"

    @property
    def pin_file(self) -> Path:
        return self.folder / "pinned"

    @property
    def pinned(self) -> str | None:
        """The build that a rollback holds, if any; a pin that names no build that is there holds nothing."""
        return self._pin()[0]

    @property
    def pin_problem(self) -> str | None:
        """Why a pin that is there holds nothing, with the remedy; None where there is none, or it holds."""
        return self._pin()[1]

    def _pin(self) -> tuple[str | None, str | None]:
        remedy = "it holds nothing, and `usage-pipeline rollback --release` removes it"
        try:
            build_id = self.pin_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None, None
        except (OSError, UnicodeDecodeError) as error:
            return None, f"{self.pin_file} cannot be read ({error}): {remedy}"
        if not build_id:
            return None, f"{self.pin_file} is empty: {remedy}"
        if build_id not in [build.build_id for build in self.builds()]:
            return None, f"{self.pin_file} names build {build_id}, which is gone: {remedy}"
        return build_id, None

    def builds(self) -> list[Build]:
        """Every build, oldest first."""
        files = sorted(self.folder.glob("[0-9]*/build.json"))
        return [Build(**json.loads(file.read_text(encoding="utf-8"))) for file in files]

    def current(self) -> Build | None:
        """The build that pages read; None before the first publish."""
        if not self.link.is_symlink():
            return None
        file = self.link / "build.json"
        return Build(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None

    def path(self, build_id: str) -> Path:
        return self.folder / build_id

    def next_id(self, as_of: str, fingerprint: str) -> str:
        """A name that sorts after every build there is: number, day of as_of, content."""
        numbers = [int(build.build_id.split("-")[0]) for build in self.builds()]
        return f"{max(numbers, default=0) + 1:05d}-{as_of[:10]}-{fingerprint[:8]}"

    def publish(self, warehouse: Path, build: Build, attach: Callable[[Path], None] = lambda _: None) -> Build:
        """Writes the published tables of a warehouse as a build and makes it current, unless a rollback is pinned.

        `attach` puts more files into its folder, which are there from then on exactly if the build is. Nobody in this
        process may have the warehouse open. Raises PublishError where a table breaks its schema, where rows collapsed
        against the build before, or where the newest week went back.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        tmp_path = self.folder / f".{build.build_id}.{uuid.uuid4().hex[:8]}"
        tmp_path.mkdir(FOLDER)
        try:
            before = self._to_copy(build)
            changed = _changed(build, before)
            rows = self._write(warehouse, tmp_path, before, changed)
            build = Build(**(asdict(build) | {"rows": rows}))
            problems = self._problems(tmp_path, build, changed)
            if problems:
                raise PublishError([f"{warehouse}: {problem}" for problem in problems])
            attach(tmp_path)
            (tmp_path / "build.json").write_text(json.dumps(asdict(build), indent=1), encoding="utf-8")
            seal(tmp_path)
            sync_tree(tmp_path)
            tmp_path.rename(self.path(build.build_id))
            sync(self.folder)
        except BaseException:
            remove(tmp_path)
            raise
        if self.pinned is None:
            self._point(build.build_id)
        self._prune()
        return build

    def rollback(self, build_id: str | None = None) -> Build:
        """Shows an older build (default: the one before the current) and holds it until `release`.

        Raises PublishError where there is no such build.
        """
        builds, current = self.builds(), self.current()
        ids = [build.build_id for build in builds]
        if build_id is None:
            older = [i for i in ids if current and i < current.build_id]
            build_id = older[-1] if older else None
        if build_id not in ids:
            wanted = build_id or "before the current one"
            raise PublishError([f"there is no build {wanted}; kept are: {', '.join(ids) or 'none'}"])
        with atomic_write(self.pin_file) as tmp_path:
            # on a full disk this fails first, and nothing has changed
            tmp_path.write_text(build_id, encoding="utf-8")
            self._point(build_id)
        return next(build for build in builds if build.build_id == build_id)

    def release(self) -> Build | None:
        """Ends a rollback: the newest build is shown again."""
        self.pin_file.unlink(missing_ok=True)
        builds = self.builds()
        if builds:
            self._point(builds[-1].build_id)
        return builds[-1] if builds else None

    def rewrite_contacts(self, build: Build, is_other: str, values: dict[str, str]) -> int:
        """Keeps only rows of a build's contacts that `is_other` (SQL) is true of; returns how many went.

        Nobody else may publish meanwhile.
        """
        folder = self.path(build.build_id)
        file = folder / "contacts.duckdb"
        rows: dict[str, int] = {}
        gone = 0
        if not file.exists():
            return 0
        with atomic_write(file) as tmp_path:
            with connect_beside(tmp_path) as target:
                attach(target, file, "source")
                attach(target, tmp_path, "target", read_only=False)
                target.execute("USE target")
                for table in CONTACT_TABLES:
                    source = f"source.{table.full_name}"
                    target.execute(f"CREATE SCHEMA IF NOT EXISTS {table.schema}")
                    target.execute(f"CREATE TABLE {table.full_name} AS FROM {source} WHERE {is_other}", values)
                    before = target.execute(f"SELECT count(*) FROM {source}").fetchone()
                    rows[table.name] = _count(target, table)
                    gone += (before[0] if before else 0) - rows[table.name]
                target.execute("DETACH source")
                target.execute("CHECKPOINT target")
            tmp_path.chmod(SEALED)
        with atomic_write(folder / "build.json") as tmp_path:
            text = json.dumps(asdict(build) | {"rows": build.rows | rows}, indent=1)
            tmp_path.write_text(text, encoding="utf-8")
            tmp_path.chmod(SEALED)
        return gone

    def interrupted(self) -> list[Path]:
        """What publishes, removals and rollbacks that were killed have left, and nobody will bring to its end."""
        hidden = [p for p in self.folder.glob(".*") if is_tmp_path(p.name) or p.match(".[0-9]*-*") or _is_link(p)]
        # a removal that was cut short, of a time or by a hand that did not rename first
        headless = [p for p in self.folder.glob("[0-9]*-*") if p.is_dir() and not (p / "build.json").exists()]
        inside = [p for p in self.folder.glob("[0-9]*-*/*") if is_tmp_path(p.name) or p.name.endswith((".wal", ".tmp"))]
        return [*hidden, *headless, *(p for p in inside if p.parent not in headless)]

    def finish(self) -> list[str]:
        """Removes what was killed half-way, and shows what should be shown; returns what was done, a sentence each.

        Nobody else may publish meanwhile.
        """
        done = []
        for path in self.interrupted():
            remove(path)
            done.append(f"{path} was left by a process that was killed: removed")
        builds, current = self.builds(), self.current()
        wanted = self.pinned or (builds[-1].build_id if builds else None)
        if wanted and (current is None or current.build_id != wanted):
            self._point(wanted)
            why = "is held by a rollback" if self.pinned else "was published"
            done.append(f"build {wanted} {why} and was not shown: it is now")
        return done

    def _point(self, build_id: str) -> None:
        tmp_path = self.folder / f".current.{uuid.uuid4().hex[:8]}"
        try:
            tmp_path.symlink_to(build_id)
            tmp_path.replace(self.link)
        except BaseException:
            remove(tmp_path)
            raise
        sync(self.folder)

    def _prune(self) -> None:
        builds, current = self.builds(), self.current()
        for build in builds[: -self.keep]:
            if current is None or build.build_id != current.build_id:
                # renamed first: a build is there whole or not at all, also while it goes
                gone = self.folder / f".{build.build_id}.{uuid.uuid4().hex[:8]}"
                self.path(build.build_id).rename(gone)
                remove(gone)

    def _to_copy(self, build: Build) -> Build | None:
        """The build before, where most of its rows are those of the new one; None where a new file costs less.

        One of another origin is never copied: its file may hold in free blocks what was deleted since.
        """
        before = next(reversed(self.builds()), None)
        if before is None or not build.origin or before.origin != build.origin:
            return None
        changed = _changed(build, before)
        same = sum(before.rows.get(table.name, 0) * _share_kept(build, table, changed) for table in WAREHOUSE_TABLES)
        in_warehouse = sum(before.rows.get(table.name, 0) for table in WAREHOUSE_TABLES)
        return before if 2 * same >= in_warehouse else None

    def _write(
        self, warehouse: Path, folder: Path, before: Build | None, changed: dict[str, Differing | None]
    ) -> dict[str, int]:
        rows: dict[str, int] = {}
        if before:
            shutil.copyfile(self.path(before.build_id) / "warehouse.duckdb", folder / "warehouse.duckdb")
        with duckdb.connect(str(folder / "warehouse.duckdb")) as target:
            for table in WAREHOUSE_TABLES if before else ():
                if changed[table.name] is None:
                    target.execute(f"DROP TABLE IF EXISTS {table.full_name}")
            # what was dropped makes place for what comes
            target.execute("CHECKPOINT")
            target.execute(f"ATTACH {literal(warehouse)} AS source (READ_ONLY)")
            for schema in {table.schema for table in WAREHOUSE_TABLES}:
                target.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            for table in WAREHOUSE_TABLES:
                differing = changed[table.name]
                if differing is None:
                    rows[table.name] = _copy(target, table, f"source.{table.full_name}")
                else:
                    rows[table.name] = _copy_slices(target, table, *differing)
            target.execute("DETACH source")
            target.execute("CHECKPOINT")
        file = folder / "contacts.duckdb"
        with connect_beside(file) as target:
            attach(target, contacts_beside(warehouse), "source")
            attach(target, file, "target", read_only=False)
            target.execute("USE target")
            for schema in {table.schema for table in CONTACT_TABLES}:
                target.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            for table in CONTACT_TABLES:
                rows[table.name] = _copy(target, table, f"source.{table.name}")
            target.execute("DETACH source")
            target.execute("CHECKPOINT target")
        return rows

    def _problems(self, folder: Path, build: Build, changed: dict[str, Differing | None]) -> list[str]:
        """What is wrong with a build; what did not change has been looked at in the one before."""
        problems = []
        for stem, tables in FILES.items():
            with open_database(folder / f"{stem}.duckdb") as connection:
                problems += [
                    b.problem
                    for table in tables
                    if (differing := changed.get(table.name)) != _NOTHING
                    if (b := schema_violation(connection, table, differing))
                ]
        before = self.builds()[-1:]
        if before:
            last = before[0]
            problems += [
                f"{name} has {build.rows[name]:,} rows, the build before had {was:,}: if that is right, "
                "raise publish.shrink_share's tolerance by lowering it, else look at what came in"
                for name, was in last.rows.items()
                if name in ("usage_by_week", "accounts_summary") and build.rows.get(name, 0) < self.shrink_share * was
            ]
            if build.newest_week < last.newest_week:
                problems.append(
                    f"the newest complete week went back from {last.newest_week} to {build.newest_week}: "
                    "for an earlier as_of use a data home of its own"
                )
        return problems


def _changed(build: Build, before: Build | None) -> dict[str, Differing | None]:
    """By table of the warehouse, the slices in which a build differs from the one that is copied; None: all of it."""
    return {table.name: _changed_of(table, build, before) for table in WAREHOUSE_TABLES}


def _changed_of(table: Table, build: Build, before: Build | None) -> Differing | None:
    if before is None:
        return None
    content = build.contents.get(table.name)
    if content is not None and before.contents.get(table.name) == content:
        return _NOTHING
    now, then = build.slices.get(table.name), before.slices.get(table.name)
    if now is None or then is None or any(now[key] != then[key] for key in ("by", "promised")):
        return None
    differ = {name for name, _ in now["slices"].items() ^ then["slices"].items()}
    return (now["by"], sorted(differ)) if 2 * len(differ) < len(now["slices"]) else None


def _share_kept(build: Build, table: Table, changed: dict[str, Differing | None]) -> float:
    """About which share of a table's rows is kept."""
    differing = changed[table.name]
    if differing is None or differing == _NOTHING:
        return float(differing == _NOTHING)
    return 1 - len(differing[1]) / len(build.slices[table.name]["slices"])


def _is_link(path: Path) -> bool:
    return path.is_symlink() and path.name.startswith(".current.")


def _copy(target: duckdb.DuckDBPyConnection, table: Table, source: str) -> int:
    """Makes a published table of the columns that it promises; returns its rows."""
    columns = ", ".join(column.name for column in table.columns)
    target.execute(f"CREATE TABLE {table.full_name} AS SELECT {columns} FROM {source}")
    return _count(target, table)


def _copy_slices(target: duckdb.DuckDBPyConnection, table: Table, by: str, slices: list[str]) -> int:
    """Puts slices of a published table in the place of those that are there; returns the rows of all."""
    if slices:
        columns = ", ".join(column.name for column in table.columns)
        where = is_in_slices(target, table.full_name, by)
        target.execute(f"DELETE FROM {table.full_name} WHERE {where}", {"slices": slices})
        target.execute(
            f"INSERT INTO {table.full_name} SELECT {columns} FROM source.{table.full_name} WHERE {where}",
            {"slices": slices},
        )
    return _count(target, table)


def _count(connection: duckdb.DuckDBPyConnection, table: Table) -> int:
    found = connection.execute(f"SELECT count(*) FROM {table.full_name}").fetchone()
    assert found is not None
    return int(found[0])


def store_of(home: DataHome, publish: PublishSettings) -> BuildStore:
    """The builds of a data home."""
    return BuildStore(home.published_dir, publish.keep_builds, publish.shrink_share)
