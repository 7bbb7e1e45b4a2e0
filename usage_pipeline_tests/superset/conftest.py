"""People of each role, the places of a running Superset, and its addresses: once a file."""

import json
import os
import subprocess

import pytest

from usage_pipeline.operations.local import (
    SUPERSET_PYTHON,
    run_in_superset,
    superset_environment,
)
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer
from usage_pipeline_tests.support.superset_client import listed
from usage_pipeline_tests.support.visitors import Places, Visitor


@pytest.fixture(scope="module")
def visitors(superset: SupersetServer, demo: Demo) -> dict[str, Visitor]:
    password = "made for this test only"
    run_in_superset(
        demo.settings.home, superset.folder, "users", ["add", "pipeline", "Usage service"], print, given=password
    )
    superset.passwords["pipeline"] = password
    return {name: Visitor(superset, name) for name in ("admin", "manager", "viewer", "analyst", "pipeline", "nobody")}


@pytest.fixture(scope="module")
def places(visitors: dict[str, Visitor]) -> Places:
    def numbers(what: str, name: str) -> dict[str, int]:
        return {item[name]: item["id"] for item in listed(visitors["admin"], what)}

    return Places(
        numbers("dataset", "table_name"),
        numbers("database", "database_name"),
        numbers("dashboard", "slug"),
        numbers("chart", "slice_name"),
    )


@pytest.fixture(scope="module")
def addresses(superset: SupersetServer, demo: Demo) -> list[tuple[str, dict[str, str]]]:
    """Every address of this Superset that answers GET, with the kinds of its places."""
    code = (
        "import json\nfrom superset.app import create_app\n"
        "rules = [r for r in create_app().url_map.iter_rules() if 'GET' in r.methods]\n"
        "print('RULES' + json.dumps([[r.rule, {a: type(c).__name__ for a, c in r._converters.items()}] for r in rules]))"
    )
    environment = os.environ | superset_environment(demo.settings.home, superset.folder)
    done = subprocess.run(
        [str(SUPERSET_PYTHON), "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("RULES"))
    return [(rule, kinds) for rule, kinds in json.loads(line.removeprefix("RULES"))]
