"""The read API keeps what its OpenAPI description says, whatever is asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import positive_data_acceptance

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import OutcomeSettings
from usage_pipeline.outcomes.database import renew_outcomes
from usage_pipeline.serving.tokens import TokenStore
from usage_pipeline.serving.web import make_api
from usage_pipeline_tests.serving.conftest import CLOCK, publish

_OFTEN = 100_000


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> DataHome:
    root: Path = tmp_path_factory.mktemp("contract")
    publish(root)
    home = DataHome(root)
    assert renew_outcomes(home, CLOCK, OutcomeSettings())
    return home


@pytest.fixture(scope="module")
def secret(module_home: DataHome) -> str:
    return TokenStore(module_home.api_dir).add("contract", ["contacts"], {})


@pytest.fixture(scope="module")
def api(module_home: DataHome) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", make_api(module_home, _OFTEN))


schema = schemathesis.pytest.from_fixture("api")


_QUESTIONS: dict[str, Any] = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.mark.long
@schema.parametrize()
@settings(max_examples=25, **_QUESTIONS)
def test_every_answer_is_as_described(case: Any, secret: str) -> None:
    """Right and wrong questions: schema, status, kind of content, and no answer without the token."""
    # which values there are, the build knows and no description: a sound question may name one that is not there
    case.call_and_validate(headers=_shown(case, secret), excluded_checks=[positive_data_acceptance])


def _shown(case: Any, secret: str) -> dict[str, str]:
    """The token, but where the question is wrong for want of one."""
    headers = case.meta.components.get(ParameterLocation.HEADER)
    return {} if headers and headers.mode.is_negative else {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def client(module_home: DataHome) -> Iterator[TestClient]:
    with TestClient(make_api(module_home, _OFTEN)) as opened:
        yield opened


def test_every_address_has_an_example_of_its_own_schema_and_every_parameter_is_explained(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert described["components"]["securitySchemes"]
    for path, item in described["paths"].items():
        operation = item["get"]
        assert operation["summary"]
        assert operation["security"], path
        for parameter in operation.get("parameters", []):
            assert parameter.get("description") or parameter["in"] == "path", (path, parameter["name"])
        for kind, content in operation["responses"]["200"]["content"].items():
            assert content["schema"], path
            if kind == "application/json":
                assert set(content["example"]) <= set(content["schema"]["properties"]), path
