"""Published builds: immutable folders of DuckDB files, and the link that says which one pages read.

A build is written beside the others, checked, made read-only, and only then becomes `current`, with one rename.
Whoever resolves the link before opening a file sees exactly one build. A second publish of the same content writes
nothing. Builds beyond the last N are removed, never the current one.

One thing is taken out of builds that are there: people who were erased. Their file is put in place whole, by a rename:
whoever has the old one open goes on reading it, and whoever opens the path finds the new one.

Layout: `published/<build id>/warehouse.duckdb` (marts), `contacts.duckdb` (personal data, nothing else),
`build.json`; `published/current` -> build id; `published/pinned` while a rollback holds.
"""

import json
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from usage_pipeline.lib.files import put_whole
from usage_pipeline.lib.sql import literal
from usage_pipeline.lib.tables import CONTACT_TABLES, WAREHOUSE_TABLES, Table, broken_contract

FILES = {"warehouse": WAREHOUSE_TABLES, "contacts": CONTACT_TABLES}


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
    def pinned(self) -> str | None:
        """The build that a rollback holds, if any."""
        file = self.folder / "pinned"
        return file.read_text(encoding="utf-8").strip() if file.exists() else None

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

    def publish(self, warehouse: Path, build: Build) -> Build:
        """Writes the published tables of a warehouse as a build and makes it current, unless a rollback is pinned.

        Nobody in this process may have the warehouse open. Raises PublishError where a table breaks its contract,
        where rows collapsed against the build before, or where the newest week went back.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f".{build.build_id}.{uuid.uuid4().hex[:8]}"
        unfinished.mkdir()
        try:
            rows = self._write(warehouse, unfinished)
            build = Build(**(asdict(build) | {"rows": rows}))
            problems = self._problems(unfinished, build)
            if problems:
                raise PublishError([f"{warehouse}: {problem}" for problem in problems])
            (unfinished / "build.json").write_text(json.dumps(asdict(build), indent=1), encoding="utf-8")
            for file in unfinished.iterdir():
                file.chmod(0o444)
            unfinished.rename(self.path(build.build_id))
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
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
        (self.folder / "pinned").write_text(build_id, encoding="utf-8")
        self._point(build_id)
        return next(build for build in builds if build.build_id == build_id)

    def release(self) -> Build | None:
        """Ends a rollback: the newest build is shown again."""
        (self.folder / "pinned").unlink(missing_ok=True)
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
        with put_whole(file) as unfinished:
            with duckdb.connect(str(unfinished)) as target:
                target.execute(f"ATTACH {literal(file)} AS source (READ_ONLY)")
                for table in CONTACT_TABLES:
                    source = f"source.{table.full_name}"
                    target.execute(f"CREATE SCHEMA IF NOT EXISTS {table.schema}")
                    target.execute(f"CREATE TABLE {table.full_name} AS FROM {source} WHERE {is_other}", values)
                    before = target.execute(f"SELECT count(*) FROM {source}").fetchone()
                    rows[table.name] = _count(target, table)
                    gone += (before[0] if before else 0) - rows[table.name]
                target.execute("DETACH source")
                target.execute("CHECKPOINT")
            unfinished.chmod(0o444)
        with put_whole(folder / "build.json") as unfinished:
            text = json.dumps(asdict(build) | {"rows": build.rows | rows}, indent=1)
            unfinished.write_text(text, encoding="utf-8")
            unfinished.chmod(0o444)
        return gone

    def remove_unfinished(self) -> int:
        """Removes what publishes that were killed have left; nobody else may publish meanwhile."""
        left = [*self.folder.glob(".[0-9]*"), *self.folder.glob("[0-9]*/.*.*")]
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return len(left)

    def _point(self, build_id: str) -> None:
        unfinished = self.folder / f".current.{uuid.uuid4().hex[:8]}"
        unfinished.symlink_to(build_id)
        unfinished.replace(self.link)

    def _prune(self) -> None:
        builds, current = self.builds(), self.current()
        for build in builds[: -self.keep]:
            if current is None or build.build_id != current.build_id:
                shutil.rmtree(self.path(build.build_id), ignore_errors=True)

    def _write(self, warehouse: Path, folder: Path) -> dict[str, int]:
        rows: dict[str, int] = {}
        for stem, tables in FILES.items():
            with duckdb.connect(str(folder / f"{stem}.duckdb")) as target:
                target.execute(f"ATTACH {literal(warehouse)} AS source (READ_ONLY)")
                for schema in {table.schema for table in tables}:
                    target.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
                for table in tables:
                    columns = ", ".join(column.name for column in table.columns)
                    target.execute(f"CREATE TABLE {table.full_name} AS SELECT {columns} FROM source.{table.full_name}")
                    rows[table.name] = _count(target, table)
                target.execute("DETACH source")
                target.execute("CHECKPOINT")
        return rows

    def _problems(self, folder: Path, build: Build) -> list[str]:
        problems = []
        for stem, tables in FILES.items():
            connection = duckdb.connect(str(folder / f"{stem}.duckdb"), read_only=True)
            try:
                problems += [b.problem for table in tables if (b := broken_contract(connection, table))]
            finally:
                connection.close()
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


def _count(connection: duckdb.DuckDBPyConnection, table: Table) -> int:
    found = connection.execute(f"SELECT count(*) FROM {table.full_name}").fetchone()
    assert found is not None
    return int(found[0])
