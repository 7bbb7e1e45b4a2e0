"""Files for a CRM: after each build the accounts and the calls, all rows and those that changed, as CSV and Parquet.

Belongs here: what is in the files, and that a build is delivered whole. Does not: loading them into a CRM, which
its own import tool does. Contacts, users and CSMs are in no file.

Layout: `<target>/<build id>/` with `<kind>.csv`, `<kind>.parquet`, `<kind>_changes.csv`, `<kind>_changes.parquet`,
`schema.odcs.yaml`, and `manifest.json`, which is written last: a folder without it is not finished. What changed is
told against the build that was delivered before, as long as it is kept; `<home>/crm/delivered.json` holds which that
is. It is written after the manifest: a run that is killed between the two writes the same files again.
"""

import hashlib
import io
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyarrow import fs

from usage_pipeline.config.settings import Settings
from usage_pipeline.core.csv_cells import as_csv
from usage_pipeline.core.files import atomic_write
from usage_pipeline.core.locks import file_lock
from usage_pipeline.core.tables import COLUMNS
from usage_pipeline.publishing.builds import Build, BuildStore

KINDS = {"accounts": "an account", "calls": "an account on the call list"}
KEY = "account_id"
SCHEMA_VERSION = "1.1.0"
_SECONDS_TO_WAIT = 600
_TYPES = {pa.string(): "string", pa.int64(): "integer", pa.float64(): "number", pa.date32(): "date"}


class CrmFileError(Exception):
    """The files could not be written; the message names the target and the remedy."""


@dataclass(frozen=True)
class Delivery:
    """What was delivered: rows and changed rows by kind; or why nothing was."""

    build_id: str = ""
    not_written_because: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)


def write_crm_files(settings: Settings) -> Delivery:
    """Delivers the current build, once. Raises CrmFileError where the target cannot be written."""
    target = settings.crm_files.target
    if target is None:
        return Delivery(not_written_because="crm_files.target is not set")
    state = settings.home.crm_dir / "delivered.json"
    with file_lock(settings.home.crm_dir / "crm.lock", _SECONDS_TO_WAIT, what="the CRM files"):
        store = BuildStore(settings.home.published_dir)
        build = store.current()
        if build is None:
            return Delivery(not_written_because="nothing is published yet")
        if store.pinned is not None:
            return Delivery(not_written_because=f"a rollback holds build {store.pinned}")
        if _delivered(settings) == build.build_id:
            return Delivery(not_written_because=f"build {build.build_id} was delivered before")
        files, rows, changed = files_of(store, build, _base(settings, store))
        try:
            _write(settings, target, build.build_id, files)
        except OSError as error:
            remedy = "check crm_files.target, and that it may be written to"
            raise CrmFileError(f"{target}: the CRM files could not be written ({error}): {remedy}") from error
        with atomic_write(state) as tmp_path:
            tmp_path.write_text(json.dumps({"target": target, "build_id": build.build_id}), encoding="utf-8")
    return Delivery(build.build_id, rows=rows, changed=changed)


@dataclass(frozen=True)
class Preview:
    """Files that were written, rows and changed rows by kind, and the build that changes are told against."""

    files: list[Path]
    rows: dict[str, int]
    changed: dict[str, int]
    base: str | None


def preview(settings: Settings, folder: Path) -> Preview:
    """Writes what would be delivered now; the next delivery is as if this had not been. Raises CrmFileError."""
    store = BuildStore(settings.home.published_dir)
    build = store.current()
    if build is None:
        raise CrmFileError("nothing is published yet: run `usage-pipeline refresh` first")
    base = _base(settings, store)
    files, rows, changed = files_of(store, build, base)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Preview([folder / name for name in files], rows, changed, base)


def _delivered(settings: Settings) -> str | None:
    """The build that the target of now has got last."""
    state = settings.home.crm_dir / "delivered.json"
    before = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    return before["build_id"] if before and before["target"] == settings.crm_files.target else None


def _base(settings: Settings, store: BuildStore) -> str | None:
    """The build that changes are told against; None where none was delivered, or it is not kept any more."""
    last = _delivered(settings)
    return last if last in {known.build_id for known in store.builds()} else None


def files_of(
    store: BuildStore, build: Build, base: str | None
) -> tuple[dict[str, bytes], dict[str, int], dict[str, int]]:
    """Every file of a delivery by name, the manifest last; rows and changed rows by kind.

    `base`: the build that changes are told against; None where every row is new.
    """
    files: dict[str, bytes] = {}
    full: dict[str, pa.Table] = {}
    changes: dict[str, pa.Table] = {}
    for kind in KINDS:
        full[kind] = _rows(store, build.build_id, kind)
        changes[kind] = changed_rows(full[kind], _rows(store, base, kind) if base else full[kind].slice(0, 0))
        for name, table in ((kind, full[kind]), (f"{kind}_changes", changes[kind])):
            files[f"{name}.csv"] = as_csv(table.column_names, (row.values() for row in table.to_pylist()))
            files[f"{name}.parquet"] = _as_parquet(table)
    described = data_schema(full | {f"{kind}_changes": table for kind, table in changes.items()})
    files["schema.odcs.yaml"] = yaml.safe_dump(described, sort_keys=False).encode()
    listed = {name: {"bytes": len(it), "sha256": hashlib.sha256(it).hexdigest()} for name, it in files.items()}
    rows, changed = ({kind: table.num_rows for kind, table in of.items()} for of in (full, changes))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "build_id": build.build_id,
        "newest_week": build.newest_week,
        "changed_since_build": base,
        "rows": rows,
        "changed_rows": changed,
        "files": listed,
    }
    files["manifest.json"] = json.dumps(manifest, indent=1).encode()
    return files, rows, changed


@cache
def _query(kind: str) -> str:
    return Path(__file__).with_name("sql").joinpath(f"{kind}.sql").read_text(encoding="utf-8")


def _rows(store: BuildStore, build_id: str, kind: str) -> pa.Table:
    file = (store.path(build_id) / "warehouse.duckdb").resolve()
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute(_query(kind)).to_arrow_table()


def changed_rows(now: pa.Table, before: pa.Table) -> pa.Table:
    """Rows that were added, changed or removed (as they were), with the column `change`, by key."""
    old, new = ({row[KEY]: row for row in table.to_pylist()} for table in (before, now))
    found = [
        (new.get(key) or old[key]) | {"change": "removed" if key not in new else "changed" if key in old else "added"}
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    return pa.Table.from_pylist(found, schema=now.schema.append(pa.field("change", pa.string())))


def _as_parquet(table: pa.Table) -> bytes:
    made = io.BytesIO()
    pq.write_table(table, made)
    return made.getvalue()


def data_schema(tables: dict[str, pa.Table]) -> dict[str, Any]:
    """The data contract of the files, in the Open Data Contract Standard (bitol.io, v3.1.0)."""
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "usage-pipeline-crm-files",
        "name": "CRM files",
        "version": SCHEMA_VERSION,
        "status": "active",
        "description": {
            "purpose": "Health, ARR at risk, renewal, last activity and main reason of accounts, for a CRM.",
            "limitations": "No contacts, users or CSMs. In CSV, what may be a formula begins with an apostrophe.",
        },
        "schema": [_object(name, table) for name, table in tables.items()],
    }


def _object(name: str, table: pa.Table) -> dict[str, Any]:
    kind = name.removesuffix("_changes")
    row = KINDS[kind] if kind == name else f"{KINDS[kind]} that was added, changed or removed"
    return {
        "name": name,
        "logicalType": "object",
        "physicalType": "file",
        "description": f"A row is {row}.",
        "properties": [_property(column) for column in table.schema],
    }


def _property(column: pa.Field) -> dict[str, Any]:
    is_change, is_key = column.name == "change", column.name == KEY
    described = "what became of the row since the build before" if is_change else COLUMNS[column.name].description
    words = ["added", "changed", "removed"] if is_change else list(COLUMNS[column.name].words)
    return {
        "name": column.name,
        "logicalType": _TYPES[column.type],
        "physicalType": str(column.type),
        "description": described,
        "required": is_key or is_change,
        "primaryKey": is_key,
        **({"primaryKeyPosition": 1} if is_key else {}),
        **({"quality": [_one_of(words)]} if words else {}),
    }


def _one_of(words: list[str]) -> dict[str, Any]:
    return {"type": "library", "metric": "invalidValues", "arguments": {"validValues": words}, "mustBe": 0}


def _write(settings: Settings, target: str, build_id: str, files: dict[str, bytes]) -> None:
    if not target.startswith("s3://"):
        for name, content in files.items():
            with atomic_write(Path(target) / build_id / name) as tmp_path:
                tmp_path.write_bytes(content)
        return
    from usage_pipeline.ingestion.s3_store import S3Store  # boto3 is slow to load, and few need it

    store: fs.FileSystem = S3Store.of(settings.store).arrow_store()
    for name, content in files.items():
        with store.open_output_stream(f"{target.removeprefix('s3://').rstrip('/')}/{build_id}/{name}") as stream:
            stream.write(content)
