"""Dagster's web server behind the guard: what a page elsewhere, or a stranger, can make it do, and what goes on working.

Each attack runs against Dagster's own server too, where it has to work: so much for what it is worth. What was seen
there: a page with three pictures stopped a sensor and a schedule and queued a run; mutations came through by GET, as a
form, as plain text, as multipart and without any type; any Host and any Origin was taken, by websockets too; a row of
an asset's history was written by a POST without a body; pages could be framed.
"""

import ast
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests
import start
import yaml
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from usage_pipeline.operations import dagster_internals, local
from usage_pipeline.operations.dagster_guard import (
    GuardError,
    Patience,
    Policy,
    Sessions,
    _own_path,
    policy_from,
    refusal_of,
)
from usage_pipeline_tests.support.processes import end_process
from usage_pipeline_tests.support.servers import free_port

REPO = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PASSWORD = "correct horse battery"

_CODE = """
import dagster as dg

@dg.asset
def table():
    pass

@dg.op
def nothing():
    pass

@dg.job
def work():
    nothing()

@dg.sensor(job=work, default_status=dg.DefaultSensorStatus.RUNNING)
def looks():
    pass

@dg.schedule(job=work, cron_schedule="0 0 1 1 *", default_status=dg.DefaultScheduleStatus.RUNNING)
def yearly():
    return {}

defs = dg.Definitions(assets=[table], jobs=[work], sensors=[looks], schedules=[yearly])
"""

# ---------------------------------------------------------------- servers


@dataclass(frozen=True)
class Servers:
    """A code server with a sensor, a schedule, a job and an asset; Dagster's own web server before it, and ours."""

    home: Path
    plain: str
    guarded: str

    def start(self, stack: ExitStack, **environment: str) -> str:
        """Another guarded one, with settings of its own."""
        return stack.enter_context(_guarded(self.home, environment))


@contextmanager
def _process(command: list[str], home: Path, answers: Callable[[], bool], **more: str) -> Iterator[None]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("USAGE_")} | {"DAGSTER_HOME": str(home)}
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=home, env=environment | more, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 90
        while not answers():
            assert process.poll() is None, (home / "log").read_text()[-3000:]
            assert time.monotonic() < end, (home / "log").read_text()[-3000:]
            time.sleep(0.3)
        yield
    finally:
        end_process(process)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


@contextmanager
def _guarded(home: Path, environment: dict[str, str]) -> Iterator[str]:
    port = free_port()
    command = [str(BIN / "usage-pipeline"), "webserver", "--workspace", "workspace.yaml", "--port", str(port)]
    with _process(command, home, lambda: _answers(f"http://localhost:{port}/health"), **environment):
        yield f"http://localhost:{port}"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    home = tmp_path_factory.mktemp("guard")
    (home / "code.py").write_text(_CODE, encoding="utf-8")
    (home / "dagster.yaml").write_bytes((REPO / "dagster.yaml").read_bytes())
    place = home / "code.sock"
    server = {"socket": str(place), "location_name": "code"}
    (home / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
    code = [str(BIN / "dagster"), "api", "grpc", "--socket", str(place), "-f", str(home / "code.py")]
    port = free_port()
    plain = [str(BIN / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(port), "-w", "workspace.yaml"]
    with (
        _process(code, home, lambda: local._code_answers(place)),
        _process(plain, home, lambda: _answers(f"http://localhost:{port}/server_info")),
        _guarded(home, {}) as guarded,
    ):
        yield Servers(home, f"http://localhost:{port}", guarded)


@pytest.fixture(scope="module")
def instance(servers: Servers) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(servers.home)) as found:
        yield found


def graphql(url: str, query: str, headers: dict[str, str] | None = None, **variables: Any) -> dict[str, Any]:
    """As Dagster's own pages ask."""
    answer = requests.post(
        f"{url}/graphql", json={"query": query, "variables": variables}, headers=headers or {}, timeout=30
    )
    assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
    data: dict[str, Any] = answer.json()["data"]
    return data


# ---------------------------------------------------------------- what is attacked

_REPOSITORY = 'repositoryName: "__repository__", repositoryLocationName: "code"'
_IDS = f"""{{
  sensorOrError(sensorSelector: {{{_REPOSITORY}, sensorName: "looks"}}) {{ ... on Sensor {{ sensorState {{ id }} }} }}
  scheduleOrError(scheduleSelector: {{{_REPOSITORY}, scheduleName: "yearly"}}) {{
    ... on Schedule {{ scheduleState {{ id }} }} }}
}}"""
_LAUNCH = f"""mutation {{ launchRun(executionParams: {{
  selector: {{{_REPOSITORY}, pipelineName: "work"}}, runConfigData: {{}} }}) {{ __typename }} }}"""
_WIPE = """mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["table"]}}]) { __typename } }"""


@dataclass
class Target:
    """What the attacks go for, and whether they have changed it."""

    instance: dg.DagsterInstance
    plain: str

    def mutations(self) -> list[str]:
        """Stop a sensor, stop a schedule, queue a run."""
        ids = graphql(self.plain, _IDS)
        sensor, schedule = ids["sensorOrError"]["sensorState"]["id"], ids["scheduleOrError"]["scheduleState"]["id"]
        return [
            f"mutation {{ stopSensor(id: {json.dumps(sensor)}) {{ __typename }} }}",
            f"mutation {{ stopRunningSchedule(id: {json.dumps(schedule)}) {{ __typename }} }}",
            _LAUNCH,
        ]

    def restore(self) -> None:
        sensor, schedule = f'sensorName: "looks", {_REPOSITORY}', f'scheduleName: "yearly", {_REPOSITORY}'
        graphql(self.plain, f"mutation {{ resetSensor(sensorSelector: {{{sensor}}}) {{ __typename }} }}")
        graphql(self.plain, f"mutation {{ resetSchedule(scheduleSelector: {{{schedule}}}) {{ __typename }} }}")
        for run in self.instance.get_runs():
            self.instance.delete_run(run.run_id)
        self.instance.report_runless_asset_event(dg.AssetMaterialization("table"))

    def state(self) -> dict[str, Any]:
        stopped = [s.name for s in self.instance.all_instigator_state() if s.status.value == "STOPPED"]
        history = self.instance.fetch_materializations(dg.AssetKey("table"), limit=1000).records
        return {"stopped": sorted(stopped), "runs": self.instance.get_runs_count(), "history": len(history)}


@pytest.fixture
def target(servers: Servers, instance: dg.DagsterInstance) -> Iterator[Target]:
    found = Target(instance, servers.plain)
    found.restore()
    yield found
    found.restore()


# ---------------------------------------------------------------- a page elsewhere, in a real browser


@contextmanager
def page_elsewhere(folder: Path, text: str) -> Iterator[int]:
    """Serves a page at some port of loopback, under every name of it."""
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text(text, encoding="utf-8")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def pictures(url: str, target: Target) -> str:
    return "".join(
        f"<img src='{url}/graphql?{urllib.parse.urlencode({'query': mutation})}'>" for mutation in target.mutations()
    )


def forms(url: str, target: Target) -> str:
    """Three forms that send themselves into frames of their own, each in another encoding."""
    kinds = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
    made = [
        f"<iframe name='f{n}'></iframe><form target='f{n}' method=post enctype='{kind}' "
        f"action='{url}/graphql?{urllib.parse.urlencode({'query': mutation})}'><input name=a value=b></form>"
        for n, (kind, mutation) in enumerate(zip(kinds, target.mutations(), strict=True))
    ]
    return "".join(made) + "<script>for (const form of document.forms) form.submit()</script>"


def scripts(url: str, target: Target) -> str:
    """Requests that need no leave: their answers cannot be read, and that matters to nobody."""
    calls = [
        f"fetch({json.dumps(f'{url}/graphql?' + urllib.parse.urlencode({'query': mutation}))}, "
        "{method: 'POST', mode: 'no-cors', body: 'x', credentials: 'include'}).catch(() => 0)"
        for mutation in target.mutations()
    ]
    return f"<script>Promise.all([{', '.join(calls)}])</script>"


@pytest.mark.long
@pytest.mark.parametrize("place", ["127.0.0.1", "localhost"], ids=["another site", "another port of the same site"])
@pytest.mark.parametrize("attack", [pictures, forms, scripts])
@pytest.mark.sample("pictures-another site")
def test_a_page_that_an_engineer_opens_changes_nothing(
    servers: Servers, target: Target, browser: Any, tmp_path: Path, attack: Callable[[str, Target], str], place: str
) -> None:
    clean = target.state()
    for url, worked in ((servers.plain, True), (servers.guarded, False)):
        with page_elsewhere(tmp_path / "page", attack(url, target)) as port:
            page = browser.new_page()
            page.goto(f"http://{place}:{port}/", wait_until="networkidle")
            page.wait_for_timeout(500)
            page.close()
        found = target.state()
        expected = {"stopped": ["looks", "yearly"], "runs": 1, "history": clean["history"]}
        assert found == (expected if worked else clean)
        target.restore()
        clean = target.state()


@pytest.mark.long
def test_no_page_frames_ours_and_links_from_elsewhere_go_through(
    servers: Servers, browser: Any, tmp_path: Path
) -> None:
    for url, is_shown in ((servers.plain, True), (servers.guarded, False)):
        text = f"<iframe src='{url}/overview'></iframe><a href='{url}/overview'>the pipeline</a>"
        with page_elsewhere(tmp_path / "page", text) as port:
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{port}/", wait_until="load")
            page.wait_for_timeout(1000)
            framed = page.frames[1].locator("#root").count() == 1
            assert framed == is_shown
            page.click("a")
            page.wait_for_selector("text=Overview", timeout=30_000)
            page.close()


@pytest.mark.long
def test_dagster_s_own_pages_work_and_listen_and_start_a_run(servers: Servers, target: Target, browser: Any) -> None:
    page, heard, wrong = browser.new_page(), [], []
    page.on("websocket", lambda ws: ws.on("framereceived", lambda frame: heard.append(frame)))
    page.on("response", lambda answer: wrong.append(answer) if answer.status >= 400 else None)
    page.goto(f"{servers.guarded}/locations/code/jobs/work/playground")
    page.click("button:has-text('Launch run')", timeout=60_000)
    page.wait_for_url("**/runs/*", timeout=30_000)
    page.wait_for_selector("text=work", timeout=30_000)
    deadline = time.monotonic() + 30
    # the first thing heard is that somebody listens at all
    while not any("pipelineRunLogs" in str(frame) or "data" in str(frame) for frame in heard):
        assert time.monotonic() < deadline, f"its pages listen to runs: {heard}"
        page.wait_for_timeout(200)
    assert target.state()["runs"] == 1
    assert [answer.url for answer in wrong] == []
    page.close()


# ---------------------------------------------------------------- raw requests


def attacked(url: str, target: Target, kind: str) -> requests.Response:
    """One request that stops the sensor, or writes, as somebody elsewhere would make it."""
    query = target.mutations()[0]
    by_url, as_json = {"query": query}, json.dumps({"query": query})

    def post(
        path: str = "/graphql", body: str | None = None, params: dict[str, str] | None = None, **headers: str
    ) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(url + path, data=body, params=params, headers=named, timeout=30)

    form, json_type = "application/x-www-form-urlencoded", "application/json"
    made: dict[str, Callable[[], requests.Response]] = {
        "GET": lambda: requests.get(f"{url}/graphql", params=by_url, timeout=30),
        "GET that wipes": lambda: requests.get(f"{url}/graphql", params={"query": _WIPE}, timeout=30),
        "form": lambda: post(body="a=b", params=by_url, Content_Type=form),
        "plain text": lambda: post(body="a", params=by_url, Content_Type="text/plain"),
        "multipart": lambda: post(body="--x--", params=by_url, Content_Type="multipart/form-data; boundary=x"),
        "no type": lambda: post(params=by_url),
        "GraphQL as its own type": lambda: post(body=query, Content_Type="application/graphql"),
        "JSON as a parameter of plain text": lambda: post(body=as_json, Content_Type="text/plain; application/json"),
        "a name that leads here": lambda: post(body=as_json, Content_Type=json_type, Host="evil.example"),
        "a name like ours": lambda: post(body=as_json, Content_Type=json_type, Host="localhost.evil.example"),
        "another origin": lambda: post(body=as_json, Content_Type=json_type, Origin="http://evil.example"),
        "another port": lambda: post(body=as_json, Content_Type=json_type, Origin="http://localhost:1"),
        "no origin to name": lambda: post(body=as_json, Content_Type=json_type, Origin="null"),
        "another site": lambda: post(body=as_json, Content_Type=json_type, Sec_Fetch_Site="cross-site"),
        "the same site": lambda: post(body=as_json, Content_Type=json_type, Sec_Fetch_Site="same-site"),
        "a report without a body": lambda: post("/report_asset_materialization/table"),
        "a report from elsewhere": lambda: post(
            "/report_asset_materialization/table", "{}", Content_Type=json_type, Origin="http://evil.example"
        ),
    }
    return made[kind]()


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("GET", 405),
        ("GET that wipes", 405),
        ("form", 415),
        ("plain text", 415),
        ("multipart", 415),
        ("no type", 415),
        ("GraphQL as its own type", 415),
        ("JSON as a parameter of plain text", 415),
        ("a name that leads here", 421),
        ("a name like ours", 421),
        ("another origin", 403),
        ("another port", 403),
        ("no origin to name", 403),
        ("another site", 403),
        ("the same site", 403),
        ("a report without a body", 415),
        ("a report from elsewhere", 403),
    ],
)
@pytest.mark.sample(every=4)
def test_what_dagster_would_do_for_anybody_is_refused(servers: Servers, target: Target, kind: str, status: int) -> None:
    clean = target.state()
    assert attacked(servers.plain, target, kind).status_code == 200
    assert target.state() != clean, "Dagster's own server does it"
    target.restore()
    clean = target.state()
    answer = attacked(servers.guarded, target, kind)
    assert answer.status_code == status, answer.text
    assert target.state() == clean


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:1", "null", None])
def test_a_websocket_from_elsewhere_is_refused_before_it_is_open(servers: Servers, origin: Any) -> None:
    def opened(url: str, said: Any) -> bool:
        with connect(url.replace("http", "ws") + "/graphql", subprotocols=["graphql-ws"], origin=said) as socket:
            socket.send(json.dumps({"type": "connection_init"}))
            return bool(json.loads(socket.recv(10))["type"] == "connection_ack")

    assert opened(servers.plain, origin)
    with pytest.raises(InvalidStatus) as refused:
        opened(servers.guarded, origin)
    assert refused.value.response.status_code == 403
    assert opened(servers.guarded, servers.guarded)


@pytest.mark.parametrize("path", ["/", "/overview", "/server_info", "/health", "/nothing.js", "/graphql"])
def test_every_answer_forbids_frames_and_tells_no_other_site_anything(servers: Servers, path: str) -> None:
    answer = requests.get(servers.guarded + path, timeout=30)
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    asked = requests.options(servers.guarded + path, headers={"Origin": "http://evil.example"}, timeout=30)
    assert asked.status_code in (403, 405)


def test_only_paths_that_are_judged_take_more_than_reading(servers: Servers) -> None:
    """A new route that writes has to be looked at: the guard lets JSON from our own pages through, and nothing else."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster_webserver.app import create_app_from_workspace_process_context
    from starlette.routing import Mount, Route, WebSocketRoute

    with (
        dg.DagsterInstance.from_config(str(servers.home)) as made,
        WorkspaceProcessContext(made, None, version="") as context,
    ):
        routes = create_app_from_workspace_process_context(context).routes
    assert {type(route) for route in routes} == {Route, WebSocketRoute, Mount}
    writing = {r.path for r in routes if isinstance(r, Route) and set(r.methods or ()) - {"GET", "HEAD"}}
    assert writing == {
        "/graphql",
        "/report_asset_materialization/{asset_key:path}",
        "/report_asset_check/{asset_key:path}",
        "/report_asset_observation/{asset_key:path}",
    }
    reading = {r.path for r in routes if isinstance(r, Route) and r.name not in ("root_static",)} - writing
    assert reading == {
        *("/server_info", "/dagit_info", "/logs/{path:path}", "/notebook", "/dagit/notebook"),
        *("/download_debug/{run_id:str}", "/{path:path}", "/"),
    }
    assert {r.path for r in routes if isinstance(r, WebSocketRoute)} == {"/graphql"}


# ---------------------------------------------------------------- judging, without a server


def judged(method: str = "GET", path: str = "/", policy: Policy | None = None, **headers: str) -> int:
    named = {"host": "localhost:3000"} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    kind = "websocket" if method == "WS" else "http"
    refusal = refusal_of(policy or Policy(), {"type": kind, "method": method, "path": path, "headers": raw})
    return refusal.status if refusal else 200


@pytest.mark.parametrize("host", ["localhost:3000", "LOCALHOST:80", "127.0.0.1:3000", "[::1]:3000", "localhost"])
def test_a_name_of_this_machine_is_known(host: str) -> None:
    assert judged(host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "evil.example:3000",
        "localhost:3000@evil.example",
        "127.0.0.1.nip.io",
    ],
)
def test_no_other_name_is(host: str) -> None:
    assert judged(host=host) == 421


def test_a_name_that_is_listed_is_known_and_pages_under_it_may_write() -> None:
    policy = policy_from({"USAGE_DAGSTER_HOSTS": "Pipeline.example.com, other.example.com"})
    told = {"host": "pipeline.example.com", "content_type": "application/json", "policy": policy}
    # a proxy ends TLS: the page's address is https, and what comes here is not
    assert judged("POST", "/graphql", origin="https://pipeline.example.com", **told) == 200
    assert judged("WS", "/graphql", origin="https://pipeline.example.com", host=told["host"], policy=policy) == 200
    assert judged("POST", "/graphql", origin="https://other.example.com", **told) == 403
    assert judged("POST", "/graphql", origin="https://pipeline.example.com:8443", **told) == 403
    assert judged("POST", "/graphql", origin="ftp://pipeline.example.com", **told) == 403


def test_another_site_may_link_and_use_nothing() -> None:
    navigation = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert judged(sec_fetch_dest="document", **navigation) == 200
    assert judged(sec_fetch_dest="iframe", **navigation) == 403
    assert judged(sec_fetch_site="cross-site", sec_fetch_mode="no-cors", sec_fetch_dest="script") == 403
    assert judged(sec_fetch_site="same-site", sec_fetch_mode="cors", sec_fetch_dest="empty") == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post"])
def test_no_other_method_goes_through(method: str) -> None:
    assert judged(method, "/graphql", content_type="application/json") == 405


@pytest.mark.parametrize("path", ["/logs/../../etc/passwd", "/..", "/static/../x"])
def test_no_path_leads_upward(path: str) -> None:
    assert judged(path=path) == 400


# ---------------------------------------------------------------- the log-in


def test_settings_that_are_wrong_are_all_named_at_once() -> None:
    wrong = {
        "USAGE_DAGSTER_HOSTS": "*, https://x.example, ok.example",
        "USAGE_DAGSTER_PASSWORD": "short",
        "USAGE_DAGSTER_USER_HEADER": "X-User",
    }
    with pytest.raises(GuardError) as refused:
        policy_from(wrong)
    for words in ("'*' is no name", "'https://x.example' is no name", "it is short", "anybody could send that header"):
        assert words in str(refused.value)
    with pytest.raises(GuardError, match="nobody is known by name"):
        policy_from({"USAGE_DAGSTER_ADMINS": "ana"})


def test_a_stranger_may_try_fewer_and_fewer_passwords() -> None:
    patience = Patience()
    for _ in range(3):
        assert patience.seconds_to_wait("a", 0) == 0
        patience.failed("a", 0)
    assert patience.seconds_to_wait("a", 0) == 2
    for _ in range(20):
        patience.failed("a", 0)
    assert patience.seconds_to_wait("a", 0) == 60
    assert patience.seconds_to_wait("b", 0) == 0, "others are not kept waiting"
    assert patience.seconds_to_wait("a", 61) == 0
    for number in range(2000):
        patience.failed(str(number), 1)
    assert len(patience._failures) <= 1000


def test_a_session_ends_and_cannot_be_made_up() -> None:
    sessions, cookie = Sessions(), Sessions().begin(0)
    assert not sessions.is_valid(cookie, 1), "of another process"
    cookie = sessions.begin(0)
    assert sessions.is_valid(cookie, 1)
    assert not sessions.is_valid(cookie, 8 * 3600 + 1)
    until, _, signature = cookie.partition(".")
    for made_up in (f"{int(until) + 1}.{signature}", until, "", ".", f"{until}.", f"{until}.é", f"²{cookie}"):
        assert not sessions.is_valid(made_up, 1)


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil.example", "", "javascript:x", "/a\nb"]
)
def test_a_log_in_leads_to_pages_of_ours_only(path: str) -> None:
    assert _own_path(path) == "/"
    assert _own_path("/runs?a=b") == "/runs?a=b"


def test_with_a_password_nothing_is_shown_to_strangers(servers: Servers, target: Target) -> None:
    clean = target.state()
    with ExitStack() as stack:
        url = servers.start(stack, USAGE_DAGSTER_PASSWORD=PASSWORD)
        for path in ("/", "/server_info", "/logs/x", "/favicon.png"):
            assert requests.get(url + path, timeout=30).status_code == 401
        answer = requests.post(f"{url}/graphql", json={"query": _LAUNCH}, timeout=30)
        assert answer.status_code == 401
        with pytest.raises(InvalidStatus):
            connect(url.replace("http", "ws") + "/graphql", subprotocols=["graphql-ws"], origin=url).close()
        assert target.state() == clean
        graphql(url, _LAUNCH, {"Authorization": f"Bearer {PASSWORD}"})
        assert target.state()["runs"] == 1
        for _ in range(3):
            wrong = requests.post(f"{url}/usage/login", data={"password": "no"}, timeout=30)
            assert wrong.status_code in (401, 429)
        right = requests.post(f"{url}/usage/login", data={"password": PASSWORD}, timeout=30)
        assert right.status_code == 429, "it has to wait now"
        assert "Try again in" in right.text


@pytest.mark.long
def test_somebody_logs_in_once_and_pages_and_links_from_elsewhere_work(
    servers: Servers, target: Target, browser: Any, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        url = servers.start(stack, USAGE_DAGSTER_PASSWORD=PASSWORD)
        context = browser.new_context()
        page, heard = context.new_page(), []
        page.on("websocket", lambda ws: ws.on("framereceived", lambda frame: heard.append(frame)))
        page.goto(f"{url}/runs")
        page.fill("input[type=password]", "wrong")
        page.click("button")
        page.wait_for_selector("text=This is not the password.")
        page.fill("input[type=password]", PASSWORD)
        page.click("button")
        page.wait_for_url("**/runs", timeout=30_000)
        page.wait_for_selector("text=Runs", timeout=30_000)
        (cookie,) = context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        graphql(servers.plain, _LAUNCH)
        (run,) = target.instance.get_runs()
        with page_elsewhere(tmp_path / "page", f"<a href='{url}/runs/{run.run_id}'>the run</a>") as port:
            page.goto(f"http://127.0.0.1:{port}/")
            page.click("a")
            page.wait_for_selector("text=work", timeout=30_000)
        assert page.locator("input[type=password]").count() == 0, "who is logged in is not asked again"
        deadline = time.monotonic() + 30
        while not heard and time.monotonic() < deadline:
            page.wait_for_timeout(200)
        assert heard, "the websocket brings the cookie along"
        context.close()


_REFUSED = {"UnauthorizedError", "TerminateRunFailure"}


@pytest.mark.long
def test_who_may_only_look_changes_nothing(servers: Servers, target: Target) -> None:
    with ExitStack() as stack:
        url = servers.start(stack, USAGE_DAGSTER_READ_ONLY="1")
        clean = target.state()
        for mutation in [*target.mutations(), _WIPE]:
            (answer,) = graphql(url, mutation).values()
            assert answer["__typename"] in _REFUSED, answer
        reported = requests.post(f"{url}/report_asset_materialization/table", json={}, timeout=30)
        assert reported.status_code == 401
        assert target.state() == clean
        rights = graphql(url, "{ permissions { permission value } }")["permissions"]
        assert {right["value"] for right in rights} == {False}, "so the pages show no buttons"


@pytest.mark.long
def test_a_proxy_says_who_somebody_is_and_only_the_proxy(servers: Servers, target: Target) -> None:
    proof = "what only the proxy knows"
    with ExitStack() as stack:
        url = servers.start(
            stack,
            USAGE_DAGSTER_USER_HEADER="X-Usage-User",
            USAGE_DAGSTER_PROXY_SECRET=proof,
            USAGE_DAGSTER_ADMINS="ana, ben",
        )

        def launched(**headers: str) -> tuple[int, str]:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = requests.post(f"{url}/graphql", json={"query": _LAUNCH}, headers=named, timeout=30)
            return answer.status_code, answer.text

        for stranger in (
            {},
            {"X_Usage_User": "ana"},
            {"X_Usage_User": "ana", "X_Usage_Proxy_Secret": "a guess"},
            {"X_Usage_Proxy_Secret": proof},
            {"X_Usage_User": "", "X_Usage_Proxy_Secret": proof},
        ):
            assert launched(**stranger)[0] == 401, stranger
        assert "UnauthorizedError" in launched(X_Usage_User="eve", X_Usage_Proxy_Secret=proof)[1]
        assert target.state()["runs"] == 0
        assert "LaunchRunSuccess" in launched(X_Usage_User="ana", X_Usage_Proxy_Secret=proof)[1]
        assert target.state()["runs"] == 1


# ---------------------------------------------------------------- private interfaces


def test_dagster_s_private_interfaces_are_as_the_list_says() -> None:
    dagster_internals.check_internals()


def test_one_that_has_changed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {
        "dagster._core.launcher:NoSuchThing": (),
        "dagster._no_such_module:X": (),
        "dagster._grpc.client:DagsterGrpcClient": ("colour",),
    }
    monkeypatch.setattr(dagster_internals, "INTERFACES", changed)
    with pytest.raises(dagster_internals.InternalsError) as refused:
        dagster_internals.check_internals()
    for words in (
        "launcher:NoSuchThing is missing",
        "_no_such_module:X is missing",
        "DagsterGrpcClient takes no colour",
    ):
        assert words in str(refused.value)


def test_every_private_interface_that_we_import_is_on_the_list() -> None:
    parts = [name.partition(":") for name in dagster_internals.INTERFACES]
    listed = {f"{module}:{path.split('.')[0]}" for module, _, path in parts}
    folders = ("usage_pipeline", "usage_pipeline_tests", "deploy", "benchmarks", "scripts")
    for file in (file for folder in folders for file in (REPO / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            for name in names:
                whole = f"{module}.{name}" if module else name
                if whole.startswith((*_PRIVATE, "dagster_webserver", "dagster_graphql", "dagster_shared")):
                    assert f"{module}:{name}" in listed, f"{file.name}: {whole}"


_PRIVATE = ("dagster._", "dagster.core", "dagster.daemon")


def test_every_private_interface_that_a_dagster_yaml_names_is_on_the_list() -> None:
    """Two modules of `dagster.core`, an old name of `_core`, stood in deploy/dagster/dagster.yaml and on no list."""
    for file in (REPO / "dagster.yaml", REPO / "deploy" / "dagster" / "dagster.yaml"):
        for found in yaml.safe_load(file.read_text(encoding="utf-8")).values():
            if isinstance(found, dict) and str(found.get("module", "")).startswith(_PRIVATE):
                assert f"{found['module']}:{found['class']}" in dagster_internals.INTERFACES, file


def test_every_attribute_of_dagster_s_launcher_that_ours_takes_is_on_the_list() -> None:
    """`_instance`, which the launcher of ours reads five times, stood on no list."""
    text = (REPO / "usage_pipeline" / "operations" / "run_launcher.py").read_text(encoding="utf-8")
    own = {"_heard", "_health_by_its_word"}
    taken = {name for name in re.findall(r"\bself\.(_\w+)", text) if name not in own}
    assert taken == {"_instance"}
    assert "dagster._core.launcher:DefaultRunLauncher._instance" in dagster_internals.INTERFACES


@pytest.mark.parametrize(("is_changed", "goes_on"), [(False, True), (True, False)])
@pytest.mark.sample("True-False")
def test_a_deployment_migrates_nothing_where_dagster_has_changed(
    monkeypatch: pytest.MonkeyPatch, is_changed: bool, goes_on: bool
) -> None:
    """Before, only the web server looked, after Dagster's storage had been migrated."""
    changed = "from usage_pipeline.operations import dagster_internals as d; d.INTERFACES = {'dagster._gone:X': ()}"
    became: list[list[str | Path]] = []
    monkeypatch.setattr(start, "_FITS", (changed if is_changed else "") + start._FITS)
    monkeypatch.setattr(start, "become", lambda words, _: became.append(words))
    monkeypatch.setattr(start, "PIPELINE", Path(sys.executable).parent)
    if goes_on:
        start.dagster_set_up(dict(os.environ))
    else:
        with pytest.raises(start.MissingError, match=r"dagster\._gone:X is missing"):
            start.dagster_set_up(dict(os.environ))
    assert bool(became) == goes_on
