"""Tools for agents, by a real client: over input and output of a process, and over HTTP."""

import asyncio
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.serving.agents import program_of_process
from usage_pipeline.serving.gate import TooFastError
from usage_pipeline.serving.questions import QUESTIONS
from usage_pipeline.serving.tokens import TokenError, TokenStore
from usage_pipeline_tests.support.processes import end_process


def run(session: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> dict[str, Any]:
    """In a thread of its own: a browser of another test leaves an event loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(session())).result()


def content_of(result: Any) -> Any:
    return json.loads(result.content[0].text)


async def questions(client: Any) -> dict[str, Any]:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    called = {
        "call_list": await client.call_tool("call_list", {"region": ["North"]}),
        "kpi": await client.call_tool("kpi", {"kpi": ["Clicks"], "entity_type": ["region"]}),
        "contacts": await client.call_tool("contacts", {"account": "A1"}),
        "wrong": await client.call_tool("account", {"account": "Acme Twon"}),
        "definitions": await client.call_tool("definitions", {"name": ["Clicks"]}),
        "account": await client.call_tool("account", {"account": "A1"}),
        "number": await client.call_tool("call_list", {"week": "1764000000"}),
    }
    return {"tools": tools} | called


def must_be_right(told: dict[str, Any]) -> None:
    assert set(told["tools"]) == set(QUESTIONS)
    assert all(tool.annotations.read_only_hint for tool in told["tools"].values())
    calls = content_of(told["call_list"])
    assert [row["account"] for row in calls["answer"]["rows"]["rows"]] == ["Acme Town"]
    assert calls["build"]["data_through"] == "2026-11-22"
    assert calls["answer"]["rows"]["source"] == "mart.call_list"
    assert calls["definitions"]["reason"]
    values = {row["entity"]: row["value"] for row in content_of(told["kpi"])["answer"]["rows"]["rows"]}
    assert values == {"North": 7.0, "South": 9.0}
    assert told["contacts"].is_error and "scope contacts" in told["contacts"].content[0].text
    assert told["wrong"].is_error and "Acme Town" in told["wrong"].content[0].text
    words = content_of(told["definitions"])
    assert (words["rows"][0]["name"], words["build"]["data_through"]) == ("clicks", "2026-11-22")
    assert told["number"].is_error and "YYYY-MM-DD" in told["number"].content[0].text
    # columns without any value are not repeated in each row: the reason stands once
    assert "seats" not in content_of(told["account"])["answer"]["summary"]["rows"][0]
    assert "not delivered" in content_of(told["account"])["answer"]["summary"]["null_because"]["seats"]


def test_an_agent_on_this_machine_asks_over_input_and_output(home: DataHome, config: Path, program: list[str]) -> None:
    secret = TokenStore(home.api_dir).add("agent", [], {})
    environment = os.environ | {"USAGE_API_TOKEN": secret}
    server = StdioServerParameters(command=program[0], args=[*program[1:], "mcp", "-c", str(config)], env=environment)

    async def session() -> dict[str, Any]:
        async with Client(stdio_client(server)) as client:
            return await questions(client)

    must_be_right(run(session))


def test_a_token_that_was_revoked_meanwhile_is_refused_and_calls_have_a_pace(home: DataHome) -> None:
    """A server over input and output read its token once: it answered on after the token was revoked."""
    store = TokenStore(home.api_dir)
    who = program_of_process(TokenStore(home.api_dir), store.add("agent", [], {}), per_minute=2)
    assert who(None).program == who(None).program == "agent"
    with pytest.raises(TooFastError, match="wait"):
        who(None)
    store.revoke("agent")
    with pytest.raises(TokenError, match="holds no token"):
        who(None)


def test_without_a_token_no_server_starts(home: DataHome, config: Path, program: list[str]) -> None:
    done = subprocess.run([*program, "mcp", "-c", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "USAGE_API_TOKEN holds no token" in done.stderr


@pytest.fixture
def served(home: DataHome, config: Path, program: list[str]) -> Any:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*program, "api", "-c", str(config), "--port", str(port)], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{url}/openapi.json", timeout=2).close()  # noqa: S310
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.1)
    yield url
    end_process(process)


def test_agents_elsewhere_ask_over_http_with_their_token(home: DataHome, served: str) -> None:
    from mcp.client.streamable_http import streamable_http_client

    secret = TokenStore(home.api_dir).add("agent", [], {})

    async def session() -> dict[str, Any]:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {secret}"}, timeout=60) as http,
            Client(streamable_http_client(f"{served}/mcp", http_client=http)) as client,
        ):
            return await questions(client)

    must_be_right(run(session))
    assert httpx2.post(f"{served}/mcp", json={}).status_code == 401
    # behind a proxy it is called by another name
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Authorization": f"Bearer {secret}", "Host": "api.example.com", "Accept": "application/json"}
    assert httpx2.post(f"{served}/mcp", json=ping, headers=headers).status_code == 200


def test_it_listens_to_other_machines_only_behind_https(home: DataHome, config: Path, program: list[str]) -> None:
    done = subprocess.run(
        [*program, "api", "-c", str(config), "--host", "0.0.0.0"],  # noqa: S104
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "--behind-https" in done.stderr
