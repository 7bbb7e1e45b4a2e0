"""A standalone Spark cluster of real processes on this machine: a master, two workers, a Spark Connect server.

It runs from `.venv-spark`, which holds Spark itself and which `make soak` installs; the tests connect to it with the
client of `usage-pipeline[spark]`, as a user would. Everything listens on 127.0.0.1 and is ended by its own id.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PYTHON = Path(__file__).parents[2] / ".venv-spark" / "bin" / "python"


def spark_home() -> Path | None:
    """Where Spark's jars lie; None where `.venv-spark` is not installed."""
    found = list(PYTHON.parents[1].glob("lib/python3*/site-packages/pyspark/jars"))
    return found[0].parent if found else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """One master, two workers of one core, a Connect server; their logs lie in `folder`."""

    def __init__(self, folder: Path, *, workers: int = 2) -> None:
        self.folder = folder
        self.master_port, self.port = free_port(), free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._start(
            "master",
            "org.apache.spark.deploy.master.Master",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.master_port),
            "--webui-port",
            str(free_port()),
        )
        self._wait_for(self.master_port, "master")
        for number in range(workers):
            self.add_worker(f"worker-{number}")
        self.start_server()

    @property
    def address(self) -> str:
        return f"sc://127.0.0.1:{self.port}"

    @property
    def master(self) -> str:
        return f"spark://127.0.0.1:{self.master_port}"

    def add_worker(self, name: str) -> None:
        at = ("--host", "127.0.0.1", "--port", str(free_port()), "--webui-port", str(free_port()))
        size = ("--cores", "1", "--memory", "2g", "--work-dir", str(self.folder / name))
        self._start(name, "org.apache.spark.deploy.worker.Worker", *at, *size, self.master)

    def start_server(self) -> None:
        settings = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.executor.memory": "1500m",
            "spark.connect.grpc.binding.address": "127.0.0.1",
            "spark.connect.grpc.binding.port": str(self.port),
            "spark.ui.enabled": "false",
            "spark.sql.warehouse.dir": str(self.folder / "spark-warehouse"),
        }
        options = [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
        submit = ("org.apache.spark.deploy.SparkSubmit", "--master", self.master, *options)
        server = "org.apache.spark.sql.connect.service.SparkConnectServer"
        self._start("server", *submit, "--class", server, "spark-internal")
        self._wait_for(self.port, "server")

    def kill(self, name: str) -> None:
        """Ends a process without a word, and what it has started: an executor is a worker's child."""
        process = self.processes.pop(name)
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in family:
            one.send_signal(signal.SIGKILL)
        process.wait(timeout=30)

    def stop(self) -> None:
        for name in list(self.processes):
            if self.processes[name].poll() is None:
                self.kill(name)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def _start(self, name: str, *command: str) -> None:
        home = spark_home()
        assert home is not None
        environment = {
            "SPARK_HOME": str(home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_HOSTNAME": "127.0.0.1",
            "SPARK_LOCAL_DIRS": str(self.folder / "local"),
            # a Connect server counts as a daemon, and is where results are gathered
            "SPARK_DAEMON_MEMORY": "1500m" if name == "server" else "256m",
        }
        # nothing of the tests' own environment: a cluster knows neither the configuration nor credentials
        inherited = {key: os.environ[key] for key in ("PATH", "JAVA_HOME", "LANG", "HOME") if key in os.environ}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [str(home / "bin" / "spark-class"), *command],
                env=inherited | environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait_for(self, port: int, name: str, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.processes[name].poll() is None, self.log(name)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.2)
        raise AssertionError(f"{name} does not listen on {port} after {seconds} s:\n{self.log(name)}")


@contextmanager
def running_cluster(folder: Path, *, workers: int = 2) -> Iterator[Cluster]:
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder, workers=workers)
    try:
        yield cluster
    finally:
        cluster.stop()
