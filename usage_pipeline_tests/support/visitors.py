"""People of each role who ask a running Superset over HTTP."""

import re
import subprocess
from dataclasses import dataclass
from typing import Any

import requests

from usage_pipeline.operations.local import (
    SUPERSET,
    SUPERSET_PYTHON,
)
from usage_pipeline_tests.support.servers import SupersetServer


class Visitor:
    """Superset as one account sees it, with the token against forged requests: no door stays shut for want of it."""

    def __init__(self, server: SupersetServer, user: str) -> None:
        self.url = server.url
        self.session = requests.Session()
        if user != "nobody":
            form = {"username": user, "password": server.passwords[user], "csrf_token": self.token()}
            answer = self.session.post(f"{self.url}/login/", data=form, timeout=60)
            assert "/login" not in answer.url, answer.url
        self.session.headers["X-CSRFToken"] = self.token()

    def token(self) -> str:
        """The one that every page hands out."""
        return token_of(self.session.get(f"{self.url}/login/", timeout=60).text)

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        return self.session.request(method, f"{self.url}{path}", json=body, timeout=150)

    def get(self, path: str) -> requests.Response:
        return self.ask("GET", path)

    def post(self, path: str, body: Any) -> requests.Response:
        return self.ask("POST", path, body)

    def run(self, sql: str, database: int, **more: Any) -> requests.Response:
        return self.post("/api/v1/sqllab/execute/", {"database_id": database, "sql": sql, "schema": "mart"} | more)


def token_of(page: str) -> str:
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
    assert found, "no token on the page"
    return found[1]


@dataclass(frozen=True)
class Places:
    """The numbers that this installation gave to what the tests knock at."""

    datasets: dict[str, int]
    databases: dict[str, int]
    dashboards: dict[str, int]
    charts: dict[str, int]


def ask_for(dataset: int, **query: Any) -> dict[str, Any]:
    """A request for a dataset's data, as anybody can write it."""
    return {
        "datasource": {"id": dataset, "type": "table"},
        "force": True,
        "queries": [{"columns": [], "metrics": [], "row_limit": 50} | query],
        "result_format": "json",
        "result_type": "full",
    }


def in_sql(expression: str, label: str = "made up") -> dict[str, Any]:
    return {"expressionType": "SQL", "sqlExpression": expression, "label": label}


def start_problems(**environment: str) -> str:
    done = subprocess.run(
        [str(SUPERSET_PYTHON), "-W", "ignore", str(SUPERSET / "superset_config.py")],
        env={"PATH": "/usr/bin", "USAGE_PUBLISHED": "/nowhere"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode else ""


GOOD_KEY = "kJ8s2mQ0vX4tB7nR1yC6wE9uI3oP5aSdFgHjKlZx"
