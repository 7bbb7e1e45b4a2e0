"""The whole product on one machine: a refresh from the command line, the servers, and the demo that shows them.

Belongs here: processes, ports, passwords and stamps of a local installation. Does not: anything that computes.
A second start of what runs already does nothing; a stop ends the processes that were started here, by their own
ids, and no others.
"""

import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psutil
import yaml

from usage_pipeline.config.clock import Clock
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import CONFIG_VARIABLE, Settings, Sources, StoreSettings
from usage_pipeline.config.source_schemas import REFERENCE
from usage_pipeline.core.files import atomic_write, make_folder
from usage_pipeline.core.formatting import currency, date_format
from usage_pipeline.core.texts import TEXTS, language
from usage_pipeline.core.weeks import weeks_between
from usage_pipeline.definitions import build_definitions
from usage_pipeline.defs.schedules import window_tags
from usage_pipeline.ingestion.lake import Lake, LakeError
from usage_pipeline.observability.status import write_status
from usage_pipeline.operations.dagster_guard import HEALTH
from usage_pipeline.operations.data_home import clean
from usage_pipeline.operations.metrics import MetricsError, write_metrics
from usage_pipeline.operations.rekey import key_problems
from usage_pipeline.operations.run_launcher import has_heartbeat, heartbeat, this_process
from usage_pipeline.outcomes.answers import moved_down
from usage_pipeline.outcomes.database import OtherVersionError, renew_outcomes
from usage_pipeline.outcomes.records import read_records
from usage_pipeline.pages.dashboards import ASSETS
from usage_pipeline.publishing.builds import store_of
from usage_pipeline.resources import warehouse_of

REPO = Path(__file__).parents[2]
SUPERSET_PYTHON = REPO / ".venv-superset" / "bin" / "python"
SUPERSET = REPO / "superset"
ACCOUNTS = "accounts.json"
# as sensors, schedules and links to Dagster's pages know it
LOCATION = "usage_pipeline"
Say = Callable[[str], None]


class LocalError(Exception):
    """Something on this machine stands in the way; the message says what, and the remedy."""


# ---------------------------------------------------------------- refresh


def dagster_home(home: Path) -> Path:
    """The data home's Dagster storage, made on first use, with the repository's instance settings.

    A deployment has an instance of its own, which USAGE_DAGSTER_HOME names.
    """
    if deployed := os.environ.get("USAGE_DAGSTER_HOME"):
        return Path(deployed)
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(REPO / "dagster.yaml", folder / "dagster.yaml")
    return folder


def input_fingerprint(settings: Settings) -> str:
    """Of everything that a refresh depends on: code, settings, what the lake holds for the window, and of what people
    recorded the kinds of reasons that move down. The rest of an outcome is on the pages without a refresh.
    """
    digest = hashlib.sha256()
    for file in sorted((REPO / "usage_pipeline").rglob("*")):
        if file.suffix in (".py", ".sql", ".yaml"):
            digest.update(file.read_bytes())
    # the moment itself changes all the time where as_of follows the clock; what it means is its day
    digest.update(settings.model_dump_json(exclude={"as_of"}).encode() + settings.clock.as_of_day.isoformat().encode())
    digest.update(f"{language()} {date_format()} {currency()}".encode())
    records = read_records(settings.home.feedback_dir, settings.home.history_dir)
    digest.update(f"{moved_down(records, settings.clock.as_of_day, settings.outcomes)}".encode())
    for line in _lake_state(settings.clock, settings.store, settings.sources):
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _lake_state(clock: Clock, store: StoreSettings, sources: Sources) -> Iterator[str]:
    """Every file that a refresh would read, or why it cannot be listed: that is for the run to report."""
    usage, lake = sources.usage, Lake(store, retries=False)
    if usage.partitioned:
        for week in weeks_between(clock.window_start, clock.running_week):
            try:
                yield from (f"{file.key} {file.etag}" for file in lake.files_of_week(usage, week).files)
            except LakeError as error:
                yield str(error)
                break
    whole = [sources.get(schema.name) for schema in REFERENCE]
    for source in [*whole, *([] if usage.partitioned else [usage])]:
        for shape in source.file_sets.values() if source else []:
            try:
                yield from (f"{file.key} {file.etag}" for file in lake.files(shape.path, shape.format).files)
            except LakeError as error:
                yield str(error)


def forget_inputs(home: Path) -> None:
    """Has the next refresh run even where the lake has not changed."""
    _stamp(home).unlink(missing_ok=True)


def _stamp(home: Path) -> Path:
    """Holds what the last good run depended on."""
    return home / "inputs"


def refresh(settings: Settings, *, only_if_changed: bool, full: bool = False, say: Say) -> bool:
    """Runs the whole graph through Dagster, in this process; the run is seen in the UI like any other.

    `full` removes the warehouse first, so that every table is made from nothing.

    Returns whether the run succeeded (True as well where nothing changed and nothing was run). The status file is
    written in any case. Raises LocalError where contacts cannot be opened with the key that is set.
    """
    if problems := key_problems(settings.home):
        raise LocalError("\n".join(problems))
    # first of all: what a killed run left may be what fills the disk
    clean(settings.home, say)
    stamp = _stamp(settings.home.root)
    fingerprint = input_fingerprint(settings)
    current = store_of(settings.home, settings.publish).current()
    if only_if_changed and current and stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
        say(f"nothing changed since build {current.build_id}: no run needed")
        if not (settings.home.status_path.exists() and settings.home.outcomes_path.exists()):
            try:
                record_status(settings, say)
            except OtherVersionError as error:
                say(str(error))
        return True
    if full:
        with warehouse_of(settings.home, settings.ingest.wait_seconds).locked():
            settings.home.warehouse_path.unlink(missing_ok=True)
        say("every table is made from nothing")
    os.environ["DAGSTER_HOME"] = str(dagster_home(settings.home.root))
    definitions, run_id = build_definitions(settings), str(uuid4())
    with dg.DagsterInstance.get() as instance, heartbeat(instance, run_id):
        result = definitions.resolve_job_def("refresh").execute_in_process(
            instance=instance,
            run_id=run_id,
            tags=window_tags(settings.clock) | has_heartbeat() | this_process(),
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {}}}},
        )
        write_status(settings.home, settings.clock, settings.sources, instance)
    _write_metrics(settings, say)
    if result.success:
        with atomic_write(stamp) as tmp_path:
            tmp_path.write_text(fingerprint, encoding="utf-8")
    return result.success


def record_status(settings: Settings, say: Say) -> None:
    """Writes the status file, metrics and the file of outcomes outside a run: after a rollback, or where there is none.

    Raises LockTimeoutError and OtherVersionError as `renew_outcomes` does.
    """
    os.environ["DAGSTER_HOME"] = str(dagster_home(settings.home.root))
    with dg.DagsterInstance.get() as instance:
        write_status(settings.home, settings.clock, settings.sources, instance)
    _write_metrics(settings, say)
    renew_outcomes(settings.home, settings.clock, settings.outcomes)


def _write_metrics(settings: Settings, say: Say) -> None:
    """A run is no worse for metrics that could not be written."""
    try:
        write_metrics(settings)
    except MetricsError as error:
        say(str(error))


# ---------------------------------------------------------------- processes


@dataclass(frozen=True)
class Service:
    """A server of ours: its command, how to ask whether it is well, and where it is reached."""

    name: str
    command: list[str]
    environment: dict[str, str]
    answers: Callable[[], bool]
    # as people read it; empty where nobody connects
    address: str = ""
    port: int | None = None
    # names the environment variable that chooses the port
    variable: str = ""
    # the server that has to answer before this one starts
    after: str = ""

    @property
    def place(self) -> str:
        return f" at {self.address}" if self.address else ""


def web_server(
    name: str,
    command: list[str],
    port: int,
    *,
    health: str,
    variable: str,
    environment: dict[str, str] | None = None,
    after: str = "",
) -> Service:
    """A server that says at the path `health` of its port whether it is well."""
    address = f"http://127.0.0.1:{port}"
    return Service(
        name,
        command,
        environment or {},
        lambda: _answers(address + health),
        address=address,
        port=port,
        variable=variable,
        after=after,
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3) as response:  # noqa: S310 - an address of our own
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def running(folder: Path, name: str) -> psutil.Process | None:
    """The process that was started here under this name, if it still runs."""
    file = folder / f"{name}.json"
    if not file.exists():
        return None
    known = json.loads(file.read_text(encoding="utf-8"))
    try:
        process = psutil.Process(known["pid"])
        # a process id is used again after a while: the time of its start tells whether it is still ours
        same = abs(process.create_time() - known["started"]) < 2
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def port_of(folder: Path, name: str) -> int | None:
    file = folder / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))["port"] if file.exists() else None


def check_port(service: Service) -> None:
    """Raises LocalError where the port is taken by somebody else."""
    if service.port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", service.port))
        except OSError as error:
            raise LocalError(
                f"port {service.port}, wanted for {service.name}, is in use: end what uses it, "
                f"or choose another, for example {service.variable}={service.port + 1} before the command"
            ) from error


def start(services: Iterable[Service], folder: Path, say: Say, seconds: float = 120) -> None:
    """Starts servers, those that do not run yet, side by side as far as none has to wait for another.

    Returns when each answers. Raises LocalError with the end of the log of one that does not within `seconds`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    on_their_way: dict[str, tuple[Service, subprocess.Popen[bytes]]] = {}

    def settle(name: str) -> None:
        if name in on_their_way:
            _settle(*on_their_way.pop(name), folder, say, seconds)

    for service in services:
        if running(folder, service.name):
            say(f"{service.name} runs already")
            continue
        settle(service.after)
        check_port(service)
        on_their_way[service.name] = (service, _launch(service, folder))
    for name in list(on_their_way):
        settle(name)


def _settle(service: Service, process: subprocess.Popen[bytes], folder: Path, say: Say, seconds: float) -> None:
    if not _wait_until_it_answers(service, process, seconds):
        log = folder / f"{service.name}.log"
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        stop(folder, service.name, say)
        raise LocalError(f"{service.name} did not start within {seconds:.0f} s; the end of {log}:\n{tail}")
    say(f"{service.name} answers{service.place}")


def _launch(service: Service, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / f"{service.name}.log").open("ab") as output:
        process = subprocess.Popen(
            service.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=REPO,
            env=os.environ | service.environment,
        )
    known = {"pid": process.pid, "started": psutil.Process(process.pid).create_time(), "port": service.port}
    (folder / f"{service.name}.json").write_text(json.dumps(known), encoding="utf-8")
    return process


def _wait_until_it_answers(service: Service, process: subprocess.Popen[bytes], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if service.answers():
            return True
        time.sleep(0.5)
    return False


def _left_behind(folder: Path, name: str) -> list[psutil.Process]:
    """What a server that died has left running: it was the first of a session of its own, in the repository's folder.

    Its number may be somebody else's by now, after a restart of the machine above all: their session is left alone.
    """
    file = folder / f"{name}.json"
    if not file.exists():
        return []
    known = json.loads(file.read_text(encoding="utf-8"))
    if known["started"] < psutil.boot_time() or _is_taken(known["pid"]):
        return []
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == known["pid"] and process.cwd() == str(REPO):
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def _is_taken(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def stop(folder: Path, name: str, say: Say) -> None:
    """Ends a server that was started here, with its children, and nothing else."""
    process = running(folder, name)
    family = [process, *process.children(recursive=True)] if process is not None else _left_behind(folder, name)
    if family:
        for member in family:
            _signal(member, signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=20)
        for member in alive:
            _signal(member, signal.SIGKILL)
        # its port is free when it is gone, and not before
        psutil.wait_procs(alive, timeout=20)
        say(f"{name} stopped")
    (folder / f"{name}.json").unlink(missing_ok=True)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


# ---------------------------------------------------------------- superset


def superset_environment(home: DataHome, folder: Path) -> dict[str, str]:
    """What Superset's processes need to know; secrets are made once per installation, readable by their owner only."""
    superset_home = folder / "superset"
    superset_home.mkdir(parents=True, exist_ok=True)
    make_folder(home.feedback_dir)
    return {
        "SUPERSET_CONFIG_PATH": str(SUPERSET / "superset_config.py"),
        "SUPERSET_HOME": str(superset_home),
        "SUPERSET_SECRET_KEY": _secret(folder / "secret_key", lambda: secrets.token_urlsafe(48)),
        "USAGE_PUBLISHED": str(home.published_dir),
        "USAGE_STATUS": str(home.status_path.parent.parent),
        "USAGE_OUTCOMES": str(home.outcomes_path.parent.parent),
        "USAGE_FEEDBACK": str(home.feedback_dir),
        # only a demo has accounts of its own; people of a real installation are added one by one
        "USAGE_ACCOUNTS": str(folder / ACCOUNTS) if (folder / ACCOUNTS).exists() else "",
        "PYTHONPATH": str(SUPERSET),
    }


def demo_accounts(folder: Path) -> list[dict[str, str]]:
    """The demo's accounts, each with a password made up here and now, unless they exist."""
    roles = {
        "admin": "Admin",
        "manager": "Usage viewer with contacts",
        "viewer": "Usage viewer",
        "analyst": "Usage analyst",
    }

    def made() -> str:
        made_up = [{"username": u, "password": secrets.token_urlsafe(9), "role": r} for u, r in roles.items()]
        return json.dumps(made_up, indent=1)

    found: list[dict[str, str]] = json.loads(_secret(folder / ACCOUNTS, made))
    return found


def superset_command(module: str, *arguments: str) -> list[str]:
    """The command of a module of `superset/usage_superset`; it finds the package by `superset_environment`."""
    # -P: nothing of the folder that one happens to be in
    return [str(SUPERSET_PYTHON), "-u", "-P", "-m", f"usage_superset.{module}", *arguments]


def run_in_superset(
    home: DataHome, folder: Path, module: str, arguments: list[str], say: Say, *, given: str = ""
) -> None:
    """Runs a module of ours in Superset's environment. Raises LocalError with what it complains about."""
    if not SUPERSET_PYTHON.exists():
        raise LocalError(f"{SUPERSET_PYTHON} is missing: run `make setup`")
    done = subprocess.run(
        superset_command(module, *arguments),
        # a password goes to its input, since arguments and environments can be read by others on the machine
        input=given + "\n",
        env=os.environ | superset_environment(home, folder) | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.lstrip().startswith("superset: "):
            say(line.strip().removeprefix("superset: "))
    if done.returncode != 0:
        complaints = [line for line in done.stderr.splitlines() if line.startswith("superset: ")]
        raise LocalError("\n".join(complaints or done.stderr.splitlines()[-12:]).replace("superset: ", ""))


def _secret(file: Path, make: Callable[[], str]) -> str:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            output.write(make())
    return file.read_text(encoding="utf-8")


def set_up_superset(home: DataHome, folder: Path, *, only_if_changed: bool, say: Say) -> None:
    """Migrates, imports, prunes, sets roles and runs every chart once. Raises LocalError where that fails."""
    if not SUPERSET_PYTHON.exists():
        raise LocalError(f"{SUPERSET_PYTHON} is missing: run `make setup`")
    stamp = folder / "superset" / "set_up"
    own = [*SUPERSET.rglob("*.py"), SUPERSET / "roles.yaml", SUPERSET / "requirements.lock"]
    own += [Path(further) for further in [os.environ.get("USAGE_ROLES")] if further and Path(further).is_file()]
    # language and the form of days go into the charts
    fingerprint = (
        f"{_tree_fingerprint([*ASSETS.rglob('*.yaml'), *TEXTS.glob('*.yaml'), *own])} {language()} {date_format()}"
    )
    if only_if_changed and stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
        say("dashboards are as in the repository: no set-up needed")
        return
    log = folder / "superset-set-up.log"
    environment = os.environ | superset_environment(home, folder)
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            superset_command("bootstrap"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        for line in process.stdout:
            output.write(line)
            if line.lstrip().startswith("superset: "):
                say(line.strip().removeprefix("superset: "))
    if process.wait() != 0:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-12:])
        raise LocalError(f"setting up Superset failed; the end of {log}:\n{tail}")
    stamp.write_text(fingerprint, encoding="utf-8")


def _tree_fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file).encode() + file.read_bytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- which servers there are

CODE, DAEMON, WEBSERVER, SUPERSET_SERVER = "dagster-code", "dagster-daemon", "dagster-webserver", "superset"
# what asks for runs is stopped before what runs them
SERVERS = (SUPERSET_SERVER, WEBSERVER, DAEMON, CODE)
# a daemon that evaluates a slow sensor is silent meanwhile
_DAEMON_SECONDS = 600
# of the path of a socket; the system allows 107
_SOCKET_LENGTH = 100


def services(home: DataHome, config: Path, folder: Path) -> dict[str, Service]:
    """The servers of a local installation by name, in the order of their start."""
    dagster_port = _port(folder, WEBSERVER, "DAGSTER_PORT", 3000)
    of_dagster = {"DAGSTER_HOME": str(dagster_home(home.root))}
    workspace = _workspace(folder)
    found = [
        Service(
            CODE,
            # `dagster code-server` forgets its runs when definitions are loaded anew
            [_command("dagster"), "api", "grpc", "--socket", str(_socket(folder)), "-m", "usage_pipeline.definitions"],
            of_dagster | {CONFIG_VARIABLE: str(config)},
            lambda: _code_answers(_socket(folder)),
            address=f"unix:{_socket(folder)}",
        ),
        _superset_server(home, folder),
        Service(
            DAEMON,
            [_command("dagster-daemon"), "run", "-w", str(workspace)],
            of_dagster,
            lambda: _daemon_answers(home.root, folder),
            after=CODE,
        ),
        web_server(
            WEBSERVER,
            [
                *(_command("usage-pipeline"), "webserver", "--workspace", str(workspace)),
                *("--host", "127.0.0.1", "--port", str(dagster_port)),
            ],
            dagster_port,
            health=HEALTH,
            variable="DAGSTER_PORT",
            environment=of_dagster,
            after=CODE,
        ),
    ]
    return {service.name: service for service in found}


def _superset_server(home: DataHome, folder: Path) -> Service:
    port = _port(folder, SUPERSET_SERVER, "SUPERSET_PORT", 8088)
    return web_server(
        SUPERSET_SERVER,
        superset_command("serve", "--bind", f"127.0.0.1:{port}", "--workers", "2"),
        port,
        health="/health",
        variable="SUPERSET_PORT",
        environment=superset_environment(home, folder),
    )


def _command(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _port(folder: Path, name: str, variable: str, usual: int) -> int:
    """A server that runs keeps its port; else the environment says, else that of one that died, else the usual."""
    known = port_of(folder, name)
    return known if known and running(folder, name) else int(os.environ.get(variable) or known or usual)


def _socket(folder: Path) -> Path:
    """Where the code server listens: who can connect there runs code as us, so the folder is closed to others."""
    place = folder.absolute() / "code"
    if len(str(place / "grpc.sock")) > _SOCKET_LENGTH:
        digest = hashlib.sha256(str(place).encode()).hexdigest()[:12]
        place = Path(tempfile.gettempdir()) / f"usage-pipeline-{os.getuid()}-{digest}"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = place.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o077 or place.is_symlink():
        raise LocalError(f"{place} can be entered by others: remove it, it is made anew")
    return place / "grpc.sock"


def _workspace(folder: Path) -> Path:
    """The file that tells webserver and daemon where the code server is."""
    server = {"socket": str(_socket(folder)), "location_name": LOCATION}
    file = folder / "workspace.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
    return file


def _code_answers(socket_file: Path) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    question = health_pb2.HealthCheckRequest(service="DagsterApi")
    with grpc.insecure_channel(f"unix:{socket_file}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(question, timeout=3)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _daemon_answers(home: Path, folder: Path) -> bool:
    """Whether each of its parts was heard of lately; what another process said before it does not count."""
    process = running(folder, DAEMON)
    if process is None:
        return False
    with dg.DagsterInstance.from_config(str(dagster_home(home))) as instance:
        heard = instance.get_daemon_heartbeats()
        parts = instance.get_required_daemon_types()
    since = max(process.create_time(), time.time() - _DAEMON_SECONDS)
    return all(part in heard and heard[part].timestamp >= since for part in parts)
