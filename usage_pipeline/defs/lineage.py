"""What each asset reads and makes: declared here by the asset, found in its SQL by `scripts/lineage.py`, kept in
`lineage.yaml`.

Belongs here: the one place where an asset says which SQL files it runs, which tables it makes, and what it reads beyond
its SQL files; and reading `lineage.yaml`. Does not: parsing SQL, which needs a package that no run has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

FILE = Path(__file__).with_name("lineage.yaml")
REMEDY = "run `make lineage` and commit usage_pipeline/defs/lineage.yaml"


class LineageError(Exception):
    """`lineage.yaml` does not know an asset; the message names it and the remedy."""


@dataclass(frozen=True)
class Step:
    """What an asset runs, makes and reads; a SQL file is named as `load_sql` takes it, such as `defs/usage/weeks`.

    `tables`: each table that is the rows of a SQL file, with that file. `python`: each table whose rows are made in
    Python or by SQL put together there, with its columns. `runs`: SQL files run on the way to them. `checks`: those of
    its checks. `reads`: what statements in Python read of others: a table, or an asset whose files are read. `passing`:
    names that exist only while it runs, with their columns: what is registered, and tables of its own connection.
    """

    tables: Mapping[str, str] = field(default_factory=dict)
    python: Mapping[str, Sequence[str]] = field(default_factory=dict)
    runs: Sequence[str] = ()
    checks: Sequence[str] = ()
    reads: Sequence[str] = ()
    passing: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def made(self) -> set[str]:
        return {*self.tables, *self.python}

    @property
    def queries(self) -> list[str]:
        return sorted({*self.tables.values(), *self.runs})


# of every asset that reads or makes a table
STEPS: dict[str, Step] = {}


def deps_of(asset: str, step: Step) -> list[str]:
    """The assets that `asset` reads, as `lineage.yaml` has them. Raises LineageError."""
    STEPS[asset] = step
    return list(recorded(asset)["reads"])


def column_lineage(asset: str) -> dict[str, Any]:
    """Which columns of which assets each column of the asset's table is made of, as metadata of a materialization."""
    columns = recorded(asset).get("columns", {})
    if not columns:
        return {}
    deps = {
        name: [
            dg.TableColumnDep(dg.AssetKey(source.split(".")[0]), ".".join(source.split(".")[1:])) for source in sources
        ]
        for name, sources in columns.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)}


def recorded(asset: str) -> dict[str, Any]:
    """What `lineage.yaml` says of an asset. Raises LineageError."""
    known = _recorded()
    if asset not in known:
        raise LineageError(f"{FILE.name} does not know the asset {asset}: {REMEDY}")
    return known[asset]


@cache
def _recorded() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.load(FILE.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return found
