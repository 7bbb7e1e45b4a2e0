#!/usr/bin/env python3
"""What every container of ours runs first: `usage ROLE`, or `usage` with any command of the pipeline.

Takes secrets from the environment, or from the file that NAME_FILE names; refuses to go on without what the role needs,
and says all that is missing by name; makes addresses of their parts; then becomes the one process of its role. Nothing
here computes or knows a default secret. Standard library only: it serves both images.
"""

import getpass
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

APP = Path("/app")
PIPELINE = APP / "pipeline" / "bin"
SUPERSET = APP / "superset-env" / "bin"
CONFIG = "USAGE_PIPELINE_CONFIG"
DEMO = Path("/data/demo")
_LOOK_SECONDS = 5
_SAY_EVERY = 12
# it writes down what it has done every three minutes
_BEAT_SECONDS = 600

# an address, what it is made of, and the secret in it; one that is given whole wins, for services run by others
_DAGSTER = ("DAGSTER_POSTGRES_URL", "postgresql+psycopg2://dagster:{}@postgres:5432/dagster", "DAGSTER_DB_PASSWORD")
_METADATA = (
    "SUPERSET_METADATA_URI",
    "postgresql+psycopg2://superset:{}@postgres:5432/superset",
    "SUPERSET_DB_PASSWORD",
)
_CACHE = ("USAGE_CACHE_URL", "redis://:{}@redis:6379/0", "REDIS_PASSWORD")
_LIMITS = ("USAGE_RATELIMIT_STORAGE", "redis://:{}@redis:6379/1", "REDIS_PASSWORD")
_LOG_INS = ("USAGE_LOG_IN_STORE", "redis://:{}@redis:6379/3", "REDIS_PASSWORD")
_CELERY = ("USAGE_CELERY_URL", "redis://:{}@redis:6379/2", "REDIS_PASSWORD")
_OF_PIPELINE = (_DAGSTER,)
_OF_SUPERSET = (_METADATA, _CACHE, _LIMITS, _LOG_INS)


class MissingError(Exception):
    """Something that a role needs is not there; the message names it."""


def say(message: str) -> None:
    print(f"usage: {message}", flush=True)


def read_files(environment: dict[str, str]) -> None:
    """For each NAME_FILE that names a file, sets NAME to what it holds. Raises MissingError where it cannot be read."""
    for name in [name for name in environment if name.endswith("_FILE") and environment[name]]:
        target = name.removesuffix("_FILE")
        if not target.endswith(("PASSWORD", "KEY", "URL", "URI", "SECRET", "TOKEN")):
            continue
        if environment.get(target):
            raise MissingError(f"{target} and {name} are both set: keep one of them")
        try:
            environment[target] = Path(environment[name]).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise MissingError(f"{name} names {environment[name]}, which cannot be read: {error.strerror}") from error


def make_addresses(environment: dict[str, str], addresses: tuple[tuple[str, str, str], ...]) -> None:
    """Sets each address from the secret in it. Raises MissingError with every secret that is not there."""
    missing = {secret for name, _, secret in addresses if not environment.get(name) and not environment.get(secret)}
    if missing:
        raise MissingError(
            "; ".join(
                f"{name} is not set: give it a value in .env, or name its file in {name}_FILE"
                for name in sorted(missing)
            )
        )
    for name, form, secret in addresses:
        if not environment.get(name):
            environment[name] = form.format(quote(environment[secret], safe=""))


def become(command: list[str | Path], environment: Mapping[str, str]) -> None:
    words = [str(word) for word in command]
    os.execvpe(words[0], words, dict(environment))  # noqa: S606 - a process of ours, in place of this one


# ---------------------------------------------------------------- the pipeline's roles


def configuration(environment: dict[str, str]) -> Path:
    """The configuration that is there: the one that is named, or that of the demo where there is none."""
    named, demo = Path(environment.get(CONFIG, "/config/sources.yaml")), DEMO / "sources.yaml"
    if named.exists() and demo.exists():
        raise MissingError(
            f"these volumes hold the demo, and {named} describes other data, which must not mix: "
            "remove the demo (docker compose --profile demo down --volumes), or take that file away"
        )
    return demo if demo.exists() else named


def wait_for_configuration(environment: dict[str, str]) -> None:
    """Returns when there is a sound configuration, and says meanwhile what is missing or wrong, and how to mend it."""
    said, looks = "", 0
    while True:
        problem = _problem_of(configuration(environment), environment)
        if not problem:
            return
        if problem != said or looks % _SAY_EVERY == 0:
            say(problem)
        said, looks = problem, looks + 1
        time.sleep(_LOOK_SECONDS)


# where else the home lay, all would be lost with the container
_LOOK = """
import sys
from usage_pipeline.cli import settings_of
home = settings_of(None).home.root
sys.exit(0 if str(home) == "/data" else f"home: {home} is no volume; in a container write `home: /data`")
"""


def _problem_of(config: Path, environment: dict[str, str]) -> str:
    if not config.exists():
        where = f"put it into the folder that is mounted as {config.parent}"
        return f"waiting for {config.name}: {where} (examples/company.yaml is one to copy)"
    if not os.access(config, os.R_OK):
        # what was made with a strict umask belongs to root alone
        return f"waiting for {config} to be readable by user {os.getuid()}: chmod a+r it, or give it to that user"
    environment[CONFIG] = str(config)
    looked = subprocess.run(
        [PIPELINE / "python", "-c", _LOOK],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"waiting for {config} to be mended: {looked.stderr.strip()}" if looked.returncode else ""


def code(environment: dict[str, str]) -> None:
    wait_for_configuration(environment)
    say(f"serving {environment[CONFIG]}")
    become(
        [PIPELINE / "dagster", "api", "grpc", "-h", "0.0.0.0", "-p", "4000", "-m", "usage_pipeline.definitions"],  # noqa: S104
        environment,
    )


def webserver(environment: dict[str, str]) -> None:
    workspace = APP / "deploy" / "workspace.yaml"
    # behind our guard; inside the container it listens for all, and compose publishes it on loopback
    listen = ["--host", "0.0.0.0", "--port", "3000"]  # noqa: S104
    become([PIPELINE / "usage-pipeline", "webserver", "--workspace", workspace, *listen], environment)


def api(environment: dict[str, str]) -> None:
    # compose publishes it on loopback, where a proxy ends TLS
    listen = ["--host", "0.0.0.0", "--port", "8090", "--behind-https"]  # noqa: S104
    pace = ["--per-minute", environment.get("USAGE_API_PER_MINUTE") or "600"]
    become([PIPELINE / "usage-pipeline", "api", "--home", "/data", *listen, *pace], environment)


def daemon(environment: dict[str, str]) -> None:
    become([PIPELINE / "dagster-daemon", "run", "-w", APP / "deploy" / "workspace.yaml"], environment)


# before anything is migrated: an upgrade of Dagster that we do not fit stops here
_FITS = """
import sys
from usage_pipeline.operations.dagster_internals import InternalsError, check_internals
try:
    check_internals()
except InternalsError as error:
    sys.exit(str(error))
"""


def dagster_set_up(environment: dict[str, str]) -> None:
    looked = subprocess.run(
        [PIPELINE / "python", "-W", "ignore", "-c", _FITS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if looked.returncode:
        raise MissingError(looked.stderr.strip())
    become([PIPELINE / "dagster", "instance", "migrate"], environment)


def demo(environment: dict[str, str]) -> None:
    become([PIPELINE / "python", APP / "deploy" / "demo.py"], environment)


# ---------------------------------------------------------------- Superset's roles


def superset_command(module: str, *arguments: str) -> list[str | Path]:
    """The command of a module of `superset/usage_superset`, with nothing of the current folder in its way."""
    return [SUPERSET / "python", "-u", "-W", "ignore", "-P", "-m", f"usage_superset.{module}", *arguments]


def superset_set_up(environment: dict[str, str]) -> None:
    become(superset_command("bootstrap"), environment)


def superset(environment: dict[str, str]) -> None:
    workers = environment.get("USAGE_WEB_WORKERS") or "2"
    become(
        [
            *(SUPERSET / "python", "-u", "-P", "-m", "usage_superset.serve", "--workers", workers),
            *("--bind", "0.0.0.0:8088", "--worker-tmp-dir", "/tmp"),  # noqa: S108
        ],
        environment,
    )


def code_is_alive(environment: dict[str, str]) -> None:
    # Dagster's own command for it imports all of Dagster, each time
    asked = (
        "import grpc; from grpc_health.v1 import health_pb2, health_pb2_grpc;"
        "stub = health_pb2_grpc.HealthStub(grpc.insecure_channel('127.0.0.1:4000'));"
        "status = stub.Check(health_pb2.HealthCheckRequest(service='DagsterApi'), timeout=10).status;"
        "raise SystemExit(0 if status == health_pb2.HealthCheckResponse.SERVING else 'not serving')"
    )
    become([PIPELINE / "python", "-c", asked], environment)


def daemon_is_alive(environment: dict[str, str]) -> None:
    become([PIPELINE / "dagster-daemon", "liveness-check"], environment)


_CELERY_APP = "--app=superset.tasks.celery_app:app"


def sends_reports(environment: Mapping[str, str]) -> bool:
    """Whether a mail server is named, and nobody has silenced it; else nothing is put into the queue."""
    return bool(environment.get("USAGE_SMTP_HOST")) and environment.get("USAGE_DISABLE_NOTIFICATIONS", "0") in ("", "0")


def be_idle() -> None:
    say(
        "no reports are sent: USAGE_SMTP_HOST names no mail server, or "
        "USAGE_DISABLE_NOTIFICATIONS is set; nothing to do"
    )
    signal.pause()


def worker(environment: dict[str, str]) -> None:
    if not sends_reports(environment):
        be_idle()
    become([SUPERSET / "celery", _CELERY_APP, "worker", "--pool=prefork", "-O", "fair", "-c", "1"], environment)


def beat(environment: dict[str, str]) -> None:
    if not sends_reports(environment):
        be_idle()
    become([SUPERSET / "celery", _CELERY_APP, "beat", "--pidfile=", "-s", "/tmp/beat"], environment)  # noqa: S108


def worker_is_alive(environment: dict[str, str]) -> int | None:
    if not sends_reports(environment):
        return 0
    # asks over the broker alone: loading Superset each time would cost more than the worker does
    asked = (
        "import os, socket, sys; from celery import Celery; name = 'celery@' + socket.gethostname();"
        "found = Celery(broker=os.environ['USAGE_CELERY_URL']).control.ping([name], timeout=20);"
        "sys.exit(0 if found else 'the worker does not answer')"
    )
    become([SUPERSET / "python", "-c", asked], environment)
    return None


def beat_is_alive(environment: dict[str, str]) -> int:
    if not sends_reports(environment):
        return 0
    age = min((time.time() - file.stat().st_mtime for file in Path("/tmp").glob("beat*")), default=float("inf"))  # noqa: S108
    return 0 if age < _BEAT_SECONDS else 1


def users(environment: dict[str, str], arguments: list[str]) -> int:
    """People who may log in; a password is asked for, or piped in, and is never an argument."""
    given = ""
    if arguments[:1] == ["add"]:
        if sys.stdin.isatty():
            given = getpass.getpass("Password: ")
            if given != getpass.getpass("Again: "):
                raise MissingError("the two passwords differ")
        else:
            given = sys.stdin.readline()
    done = subprocess.run(
        superset_command("users", *arguments),
        input=given.rstrip("\n") + "\n",
        env=environment,
        text=True,
        check=False,
    )
    return done.returncode


def demo_people(environment: dict[str, str]) -> int:
    """The demo's accounts, with passwords made up here and now and said once, in this container's log."""
    listed = subprocess.run(
        superset_command("users", "list"),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    for name, role in {
        "admin": "Admin",
        "manager": "Usage viewer with contacts",
        "viewer": "Usage viewer",
        "analyst": "Usage analyst",
    }.items():
        if f" {name} " in listed.stdout:
            say(f"{name} is there already")
            continue
        password = secrets.token_urlsafe(12)
        subprocess.run(
            superset_command("users", "add", name, role),
            input=password + "\n",
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        say(f"log in as {name:8} {password}   {role}")
    return 0


# ---------------------------------------------------------------- which is which

_ROLES: dict[str, Callable[[dict[str, str]], int | None]] = {
    "code": code,
    "webserver": webserver,
    "api": api,
    "daemon": daemon,
    "dagster-set-up": dagster_set_up,
    "demo": demo,
    "superset-set-up": superset_set_up,
    "superset": superset,
    "worker": worker,
    "beat": beat,
    "demo-people": demo_people,
    "code-is-alive": code_is_alive,
    "daemon-is-alive": daemon_is_alive,
    "worker-is-alive": worker_is_alive,
    "beat-is-alive": beat_is_alive,
}


def main(arguments: list[str]) -> int:
    os.umask(0o077)
    environment, is_pipeline = dict(os.environ), PIPELINE.exists()
    role = arguments[0] if arguments else ""
    try:
        read_files(environment)
        with_queue = (*_OF_SUPERSET, _CELERY) if sends_reports(environment) else _OF_SUPERSET
        # what programs read from knows no database
        of_pipeline = () if role == "api" else _OF_PIPELINE
        make_addresses(environment, of_pipeline if is_pipeline else with_queue)
        if role in _ROLES:
            return _ROLES[role](environment) or 0
        if not is_pipeline:
            if role == "forget-notes":
                become(superset_command("outcome_records", "forget", *arguments[1:]), environment)
            if role == "bring-back-outcomes":
                become(superset_command("outcome_records", "bring-back"), environment)
            if role == "briefs":
                become(superset_command("briefs", *arguments[1:]), environment)
            return users(environment, arguments[1:] if role == "users" else ["--help"])
        environment[CONFIG] = str(configuration(environment))
        become([PIPELINE / "usage-pipeline", *arguments], environment)
    except MissingError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
