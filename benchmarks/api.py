"""Everything about an account, asked of the read API a hundred times a second: `make benchmark-api` (LAKE=folder).

first   each account once, one after the other: answers that nobody has asked for before
load    100 requests a second over 30 s, whatever the answers take (an open loop), so that waiting counts: any account,
        as a program that looks accounts up

The load generator runs on the cores that the server has too. CPU time is the server's alone, of which there is one
process.
"""

import argparse
import asyncio
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import psutil

from benchmarks.dashboards import prepared, quantile, say
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.serving.tokens import TokenStore

A_SECOND, SECONDS = 100, 30
NAME = "benchmark"


@contextmanager
def serving(home: DataHome) -> Iterator[tuple[int, psutil.Process]]:
    """The API of a home on a free port, as the command serves it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["api", "--home", str(home.root), "--port", str(port), "--per-minute", "1000000"]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "usage_pipeline.cli", *command], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


class Client:
    """As little as a program can do to ask: connections that stay open, answers read whole and not looked into."""

    def __init__(self, port: int, secret: str) -> None:
        self._port = port
        self._head = f"HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {secret}\r\n\r\n"
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, path: str) -> tuple[float, int]:
        """Milliseconds and bytes of an answer. Raises RuntimeError where it is no answer."""
        began = time.perf_counter()
        # the server closes what nobody used for seconds
        self._free = [one for one in self._free if not one[0].at_eof()]
        at = self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        at[1].write(f"GET {path} {self._head}".encode())
        head = (await at[0].readuntil(b"\r\n\r\n")).decode().lower()
        if not head.startswith("http/1.1 200"):
            raise RuntimeError(head)
        size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        await at[0].readexactly(size)
        self._free.append(at)
        return (time.perf_counter() - began) * 1000, size


async def measured(port: int, server: psutil.Process, accounts: list[str], secret: str) -> None:
    client = Client(port, secret)
    _, size = await client.get(f"/v1/accounts/{accounts[0]}")
    say(f"{len(accounts):,} accounts; an answer has {size // 1024} KB")
    spent = cpu(server)
    tell("first", [(await client.get(f"/v1/accounts/{account}"))[0] for account in accounts[1:]], cpu(server) - spent)
    wanted = random.Random(7).choices(accounts, k=A_SECOND * SECONDS)
    tasks, spent, own, began = [], cpu(server), time.process_time(), time.perf_counter()
    for number, account in enumerate(wanted):
        await asyncio.sleep(max(0.0, began + number / A_SECOND - time.perf_counter()))
        tasks.append(asyncio.create_task(client.get(f"/v1/accounts/{account}")))
    tell("load", [took for took, _ in await asyncio.gather(*tasks)], cpu(server) - spent)
    own = 1000 * (time.process_time() - own) / len(wanted)
    say(f"load took {time.perf_counter() - began:.1f} s, its generator {own:.1f} ms CPU a request")
    say(f"the server has {server.memory_info().rss // 2**20} MB")


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def tell(what: str, milliseconds: list[float], cpu_seconds: float) -> None:
    p50, p95, p99 = (quantile(milliseconds, share) for share in (0.5, 0.95, 0.99))
    each = 1000 * cpu_seconds / len(milliseconds)
    say(f"{what:5} p50 {p50:6.1f} ms  p95 {p95:6.1f} ms  p99 {p99:6.1f} ms  CPU {each:5.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--lake", type=Path, help="a demo's folder, with or without a build; default: one of 400 accounts"
    )
    parser.add_argument("--home", type=Path, help="a data home that holds a build")
    options = parser.parse_args()
    home = DataHome(options.home.resolve()) if options.home else prepared(options.lake, 400).home
    warehouse = (home.published_dir / "current").resolve() / "warehouse.duckdb"
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        accounts = [
            a for (a,) in connection.execute("SELECT account_id FROM mart.accounts_summary ORDER BY 1").fetchall()
        ]
    store = TokenStore(home.api_dir)
    secret = store.add(NAME, [], {})
    say(f"{os.cpu_count()} cores, load of the machine before: {os.getloadavg()[0]:.1f}")
    try:
        with serving(home) as (port, server):
            asyncio.run(measured(port, server, accounts, secret))
    finally:
        store.revoke(NAME)
    say(f"load of the machine after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
