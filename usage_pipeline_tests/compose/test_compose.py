"""The deployment, as a company would start it: images built, everything up, each service killed, all of it restored.

Needs a Docker engine on this machine with the compose plugin, named by DOCKER_HOST, and root for killing processes.
Run by `make test-compose`, in the order of the file. Images that cannot be pulled have stand-ins (`stand-ins.yml`):
PostgreSQL and Redis from Debian's packages, and the base of our own; USAGE_COMPOSE_IMAGES=real takes those of the file.
Which of them were stand-ins is said before the first test and after the last.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from usage_superset.chart_queries import payload

from usage_pipeline_tests.compose.stand_ins import FILES, sentence
from usage_pipeline_tests.support.outcomes import record
from usage_pipeline_tests.support.servers import SupersetServer, free_port
from usage_pipeline_tests.support.superset_client import CHARTS, Client, data_of

pytestmark = pytest.mark.compose

REPO = Path(__file__).parents[2]
SECRETS = ["POSTGRES_PASSWORD", "DAGSTER_DB_PASSWORD", "SUPERSET_DB_PASSWORD", "REDIS_PASSWORD", "SUPERSET_SECRET_KEY"]
OURS = ["code", "webserver", "daemon", "superset", "worker", "beat", "api"]
LIMITED = "Viewer of a region"
STEADY = ["postgres", "redis", *OURS]


def engine_problem() -> str:
    """Why there is nothing to test with, or nothing."""
    if not os.environ.get("DOCKER_HOST"):
        return "DOCKER_HOST is not set: no Docker engine is named"
    found = subprocess.run(["docker", "compose", "ls"], capture_output=True, text=True, check=False)
    return found.stderr.strip() if found.returncode else ""


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[None]:
    if problem := engine_problem():
        pytest.skip(problem)
    print(f"\n  {sentence(REPO, files_of_compose())}", flush=True)
    yield
    print(f"\n  {sentence(REPO, files_of_compose())}", flush=True)


def files_of_compose() -> list[str]:
    return FILES[:1] if os.environ.get("USAGE_COMPOSE_IMAGES") == "real" else FILES


@dataclass
class Deployment:
    """One project of compose, with secrets and ports of its own."""

    name: str
    folder: Path
    environment: dict[str, str]

    @classmethod
    def made(cls, folder: Path, **more: str) -> "Deployment":
        config = folder / "config"
        config.mkdir()
        config.chmod(0o755)
        given = {name: secrets.token_urlsafe(36) for name in [*SECRETS, "DEMO_STORE_KEY", "DEMO_STORE_SECRET"]}
        name = f"usage-test-{secrets.token_hex(3)}"
        return cls(
            name,
            folder,
            os.environ
            | given
            | {
                "COMPOSE_PROJECT_NAME": name,
                "COMPOSE_FILE": ":".join(files_of_compose()),
                "USAGE_VERSION": "test",
                "USAGE_CONFIG": str(config),
                "DEMO_ACCOUNTS": "60",
                # nobody is written to: it makes worker and beat work
                "USAGE_SMTP_HOST": "mail.invalid",
                "USAGE_MAIL_FROM": "usage@mail.invalid",
                "SUPERSET_PORT": str(free_port()),
                "DAGSTER_PORT": str(free_port()),
                "API_PORT": str(free_port()),
                "USAGE_DAGSTER_PASSWORD": secrets.token_urlsafe(36),
            }
            | more,
        )

    def compose(self, *words: str, check: bool = True, seconds: float = 1500) -> subprocess.CompletedProcess[str]:
        return self.run(["docker", "compose", *words], check=check, seconds=seconds)

    def run(self, words: list[str], check: bool = True, seconds: float = 1500) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, env=self.environment, cwd=REPO, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0 or not check, f"{words}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def container(self, service: str) -> dict[str, Any]:
        found = self.compose("ps", "-a", "-q", service).stdout.strip()
        told: dict[str, Any] = json.loads(self.run(["docker", "inspect", found]).stdout)[0]
        return told

    def logs(self, service: str) -> str:
        return self.compose("logs", "--no-color", service).stdout

    def superset(self, passwords: dict[str, str]) -> SupersetServer:
        return SupersetServer(f"http://127.0.0.1:{self.environment['SUPERSET_PORT']}", passwords, self.folder)

    def dagster(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = requests.post(
            f"http://127.0.0.1:{self.environment['DAGSTER_PORT']}/graphql",
            json={"query": query, "variables": variables},
            headers={"Authorization": f"Bearer {self.environment['USAGE_DAGSTER_PASSWORD']}"},
            timeout=60,
        )
        told: dict[str, Any] = answer.json()
        assert "errors" not in told, told
        data: dict[str, Any] = told["data"]
        return data

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.dagster(
            "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"
        )["runsOrError"]["results"]
        return found


@pytest.fixture(scope="module")
def passwords() -> dict[str, str]:
    """Of the demo's people; read from the log that says them once."""
    return {}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, passwords: dict[str, str]) -> Iterator[Deployment]:
    """Everything with the demo's data, the API and a role of its own; built, and up and healthy."""
    folder = tmp_path_factory.mktemp("stack")
    made = Deployment.made(folder, COMPOSE_PROFILES="demo,api", USAGE_ROLES="/config/roles.yaml")
    of_superset = folder / "config" / "superset"
    of_superset.mkdir()
    of_superset.chmod(0o755)
    role = {"includes": ["Usage viewer"], "accounts": {"region": ["Midwest"]}}
    (of_superset / "roles.yaml").write_text(yaml.safe_dump({LIMITED: role}), encoding="utf-8")
    (of_superset / "roles.yaml").chmod(0o644)
    timed("images built", lambda: made.compose("build", seconds=3000))
    try:
        timed("demo up and healthy", lambda: made.compose("up", "-d", "--wait", "--no-build"))
        # compose does not wait for what runs once and nothing depends on
        wait_until("demo-people done", lambda: made.container("demo-people")["State"]["Status"] == "exited")
        passwords.update(re.findall(r"log in as (\w+) +(\S+)", made.logs("demo-people")))
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "5", check=False)


def timed(what: str, do: Callable[[], Any]) -> float:
    started = time.monotonic()
    do()
    seconds = time.monotonic() - started
    print(f"\n  {what}: {seconds:.0f} s", end="", flush=True)
    return seconds


def wait_until(what: str, is_so: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if is_so():
                return
        except (requests.RequestException, AssertionError, KeyError):
            pass
        time.sleep(2)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


def pages(server: SupersetServer) -> dict[str, Any]:
    """The data of every chart that a manager sees, by title."""
    client, answers = Client(server, "manager"), {}
    datasets = client.charts()
    for chart in CHARTS.values():
        title = chart["slice_name"]
        if title not in datasets:
            continue
        answer = client.post("/api/v1/chart/data", payload(chart["params"], datasets[title], force=False))
        assert answer.status_code == 200, f"{title}: {answer.status_code} {answer.text[:300]}"
        results = [sorted(json.dumps(_rounded(row)) for row in result["data"]) for result in answer.json()["result"]]
        # without a page's filters some are longer than is asked for: which of equal rows come is chance
        most = int(chart["params"].get("row_limit") or 1_000_000)
        answers[title] = ["more than is listed" if len(rows) >= most else rows for rows in results]
    return answers


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Sums of floating-point numbers differ in the last digits from run to run."""
    return {name: float(f"{value:.9g}") if isinstance(value, float) else value for name, value in row.items()}


def still(answers: dict[str, Any]) -> dict[str, Any]:
    """Without what tells of runs and of the time of day, which the deployment's own life changes."""
    titles = {chart["slice_name"] for chart in CHARTS.values() if chart["dataset_uuid"] not in _STATUS_DATASETS}
    return {title: rows for title, rows in answers.items() if title in titles}


_ABOUT = "About this page"
_STATUS_DATASETS = {
    re.search(r"^uuid: (\S+)", text, re.MULTILINE)[1]  # type: ignore[index]
    for text in (f.read_text(encoding="utf-8") for f in (REPO / "superset/assets/datasets").rglob("*.yaml"))
    if re.search(r"^schema: (status|outcomes|responses)", text, re.MULTILINE)
}

# ---------------------------------------------------------------- the start


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_missing_stops_the_start_by_its_name(tmp_path: Path, name: str) -> None:
    lacking = Deployment.made(tmp_path, **{name: ""})
    refused = lacking.compose("up", "-d", check=False)
    assert refused.returncode != 0
    assert f"{name} is missing a value" in refused.stderr


def test_the_demo_is_full_of_data(stack: Deployment, passwords: dict[str, str]) -> None:
    answers = timed_pages(stack.superset(passwords))
    assert len(answers) > 60
    assert sum(len(rows) for results in still(answers).values() for rows in results) > 1000


def timed_pages(server: SupersetServer) -> dict[str, Any]:
    found: dict[str, Any] = {}
    timed("every chart asked for", lambda: found.update(pages(server)))
    return found


@pytest.mark.parametrize(
    ("service", "words", "says"),
    [
        ("code", ["sources", "check"], "usage"),
        ("code", ["builds"], "shown"),
        ("code", ["kpi", "export", "--out", "/tmp/sheet.xlsx"], "sheet.xlsx"),  # noqa: S108 - the container's own
        ("code", ["refresh"], "are in build"),
        ("superset", ["users", "list"], "manager"),
    ],
)
def test_commands_run_in_the_container_that_the_readme_names(
    stack: Deployment, service: str, words: list[str], says: str
) -> None:
    done = stack.compose("exec", "-T", service, "usage", *words)
    assert says in done.stdout + done.stderr


def test_a_refresh_of_the_command_line_is_not_taken_for_one_that_died(stack: Deployment) -> None:
    said = [message for run in stack.runs() for message in messages_of(stack, run["runId"])]
    assert said
    assert not [message for message in said if "Marking run" in message]


def test_only_what_people_and_programs_read_is_published_and_on_loopback(stack: Deployment) -> None:
    published = {}
    for service in [*STEADY, "s3"]:
        bound = stack.container(service)["HostConfig"]["PortBindings"] or {}
        published |= {service: {b["HostIp"] for places in bound.values() for b in places}} if bound else {}
    assert published == {name: {"127.0.0.1"} for name in ("webserver", "superset", "api")}


def test_containers_have_no_more_rights_than_they_need(stack: Deployment) -> None:
    for service in [*STEADY, "s3"]:
        host = stack.container(service)["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert host["Memory"] > 0, service
        user = stack.compose("exec", "-T", service, "id", "-u").stdout.strip()
        assert user != "0", service
    for service in ("superset", "worker"):
        refused = stack.compose("exec", "-T", service, "touch", "/data/published/x", check=False)
        assert "Read-only file system" in refused.stderr, "only the pipeline writes builds"
        seen = stack.compose("exec", "-T", service, "ls", "/data").stdout.split()
        assert set(seen) == {"feedback", "outcomes", "published", "status"}, "facts and history are not to be read"
    touched = [
        stack.compose("exec", "-T", one, "touch", "/data/feedback/.x", check=False) for one in ("superset", "code")
    ]
    assert touched[0].returncode == 0, "the form writes there"
    assert "Read-only file system" in touched[1].stderr, "and the pipeline does not"
    stack.compose("exec", "-T", "superset", "rm", "/data/feedback/.x")


def test_programs_read_by_a_token_from_a_service_that_knows_no_secret(stack: Deployment) -> None:
    address = f"http://127.0.0.1:{stack.environment['API_PORT']}/v1/accounts"
    assert requests.get(address, timeout=60).status_code == 401
    told = stack.compose("exec", "-T", "code", "usage", "tokens", "add", "crm-sync").stdout
    token = told.split()[-1]
    answer = requests.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] >= 60
    stack.compose("exec", "-T", "code", "usage", "tokens", "revoke", "crm-sync")
    assert requests.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=60).status_code == 401
    seen = stack.compose("exec", "-T", "api", "ls", "/data").stdout.split()
    assert set(seen) == {"api", "outcomes", "published"}
    refused = stack.compose("exec", "-T", "api", "touch", "/data/api/x", check=False)
    assert "Read-only file system" in refused.stderr
    environment = json.dumps(stack.container("api")["Config"]["Env"])
    assert not [name for name in SECRETS if stack.environment[name] in environment]


def test_a_role_of_the_folder_beside_the_configuration_sees_its_accounts_alone(stack: Deployment) -> None:
    password = secrets.token_urlsafe(24)
    stack.run(["bash", "-c", f"echo {password} | docker compose exec -T superset usage users add limited '{LIMITED}'"])
    rows = data_of(Client(stack.superset({"limited": password}), "limited"), "accounts")
    assert len(rows)
    assert set(rows["region"]) == {"Midwest"}


def test_each_database_is_for_its_own_user_only(stack: Deployment) -> None:
    given = stack.environment["DAGSTER_DB_PASSWORD"]
    look = ["env", f"PGPASSWORD={given}", "psql", "-h", "127.0.0.1", "-U", "dagster", "-Atc", "SELECT 1"]
    assert stack.compose("exec", "-T", "postgres", *look, "dagster").stdout.strip() == "1"
    refused = stack.compose("exec", "-T", "postgres", *look, "superset", check=False)
    assert "permission denied for database" in refused.stderr


@pytest.mark.parametrize("image", ["usage-pipeline:test", "usage-superset:test", "usage-s3:test"])
def test_no_layer_holds_a_credential_an_index_a_certificate_or_a_compiler(stack: Deployment, image: str) -> None:
    history = stack.run(["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image]).stdout
    environment = stack.run(["docker", "inspect", "--format", "{{json .Config.Env}}", image]).stdout
    for word in [stack.environment[name] for name in SECRETS] + ["INDEX_URL", "://", "password="]:
        assert word not in history + environment
    base = "python:3.11-slim-bookworm"
    look = ["docker", "run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh"]
    certificates = (
        "find / -xdev \\( -name '*.crt' -o -name pip.conf -o -name uv.toml -o -name .netrc \\) 2>/dev/null | sort"
    )
    if os.environ.get("USAGE_COMPOSE_IMAGES") != "real":
        ours = set(stack.run([*look, image, "-c", certificates]).stdout.split())
        assert ours <= set(stack.run([*look, base, "-c", certificates]).stdout.split())
    tools = stack.run([*look, image, "-c", "command -v gcc cc make uv git || true"]).stdout
    assert not tools.strip()


# ---------------------------------------------------------------- what is killed comes back


def kill(stack: Deployment, *services: str) -> dict[str, str]:
    """Ends the first process of each, as a machine out of memory would; returns when each had been started."""
    states = {service: stack.container(service)["State"] for service in services}
    for state in states.values():
        os.kill(state["Pid"], signal.SIGKILL)
    return {service: state["StartedAt"] for service, state in states.items()}


def is_back(stack: Deployment, service: str, started: str) -> bool:
    state = stack.container(service)["State"]
    return state["StartedAt"] != started and state.get("Health", {}).get("Status") == "healthy"


@pytest.mark.parametrize("service", STEADY)
def test_a_service_that_is_killed_comes_back_and_nothing_is_lost(
    stack: Deployment, passwords: dict[str, str], service: str
) -> None:
    before = still(pages(stack.superset(passwords)))
    known = {run["runId"] for run in stack.runs()}
    started = kill(stack, service)[service]
    timed(f"{service} killed; healthy again", lambda: wait_until(service, lambda: is_back(stack, service, started)))
    wait_until("pages", lambda: still(pages(stack.superset(passwords))) == before)
    wait_until("runs", lambda: known <= {run["runId"] for run in stack.runs()})


def test_a_run_in_flight_is_reported_and_tried_again(stack: Deployment) -> None:
    run = launch_refresh(stack)
    wait_until("the run starts", lambda: status_of(stack, run) == "STARTED", 180)
    started = kill(stack, "code")["code"]
    wait_until("code", lambda: is_back(stack, "code", started))
    timed(
        "code killed with a run in it; run reported",
        lambda: wait_until("run", lambda: status_of(stack, run) == "FAILURE"),
    )
    assert any("knows no such run" in message for message in messages_of(stack, run))

    def tried_again() -> bool:
        tags = [({t["key"]: t["value"] for t in r["tags"]}, r["status"]) for r in stack.runs()]
        return any(t.get("dagster/parent_run_id") == run and status == "SUCCESS" for t, status in tags)

    timed("tried again with success", lambda: wait_until("retry", tried_again, 900))


def messages_of(stack: Deployment, run: str) -> list[str]:
    query = "query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { ... on MessageEvent { message } } } } }"
    return [event.get("message", "") for event in stack.dagster(query, id=run)["logsForRun"]["events"]]


def launch_refresh(stack: Deployment) -> str:
    tell = (
        "import json; from usage_pipeline.config.settings import load_settings; from usage_pipeline.defs.schedules import window_tags;"
        "print(json.dumps(window_tags(load_settings('/data/demo/sources.yaml').clock)))"
    )
    told = stack.compose("exec", "-T", "code", "/app/pipeline/bin/python", "-c", tell).stdout
    tags = [{"key": key, "value": value} for key, value in json.loads(told.splitlines()[-1]).items()]
    answer = stack.dagster(
        "mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename ... on LaunchRunSuccess { run { runId } }"
        " ... on PythonError { message } } }",
        p={
            "selector": {
                "repositoryLocationName": "usage_pipeline",
                "repositoryName": "__repository__",
                "jobName": "refresh",
            },
            "executionMetadata": {"tags": tags},
        },
    )["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    run_id: str = answer["run"]["runId"]
    return run_id


def status_of(stack: Deployment, run: str) -> str:
    return next(str(known["status"]) for known in stack.runs() if known["runId"] == run)


def test_all_killed_at_once_come_back(stack: Deployment, passwords: dict[str, str]) -> None:
    before = still(pages(stack.superset(passwords)))
    known = {run["runId"] for run in stack.runs()}
    started = kill(stack, *STEADY)
    timed(
        "all killed at once; healthy again",
        lambda: wait_until("all", lambda: all(is_back(stack, name, at) for name, at in started.items()), 600),
    )
    assert still(pages(stack.superset(passwords))) == before
    assert known <= {run["runId"] for run in stack.runs()}


# ---------------------------------------------------------------- backup and restore


def test_a_backup_put_into_an_empty_place_gives_the_same_pages(
    stack: Deployment, passwords: dict[str, str], tmp_path: Path
) -> None:
    before = still(pages(stack.superset(passwords)))
    runs = {run["runId"] for run in stack.runs()}
    outcome = record(tmp_path / "recorded", "A00001", "as it was")
    line = tmp_path / "line"
    line.write_text(json.dumps(json.loads(outcome.read_text(encoding="utf-8"))) + "\n", encoding="utf-8")
    stack.run(["bash", "-c", f"docker compose exec -T superset usage bring-back-outcomes <'{line}'"])
    folder = tmp_path / "backup"
    timed("backup", lambda: stack.run(["deploy/backup.sh", str(folder)]))
    again = stack.run(["deploy/backup.sh", str(folder)], check=False)
    assert "holds something already" in again.stderr

    other = Deployment.made(tmp_path, SUPERSET_SECRET_KEY=stack.environment["SUPERSET_SECRET_KEY"])
    try:
        timed("restore", lambda: other.run(["deploy/restore.sh", str(folder)]))
        assert still(pages(other.superset(passwords))) == before
        assert runs <= {run["runId"] for run in other.runs()}
        # the form has what was recorded before, which the pipeline cannot put there
        assert outcome.name in other.compose("exec", "-T", "superset", "ls", "/data/feedback").stdout
        assert "none changed or missing" in other.compose("exec", "-T", "code", "usage", "outcomes", "verify").stdout
        told = other.compose("exec", "-T", "code", "usage", "builds").stdout
        assert told == stack.compose("exec", "-T", "code", "usage", "builds").stdout
        refused = other.run(["deploy/restore.sh", str(folder)], check=False)
        assert "restore into an empty place" in refused.stderr
        timed("upgrade in place", lambda: other.run(["deploy/upgrade.sh", str(tmp_path / "before")]))
        # there is no lake where it was restored: the refresh says so, and all numbers stay
        after = still(pages(other.superset(passwords)))
        assert "Held back: accounts" in json.dumps(after.pop(_ABOUT)), after
        assert after == {title: rows for title, rows in before.items() if title != _ABOUT}
    finally:
        other.compose("down", "--volumes", "--timeout", "5", check=False)
    (folder / "data.tar").write_bytes((folder / "data.tar").read_bytes()[:-1000])
    assert "is damaged" in other.run(["deploy/restore.sh", str(folder)], check=False).stderr


# ---------------------------------------------------------------- production settings


def test_without_a_configuration_it_waits_and_says_for_what(tmp_path: Path, stack: Deployment) -> None:
    empty = Deployment.made(tmp_path)
    config = Path(empty.environment["USAGE_CONFIG"])
    try:
        empty.compose("up", "-d", "--no-build", "code")
        wait_until("it says so", lambda: "waiting for sources.yaml" in empty.logs("code"))
        assert empty.container("code")["State"]["Health"]["Status"] == "starting"
        (config / "sources.yaml").write_text("name: Wrong\nhome: /data\nsources: {usag: {}}\n", encoding="utf-8")
        (config / "sources.yaml").chmod(0o600)
        wait_until("whom it belongs to is said", lambda: "to be readable by user 10001" in empty.logs("code"))
        (config / "sources.yaml").chmod(0o644)
        wait_until("what is wrong is said", lambda: "unknown key" in empty.logs("code"))
        lake = "{path: /data/lake, columns: {account_id: a, application: b, event_time: c}, partitioned: true}"
        (config / "sources.yaml").write_text(
            f"name: Right\nhome: /data\nsources: {{usage: {lake}}}\n", encoding="utf-8"
        )
        wait_until("it serves", lambda: empty.container("code")["State"]["Health"]["Status"] == "healthy")
    finally:
        empty.compose("down", "--volumes", "--timeout", "5", check=False)
