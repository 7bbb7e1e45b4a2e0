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
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psutil

from usage_pipeline.config import CONFIG_VARIABLE, Settings
from usage_pipeline.definitions import build_definitions
from usage_pipeline.defs.publish.assets import store_of
from usage_pipeline.defs.schedules import window_tags
from usage_pipeline.lib.contract import REFERENCE
from usage_pipeline.lib.dashboards import ASSETS
from usage_pipeline.lib.data_home import clean
from usage_pipeline.lib.files import put_whole
from usage_pipeline.lib.lake import Lake, LakeFile
from usage_pipeline.lib.status import write_status
from usage_pipeline.lib.weeks import weeks_between
from usage_pipeline.run_launcher import alive_now, says_that_it_is_alive

REPO = Path(__file__).parents[1]
SUPERSET_PYTHON = REPO / ".venv-superset" / "bin" / "python"
SUPERSET = REPO / "superset"
ACCOUNTS = "accounts.json"
Say = Callable[[str], None]


class LocalError(Exception):
    """Something on this machine stands in the way; the message says what, and the remedy."""


# ---------------------------------------------------------------- refresh


def dagster_home(settings: Settings) -> Path:
    """The data home's Dagster storage, made on first use, with the repository's instance settings.

    A deployment has an instance of its own, which USAGE_DAGSTER_HOME names.
    """
    if deployed := os.environ.get("USAGE_DAGSTER_HOME"):
        return Path(deployed)
    home = settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(REPO / "dagster.yaml", home / "dagster.yaml")
    return home


def input_fingerprint(settings: Settings) -> str:
    """Of everything that a refresh depends on: code, settings, and what the lake holds for the window."""
    digest = hashlib.sha256()
    for file in sorted([*(REPO / "usage_pipeline").rglob("*.py"), *(REPO / "usage_pipeline").rglob("*.sql")]):
        digest.update(file.read_bytes())
    # the moment itself changes all the time where as_of follows the clock; what it means is its day
    digest.update(settings.model_dump_json(exclude={"as_of"}).encode() + settings.as_of_day.isoformat().encode())
    for item in _lake_files(settings):
        digest.update(f"{item.key} {item.etag}\n".encode())
    return digest.hexdigest()


def _lake_files(settings: Settings) -> list[LakeFile]:
    usage, lake = settings.sources.usage, Lake(settings)
    files: list[LakeFile] = []
    if usage.partitioned:
        for week in weeks_between(settings.window_start, settings.running_week):
            files += lake.files_of_week(usage, week)
    whole = [settings.sources.get(contract.name) for contract in REFERENCE]
    for source in [*whole, *([] if usage.partitioned else [usage])]:
        if source is not None:
            for shape in source.file_sets.values():
                files += lake.files(shape.path, shape.format)
    return files


def refresh(settings: Settings, *, only_if_changed: bool, say: Say) -> bool:
    """Runs the whole graph through Dagster, in this process; the run is seen in the UI like any other.

    Returns whether the run succeeded (True as well where nothing changed and nothing was run). The status file is
    written in any case.
    """
    # first of all: what a killed run left may be what fills the disk
    clean(settings, say)
    stamp = settings.home / "inputs"
    fingerprint = input_fingerprint(settings)
    current = store_of(settings).current()
    if only_if_changed and current and stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
        say(f"nothing changed since build {current.build_id}: no run needed")
        if not settings.status_path.exists():
            record_status(settings)
        return True
    os.environ["DAGSTER_HOME"] = str(dagster_home(settings))
    definitions, run_id = build_definitions(settings), str(uuid4())
    with dg.DagsterInstance.get() as instance, says_that_it_is_alive(instance, run_id):
        result = definitions.resolve_job_def("refresh").execute_in_process(
            instance=instance,
            run_id=run_id,
            tags=window_tags(settings) | alive_now(),
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {}}}},
        )
        write_status(settings, instance)
    if result.success:
        with put_whole(stamp) as unfinished:
            unfinished.write_text(fingerprint, encoding="utf-8")
    return result.success


def record_status(settings: Settings) -> None:
    """Writes the status file outside a run: after a rollback, or where there is none yet."""
    os.environ["DAGSTER_HOME"] = str(dagster_home(settings))
    with dg.DagsterInstance.get() as instance:
        write_status(settings, instance)


# ---------------------------------------------------------------- processes


@dataclass(frozen=True)
class Service:
    """A server of ours: its command, where it answers, where its log goes."""

    name: str
    command: list[str]
    port: int
    health: str
    environment: dict[str, str]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3) as response:  # noqa: S310 - an address of our own
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def answers(service: Service) -> bool:
    """Whether a server says that it is well."""
    return _answers(service.address + service.health)


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
    return int(json.loads(file.read_text(encoding="utf-8"))["port"]) if file.exists() else None


def check_port(service: Service, variable: str) -> None:
    """Raises LocalError where the port is taken by somebody else."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", service.port))
        except OSError as error:
            raise LocalError(
                f"port {service.port}, wanted for {service.name}, is in use: end what uses it, "
                f"or choose another, for example {variable}={service.port + 1} before the command"
            ) from error


def start(services_by_variable: dict[str, Service], folder: Path, say: Say, seconds: float = 120) -> None:
    """Starts servers side by side, those that do not run yet, and waits until each answers.

    The keys name the variable that chooses the port. Raises LocalError with the end of the log of one that fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    launched = []
    for variable, service in services_by_variable.items():
        if running(folder, service.name):
            say(f"{service.name} runs already")
        else:
            check_port(service, variable)
            launched.append((service, _launch(service, folder)))
    for service, process in launched:
        if not _wait_until_it_answers(service, process, seconds):
            log = folder / f"{service.name}.log"
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            stop(folder, service.name, say)
            raise LocalError(f"{service.name} did not start within {seconds:.0f} s; the end of {log}:\n{tail}")
        say(f"{service.name} answers at {service.address}")


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
        if _answers(service.address + service.health):
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


def superset_environment(settings: Settings, folder: Path) -> dict[str, str]:
    """What Superset's processes need to know; secrets are made once per installation, readable by their owner only."""
    home = folder / "superset"
    home.mkdir(parents=True, exist_ok=True)
    return {
        "SUPERSET_CONFIG_PATH": str(SUPERSET / "superset_config.py"),
        "SUPERSET_HOME": str(home),
        "SUPERSET_SECRET_KEY": _secret(folder / "secret_key", lambda: secrets.token_urlsafe(48)),
        "USAGE_PUBLISHED": str(settings.published_dir),
        "USAGE_STATUS": str(settings.status_path.parent.parent),
        # only a demo has accounts of its own; people of a real installation are added one by one
        "USAGE_ACCOUNTS": str(folder / ACCOUNTS) if (folder / ACCOUNTS).exists() else "",
        "PYTHONPATH": "",
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


def manage_people(settings: Settings, folder: Path, arguments: list[str], password: str, say: Say) -> None:
    """Adds, lists or shuts out accounts of Superset. Raises LocalError with what Superset's environment says."""
    if not SUPERSET_PYTHON.exists():
        raise LocalError(f"{SUPERSET_PYTHON} is missing: run `make setup`")
    done = subprocess.run(
        [str(SUPERSET_PYTHON), "-W", "ignore", str(SUPERSET / "people.py"), *arguments],
        # on its input, since arguments and environments can be read by others on the machine
        input=password + "\n",
        env=os.environ | superset_environment(settings, folder),
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


def set_up_superset(settings: Settings, folder: Path, *, only_if_changed: bool, say: Say) -> None:
    """Migrates, imports, prunes, sets roles and runs every chart once. Raises LocalError where that fails."""
    if not SUPERSET_PYTHON.exists():
        raise LocalError(f"{SUPERSET_PYTHON} is missing: run `make setup`")
    stamp = folder / "superset" / "set_up"
    own = [*SUPERSET.glob("*.py"), SUPERSET / "roles.yaml", SUPERSET / "requirements.lock"]
    fingerprint = _tree_fingerprint([*ASSETS.rglob("*.yaml"), *own])
    if only_if_changed and stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
        say("dashboards are as in the repository: no set-up needed")
        return
    log = folder / "superset-set-up.log"
    environment = os.environ | superset_environment(settings, folder)
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [str(SUPERSET_PYTHON), "-u", str(SUPERSET / "set_up.py")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        assert process.stdout is not None  # noqa: S101 - just asked for
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


def services(settings: Settings, config: Path, folder: Path) -> dict[str, Service]:
    """The two servers of a local installation, by the variable that chooses the port of each."""
    bin_dir = Path(sys.executable).parent
    # a server that runs keeps its port; otherwise the environment says, else that of a server that died, else the usual

    def port(name: str, variable: str, usual: int) -> int:
        known = port_of(folder, name)
        return known if known and running(folder, name) else int(os.environ.get(variable) or known or usual)

    dagster_port, superset_port = port("dagster", "DAGSTER_PORT", 3000), port("superset", "SUPERSET_PORT", 8088)
    return {
        "DAGSTER_PORT": Service(
            "dagster",
            [
                *(str(bin_dir / "dagster"), "dev", "-w", str(REPO / "workspace.yaml")),
                *("-h", "127.0.0.1", "-p", str(dagster_port)),
            ],
            dagster_port,
            "/server_info",
            {"DAGSTER_HOME": str(dagster_home(settings)), CONFIG_VARIABLE: str(config)},
        ),
        "SUPERSET_PORT": Service(
            "superset",
            [
                str(SUPERSET_PYTHON.with_name("gunicorn")),
                # one thread a worker: DuckDB through Superset has known trouble with threads
                *("--workers", "2", "--threads", "1", "--timeout", "120", "--no-control-socket"),
                *("--config", str(SUPERSET / "gunicorn_config.py")),
                *("--bind", f"127.0.0.1:{superset_port}", "superset.app:create_app()"),
            ],
            superset_port,
            "/health",
            superset_environment(settings, folder),
        ),
    }
