"""Chat and signed webhooks, against real servers on this machine: who is told what, once, whatever is killed or away."""

import base64
import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
import requests
import yaml
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import ConfigError, Settings, load_settings
from usage_pipeline.defs.notifications.assets import messages as messages_asset
from usage_pipeline.defs.notifications.checks import no_message_was_given_up
from usage_pipeline.defs.notifications.sensors import outbox_sensor
from usage_pipeline.notifications import messages as lib
from usage_pipeline.notifications.alerts import raise_alerts
from usage_pipeline.notifications.outbox import ATTEMPTS, WAITS, counts, opened
from usage_pipeline.observability.monitors import Finding
from usage_pipeline.operations.backup import back_up, restore
from usage_pipeline.operations.data_home import unknown
from usage_pipeline.operations.metrics import metrics_text
from usage_pipeline_tests.support.fake_smtp import Webhook, serving_webhook
from usage_pipeline_tests.support.hand_made_builds import publish_by_hand
from usage_pipeline_tests.support.lakes import write_config
from usage_pipeline_tests.support.outcomes import record

NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)
PAGES = "https://usage.example.com"
SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes....").decode()
DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "chat-and-webhooks.md"


def call(account_id: str, urgency: str = "Urgent", **more: Any) -> dict[str, Any]:
    rank = {"Urgent": 1, "This week": 2, "Watch": 3}[urgency]
    known = {
        "rank": 1,
        "account_id": account_id,
        "account": f"Town of {account_id}",
        "urgency": urgency,
        "urgency_rank": rank,
        "owner": "Dana Reyes",
        "reason": "inactive: Permits",
        "reason_in_short": "Permits (no use for 5 weeks)",
        "call_reason": "inactive",
        "news": "new this week",
        "arr_at_risk": 12000.0,
        "annual_value": 40000.0,
        "renewal_date": datetime(2027, 1, 31),
    }
    return known | more


def publish(settings: Settings, number: int, *calls: dict[str, Any]) -> None:
    reasons = [
        {
            "account_id": listed["account_id"],
            "application_key": "permits",
            "application": "Permits",
            "call_reason": "inactive",
            "reason": "no use for 5 weeks",
            "reason_since": datetime(2026, 10, 19),
            "urgency": listed["urgency"],
            "urgency_rank": listed["urgency_rank"],
        }
        for listed in calls
    ]
    publish_by_hand(settings.home.root, number, "2026-11-25", {"call_list": calls, "call_reasons": reasons})


@pytest.fixture
def chat() -> Iterator[Webhook]:
    with serving_webhook() as found:
        yield found


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with serving_webhook() as found:
        yield found


@pytest.fixture
def config(tmp_path: Path, chat: Webhook, hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEAM", chat.url.replace("http:", "json:"))
    monkeypatch.setenv("HOOK", hook.url)
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    notify = {"chat": [{"address": "TEAM"}], "webhooks": [{"address": "HOOK", "secret": "HOOK_SECRET"}]}
    return write_config(tmp_path, as_of="2026-11-25", mail={"pages_url": PAGES}, notify=notify)


def changed(config: Path, **changes: Any) -> Settings:
    content = yaml.safe_load(config.read_text(encoding="utf-8")) | changes
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_settings(config)


@pytest.fixture
def settings(config: Path) -> Settings:
    """A home whose Urgent accounts have been looked at: B is Urgent, A is not. Digests are left out."""
    found = changed(config, notify=only_urgent(config))
    publish(found, 1, call("A", "Watch"), call("B"))
    assert lib.tell_of_build(found, print, lambda: NOW).became_urgent == 0, "the first look tells of nothing"
    return found


def only_urgent(config: Path) -> dict[str, Any]:
    notify: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))["notify"]
    return notify | {"chat": [{"address": "TEAM", "tell": ["urgent"]}]}


def tell(settings: Settings, now: datetime = NOW) -> lib.Told:
    return lib.tell_of_build(settings, print, lambda: now)


def on_day(settings: Settings, day: int) -> Settings:
    return settings.model_copy(update={"as_of": settings.as_of.replace(day=day)})


# ---------------------------------------------------------------- what is told


def test_an_account_that_becomes_urgent_is_told_to_chat_and_webhook_with_links(
    settings: Settings, chat: Webhook, hook: Webhook
) -> None:
    publish(settings, 2, call("A"), call("B"))
    told = tell(settings)
    assert (told.became_urgent, told.added, told.taken, told.failed) == (1, 2, 2, 0)
    (message,) = chat.bodies
    assert message["title"] == "Urgent: Town of A"
    for words in ("inactive: Permits", "$12,000 ARR at risk, renews Jan 31, 2027", "data through Nov 22, 2026"):
        assert words in message["message"]
    assert f"[Record the outcome]({PAGES}/record/Town%20of%20A)" in message["message"]
    (event,) = hook.bodies
    assert event["type"] == "account.urgent"
    data = event["data"]
    assert (data["account_id"], data["arr_at_risk"], data["data_through"]) == ("A", 12000.0, "2026-11-22")
    assert data["build"].startswith("00002-")
    assert data["links"] == {
        "account": f"{PAGES}/account/Town%20of%20A",
        "record_outcome": f"{PAGES}/record/Town%20of%20A",
    }
    assert data["reasons"] == [
        {
            "reason": "inactive",
            "application": "Permits",
            "details": "no use for 5 weeks",
            "priority": "Urgent",
            "since": "2026-10-19",
        }
    ]
    assert "Dana" not in json.dumps([chat.bodies, hook.bodies]), "no CSM is named"
    assert unknown(settings.home.root) == []
    again = tell(settings)
    assert (again.added, again.taken, len(chat.bodies), len(hook.bodies)) == (0, 0, 1, 1)


@pytest.mark.long
def test_an_account_is_told_of_once_a_day_and_again_on_another(settings: Settings, chat: Webhook) -> None:
    for number, urgency in ((2, "Urgent"), (3, "Watch"), (4, "Urgent")):
        publish(settings, number, call("A", urgency), call("B"))
        tell(settings)
    assert len(chat.bodies) == 1
    for number, urgency in ((5, "Watch"), (6, "Urgent")):
        publish(settings, number, call("A", urgency), call("B"))
        tell(on_day(settings, 26))
    assert len(chat.bodies) == 2


def test_a_snoozed_account_is_told_of_when_the_snooze_is_over(settings: Settings, chat: Webhook) -> None:
    snoozed = {"status": "snoozed", "snoozed_until": "2026-11-27"}
    record(settings.home.feedback_dir, "A", **snoozed)
    publish(settings, 2, call("A"), call("B"))
    assert tell(settings).became_urgent == 0
    assert tell(on_day(settings, 27)).became_urgent == 1
    record(settings.home.feedback_dir, "B", **snoozed)
    assert tell(on_day(settings, 28)).became_urgent == 0, "B was Urgent before anybody snoozed it"
    assert [body["title"] for body in chat.bodies] == ["Urgent: Town of A"]


def test_owners_get_their_own_accounts_and_digests(config: Path, chat: Webhook, hook: Webhook) -> None:
    notify = only_urgent(config)
    ana = {"address": "TEAM", "owners": ["Ana Ruiz"]}
    settings = changed(
        config, notify=notify | {"chat": [ana], "webhooks": [notify["webhooks"][0] | {"owners": ["Bo"]}]}
    )
    publish(settings, 1)
    tell(settings)
    of_ana = [call(f"A{number}", owner="Ana Ruiz", rank=number) for number in range(7)]
    publish(settings, 2, *of_ana, call("B", owner="Bo"), call("C"), call("D", owner=None))
    assert tell(settings).failed == 0
    assert chat.bodies[-1]["title"].startswith("Ana Ruiz: "), "what is urgent comes first"
    assert [event["data"]["account_id"] for event in hook.bodies] == ["B"]
    (digest,) = [body for body in chat.bodies if not body["title"].startswith("Urgent")]
    assert len(chat.bodies) == 8
    assert digest["title"] == "Ana Ruiz: Calls of week 47: 7 accounts, 7 urgent"
    first = f"Urgent: [Town of A0]({PAGES}/account/Town%20of%20A0): Permits (no use for 5 weeks), $12,000 ARR at risk."
    assert first in digest["message"]
    assert digest["message"].count(f"{PAGES}/record/") == lib.LISTED
    assert f"And 2 accounts more: [Call list]({PAGES}/call-list/Ana%20Ruiz)" in digest["message"]
    publish(settings, 3, *of_ana)
    tell(on_day(settings, 27))
    assert len(chat.bodies) == 8, "a digest a week"


@pytest.mark.long
def test_nothing_is_told_of_a_build_that_is_old_or_held_and_it_is_told_later(settings: Settings, chat: Webhook) -> None:
    publish(settings, 2, call("A"), call("B"))
    late = on_day(settings, 30).model_copy(update={"as_of": settings.as_of.replace(month=12, day=20)})
    assert "nothing old is sent" in tell(late).not_told_because
    held = settings.home.published_dir / "pinned"
    held.write_text("00002-2026-11-25-aaaaaaaa")
    assert "a rollback holds build" in tell(settings).not_told_because
    assert chat.asked == []
    held.unlink()
    assert tell(settings).taken == 2


def test_names_in_the_data_are_no_mentions_links_or_lines(settings: Settings, chat: Webhook) -> None:
    hostile = "@everyone <!channel>\n[click](http://x.invalid)"
    publish(settings, 2, call("A", account=hostile, reason=f"`@here` {hostile}"), call("B"))
    tell(settings)
    (message,) = chat.bodies
    whole = message["title"] + message["message"]
    assert not re.search(r"@everyone|@here|<|`|\[click", whole)
    assert "\n" not in message["title"]
    assert re.findall(r"\]\((.*?)/", whole) == ["https:", "https:"], "links of ours alone"


def test_slack_gets_links_and_takes_the_message(
    settings: Settings, chat: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apprise.plugins.slack import NotifySlack

    monkeypatch.setenv("TEAM", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
    # a server that takes what Slack's webhooks take
    monkeypatch.setattr(NotifySlack, "webhook_url", chat.url)
    publish(settings, 2, call("A", account="Zoë & <!channel>"), call("B"))
    assert tell(settings).taken == 2
    (sent,) = chat.bodies
    (attachment,) = sent["attachments"]
    assert attachment["title"] == "Urgent: Zoë &amp; ‹!channel›"
    assert f"<{PAGES}/record/Zo%C3%AB%20%26%20%3C%21channel%3E|Record the outcome>" in attachment["text"]
    assert "http" not in json.dumps(sent).replace(PAGES, ""), "no picture of another site"


def test_teams_gets_links_and_takes_the_message(
    settings: Settings, chat: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def post(_url: str, **words: Any) -> Any:
        return requests.request("POST", chat.url, data=words["data"], timeout=10)

    monkeypatch.setenv("TEAM", "workflows://teams.example.com/0123456789abcdef0123456789abcdef/abcdefghijklmnop")
    # which are there by https alone
    monkeypatch.setattr(requests, "post", post)
    publish(settings, 2, call("A"), call("B"))
    assert tell(settings).taken == 2
    (sent,) = chat.bodies
    text = sent["attachments"][0]["content"]["body"][-1]["text"]
    assert f"[Record the outcome]({PAGES}/record/Town%20of%20A)" in text


# ---------------------------------------------------------------- the signature


def receiver_of_docs() -> dict[str, Any]:
    """The example of the documentation, as a reader would run it."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(code, str(DOCS), "exec"), found)  # noqa: S102 - our own page
    return found


@pytest.mark.long
def test_the_receiver_of_the_docs_takes_what_is_genuine_once_and_refuses_the_rest(
    settings: Settings, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USAGE_EVENTS_SECRET", SECRET)
    receiver = receiver_of_docs()
    handled: list[dict[str, Any]] = []
    receiver["handle"] = handled.append
    receiver["Receiver"].log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), receiver["Receiver"])
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{server.server_port}/events")
        publish(settings, 2, call("A"), call("B"))
        assert tell(settings).failed == 0
        with opened(settings.home.outbox_path) as outbox:
            # as if the answer had been lost: the same message under the same id
            body = json.dumps(handled[0], ensure_ascii=False)
            outbox.set("urgent/2026-11-25/A/HOOK", state="waiting", content=body)
        assert tell(settings).taken == 1
        monkeypatch.setenv("HOOK_SECRET", "whsec_" + base64.b64encode(b"another secret of 32 bytes......").decode())
        done = CliRunner().invoke(
            app, ["notify", "test", "HOOK", "-c", str(settings.home.root.parent / "sources.yaml")]
        )
        assert "answers 401: correct HOOK" in done.output
    finally:
        server.shutdown()
        server.server_close()
    assert [event["data"]["account_id"] for event in handled] == ["A"]
    monkeypatch.setenv("HOOK", hook.url)
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    lib.send_test(settings.notify, settings.name, "HOOK")
    headers, body_sent = hook.asked[-1]
    assert receiver["is_genuine"](headers, body_sent)
    assert not receiver["is_genuine"](headers, body_sent + b" ")
    receiver["time"] = SimpleNamespace(time=lambda: time.time() + 302)
    assert not receiver["is_genuine"](headers, body_sent), "a replay"


@pytest.mark.long
def test_each_attempt_has_its_own_timestamp_and_the_same_id(settings: Settings, hook: Webhook) -> None:
    hook.first_answers = [500]
    publish(settings, 2, call("A"), call("B"))
    tell(settings)
    time.sleep(1.1)
    tell(settings, NOW + WAITS[0])
    (first, one), (second, other) = hook.asked
    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-timestamp"] < second["webhook-timestamp"]
    assert one == other


# ---------------------------------------------------------------- retries


def test_what_is_answered_500_and_then_200_is_sent_once(settings: Settings, chat: Webhook, hook: Webhook) -> None:
    chat.first_answers, hook.first_answers = [500], [500]
    publish(settings, 2, call("A"), call("B"))
    told = tell(settings)
    assert (told.taken, told.waiting) == (0, 2)
    assert tell(settings, NOW + timedelta(seconds=59)).taken == 0, "not before its time"
    assert tell(settings, NOW + WAITS[0]).taken == 2
    assert (len(chat.bodies), len(hook.bodies)) == (1, 1)


def test_a_lost_answer_is_tried_again_under_the_same_id(settings: Settings, hook: Webhook) -> None:
    hook.first_answers = [0]
    publish(settings, 2, call("A"), call("B"))
    tell(settings)
    tell(settings, NOW + WAITS[0])
    (first, _), (second, _) = hook.asked
    assert first["webhook-id"] == second["webhook-id"]


def test_a_server_that_is_always_down_is_given_up_and_told_of_and_a_person_tries_again(
    config: Path, settings: Settings, chat: Webhook, hook: Webhook
) -> None:
    hook.answer = 503
    publish(settings, 2, call("A"), call("B"))
    now = NOW
    for wait in (timedelta(), *WAITS, timedelta(days=1)):
        now += wait
        tell(settings, now)
    assert len(hook.asked) == ATTEMPTS
    assert counts(settings.home.outbox_path) == {"waiting": 0, "failed": 1}
    check: Any = no_message_was_given_up(settings)
    assert not check.passed
    assert b"usage_pipeline_messages_failed 1.0" in metrics_text(settings)
    listed = CliRunner().invoke(app, ["notify", "outbox", "-c", str(config)]).output
    assert "failed   urgent/2026-11-25/A/HOOK, 6 attempts: the webhook at 127.0.0.1 answers 503: correct HOOK" in listed
    hook.answer = 200
    assert CliRunner().invoke(app, ["notify", "send", "-c", str(config)]).output == "0 sent\n"
    again = CliRunner().invoke(app, ["notify", "send", "--again", "-c", str(config)]).output
    assert again == "1 that were given up wait again\nurgent/2026-11-25/A/HOOK was taken\n1 sent\n"
    assert (len(hook.bodies), len(chat.bodies)) == (1, 1)
    check = no_message_was_given_up(settings)
    assert check.passed


@pytest.mark.long
def test_one_address_that_is_away_keeps_nothing_from_another_and_is_asked_once_a_round(
    settings: Settings, chat: Webhook, hook: Webhook
) -> None:
    hook.answer = 500
    publish(settings, 2, call("A"), call("B"), call("C"), call("D"))
    tell(settings)
    assert (len(chat.bodies), len(hook.asked)) == (3, 1)


@pytest.mark.long
def test_an_address_that_is_not_set_is_waited_for_and_costs_no_attempt(
    settings: Settings, chat: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEAM")
    publish(settings, 2, call("A"), call("B"))
    for minutes in range(20):
        tell(settings, NOW + timedelta(minutes=minutes))
    with opened(settings.home.outbox_path) as outbox:
        (entry,) = outbox.entries("waiting")
    assert (entry.attempts, entry.said[:42]) == (0, "the environment variable TEAM is not set: ")
    monkeypatch.setenv("TEAM", chat.url.replace("http:", "json:"))
    late = NOW + timedelta(days=2, minutes=1)
    assert tell(settings, late).failed == 1
    assert chat.asked == [], "nothing old is sent"


@pytest.mark.long
def test_a_message_to_an_address_that_is_not_named_any_more_is_given_up(
    config: Path, settings: Settings, hook: Webhook
) -> None:
    hook.answer = 500
    publish(settings, 2, call("A"), call("B"))
    tell(settings)
    other = changed(config, notify={"chat": [{"address": "TEAM"}]})
    tell(other, NOW + timedelta(hours=1))
    with opened(settings.home.outbox_path) as outbox:
        (entry,) = outbox.entries("failed")
    assert entry.said == "the configuration does not name HOOK any more"


# ---------------------------------------------------------------- processes that are killed, and two at once

KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from usage_pipeline.config.settings import load_settings
from usage_pipeline.notifications import messages, outbox

def dies(*_):
    os.kill(os.getpid(), signal.SIGKILL)

config, where = sys.argv[1:]
if where == "taken, not noted":
    kept = outbox.Outbox.set
    outbox.Outbox.set = lambda self, key, **values: dies() if values["state"] == "sent" else kept(self, key, **values)
if where == "noted who is Urgent":
    outbox.Outbox._insert = dies
if where == "added, not sent":
    messages.send_due = dies
messages.tell_of_build(load_settings(config), print, lambda: datetime(2026, 11, 25, 8, tzinfo=UTC))
"""


def run_of(config: Path, where: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", KILLED, str(config), where])


@pytest.mark.parametrize("where", ["noted who is Urgent", "added, not sent"])
@pytest.mark.sample("added, not sent")
def test_a_run_that_is_killed_before_it_sends_loses_and_repeats_nothing(
    config: Path, settings: Settings, chat: Webhook, hook: Webhook, where: str
) -> None:
    publish(settings, 2, call("A"), call("B"))
    assert run_of(config, where).wait(60) == -signal.SIGKILL
    assert (chat.asked, hook.asked) == ([], [])
    assert tell(settings).taken == 2
    assert (len(chat.bodies), len(hook.bodies)) == (1, 1)


@pytest.mark.parametrize("kind", ["chat", "webhooks"])
@pytest.mark.sample("webhooks")
def test_a_run_that_is_killed_between_the_answer_and_its_note_repeats_only_what_a_receiver_can_know(
    config: Path, settings: Settings, chat: Webhook, hook: Webhook, kind: str
) -> None:
    publish(settings, 2, call("A"), call("B"))
    both = yaml.safe_load(config.read_text(encoding="utf-8"))["notify"]
    alone = changed(config, notify={kind: both[kind]})
    assert run_of(config, "taken, not noted").wait(60) == -signal.SIGKILL
    tell(alone)
    if kind == "webhooks":
        (first, one), (second, other) = hook.asked
        assert (first["webhook-id"], one) == (second["webhook-id"], other)
        assert counts(settings.home.outbox_path) == {"waiting": 0, "failed": 0}
    else:
        assert len(chat.asked) == 1, "never twice"
        with opened(settings.home.outbox_path) as outbox:
            (entry,) = outbox.entries("failed")
        assert "it may have arrived" in entry.said


@pytest.mark.long
def test_a_receiver_that_kills_its_sender_each_time_is_given_up(
    config: Path, settings: Settings, hook: Webhook
) -> None:
    publish(settings, 2, call("A"), call("B"))
    both = yaml.safe_load(config.read_text(encoding="utf-8"))["notify"]
    alone = changed(config, notify={"webhooks": both["webhooks"]})
    tell(alone)
    with opened(settings.home.outbox_path) as outbox:
        outbox.set("urgent/2026-11-25/A/HOOK", state="sending", attempts=ATTEMPTS)
    assert tell(alone).failed == 1
    assert len(hook.asked) == 1


@pytest.mark.long
def test_two_runs_at_once_send_each_message_once(
    config: Path, settings: Settings, chat: Webhook, hook: Webhook
) -> None:
    publish(settings, 2, *(call(f"A{number}") for number in range(8)), call("B"))
    runs = [run_of(config, "nowhere") for _ in range(3)]
    assert [run.wait(120) for run in runs] == [0, 0, 0]
    assert len({headers["webhook-id"] for headers, _ in hook.asked}) == len(hook.asked) == 8
    assert len({body["title"] for body in chat.bodies}) == len(chat.asked) == 8


# ---------------------------------------------------------------- secrets


def test_addresses_and_secrets_are_in_no_message_file_or_log(
    config: Path,
    settings: Settings,
    chat: Webhook,
    hook: Webhook,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("apprise", "urllib3"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
    chat.answer = hook.answer = 500
    publish(settings, 2, call("A"), call("B"))
    tell(settings)
    CliRunner().invoke(app, ["notify", "test", "-c", str(config)])
    print(CliRunner().invoke(app, ["notify", "outbox", "-c", str(config)]).output)
    printed = capfd.readouterr()
    said = caplog.text + printed.out + printed.err
    assert "the chat of TEAM answers 500: correct the address" in said
    for secret in (urlsplit(chat.url).path[1:], "secret-part", SECRET, SECRET.removeprefix("whsec_")):
        assert secret not in said
        assert secret.encode() not in settings.home.outbox_path.read_bytes()


@pytest.mark.long
def test_what_was_sent_leaves_no_text_in_the_outbox(settings: Settings, chat: Webhook) -> None:
    publish(settings, 2, call("A"), call("B"))
    tell(settings)
    assert len(chat.bodies) == 1
    assert b"Town of A" not in settings.home.outbox_path.read_bytes()


@pytest.mark.parametrize(
    ("notify", "words"),
    [
        ({"chat": [{"address": "slack://T/B/hidden"}]}, "no name of an environment variable: write one such as"),
        ({"chat": [{"address": "${TEAM}"}]}, "no name of an environment variable"),
        ({"webhooks": [{"address": "HOOK", "secret": "whsec_hidden"}]}, "no name of an environment variable"),
        ({"webhooks": [{"address": "HOOK"}]}, "notify.webhooks.0.secret: missing; add it"),
        ({"chat": [{"address": "TEAM"}, {"address": "TEAM"}]}, "TEAM is named twice"),
        ({"chat": [{"address": "TEAM", "tell": ["everything"]}]}, "notify.chat.0.tell.0"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_named_and_not_repeated(
    config: Path, notify: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        changed(config, notify=notify)
    assert words in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_links_demand_the_address_of_the_pages(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"mail\.pages_url: missing"):
        changed(config, mail={})


@pytest.mark.long
def test_a_test_says_what_is_wrong_with_an_address(
    config: Path, chat: Webhook, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> str:
        return CliRunner().invoke(app, ["notify", "test", "-c", str(config)]).output

    assert said() == "TEAM has taken a test\nHOOK has taken a test\n"
    assert (chat.bodies[0]["title"], hook.bodies[0]["type"]) == ("Test: a test", "test")
    for variable, value, words in (
        ("TEAM", "nothing://x", "TEAM holds no address that apprise knows"),
        ("TEAM", "json://127.0.0.1:1/x", "the chat of TEAM cannot be reached"),
        ("TEAM", "", "the environment variable TEAM is not set"),
        ("HOOK", "ftp://x", "HOOK holds no address of a webhook"),
        ("HOOK", "http://[x/hidden", "HOOK holds no address of a webhook"),
        ("HOOK", "http://127.0.0.1:1/hidden", "the webhook at 127.0.0.1 cannot be reached"),
        ("HOOK_SECRET", "short", "HOOK_SECRET: write whsec_ and 24 bytes or more in base64"),
        ("HOOK_SECRET", "whsec_c2hvcnQ=", "HOOK_SECRET: write whsec_ and 24 bytes or more in base64"),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(variable, value)
            assert words in said()
            assert "hidden" not in said()
    hook.answer = chat.answer = 302
    assert "the chat of TEAM answers 302" in said(), "no redirect is followed"
    monkeypatch.setenv("USAGE_DISABLE_NOTIFICATIONS", "1")
    assert "USAGE_DISABLE_NOTIFICATIONS is set" in said()


# ---------------------------------------------------------------- Dagster, alerts, copies


def test_the_asset_tells_and_the_sensor_tries_again(
    config: Path, settings: Settings, hook: Webhook, instance: dg.DagsterInstance
) -> None:
    hook.first_answers = [500]
    publish(settings, 2, call("A"), call("B"))
    result = dg.materialize([messages_asset], instance=instance, resources={"settings": settings}, selection="messages")
    (found,) = result.asset_materializations_for_node("messages")
    assert (found.metadata["became_urgent"].value, found.metadata["waiting"].value) == (1, 1)
    with opened(settings.home.outbox_path) as outbox:
        outbox.set("urgent/2026-11-25/A/HOOK", next_at=NOW.isoformat())
    sensor = outbox_sensor(lambda: load_settings(config))
    with dg.build_sensor_context(instance=instance) as context:
        assert "urgent/2026-11-25/A/HOOK was taken" in str(sensor.evaluate_tick(context).skip_message)
        assert sensor.evaluate_tick(context).skip_message == "nothing is due"


@pytest.mark.long
def test_an_alert_is_told_to_chat_once_at_begin_and_end(config: Path, chat: Webhook) -> None:
    settings = changed(config, notify={"chat": [{"address": "TEAM", "tell": ["alerts"]}]})
    chat.first_answers = [500]

    def look(*findings: Finding) -> str:
        said: list[str] = []
        now = datetime.now(UTC)
        raise_alerts(settings.home, settings.mail, settings.notify, "Test", findings, ["data"], now, said.append)
        return "; ".join(said)

    wrong = Finding("data", "failed", "the data is old", "see the lake")
    assert "was not taken: the chat of TEAM answers 500" in look(wrong)
    assert look(wrong) == "", "the outbox tries again by itself"
    lib.send_waiting(settings, print, lambda: datetime.now(UTC) + WAITS[0])
    look()
    assert [body["title"] for body in chat.bodies] == ["Test: data: the data is old", "Test: data well again"]
    assert "What to do: see the lake." in chat.bodies[0]["message"]


@pytest.mark.long
def test_a_copy_that_is_told_to_be_silent_sends_nothing_that_waits(
    config: Path, settings: Settings, chat: Webhook, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.answer = 500
    publish(settings, 2, call("A"), call("B"))
    tell(settings)
    asked = len(hook.asked)
    monkeypatch.setenv("USAGE_DISABLE_NOTIFICATIONS", "1")
    silent = load_settings(config)
    assert "notify names no address" in tell(silent, NOW + timedelta(hours=1)).not_told_because
    assert lib.send_waiting(silent, print, lambda: NOW + timedelta(hours=1)) == 0
    assert (len(chat.bodies), len(hook.asked)) == (1, asked)
    monkeypatch.delenv("USAGE_DISABLE_NOTIFICATIONS")
    publish(settings, 3, *(call(f"X{number}") for number in range(9)))
    assert tell(settings).became_urgent == 0, "what changed meanwhile is not told all at once"


@pytest.mark.long
def test_a_restored_home_sends_what_waited_under_its_id_and_nothing_that_was_sent(
    config: Path, settings: Settings, chat: Webhook, hook: Webhook, tmp_path: Path
) -> None:
    hook.first_answers = [500]
    publish(settings, 2, call("A"), call("B"))
    tell(settings)
    packed = BytesIO()
    back_up(settings.home, 10, packed)
    packed.seek(0)
    restore(tmp_path / "restored", packed)
    other = changed(config, home=str(tmp_path / "restored"))
    assert tell(other, NOW + WAITS[0]).taken == 1
    (first, _), (second, _) = hook.asked
    assert first["webhook-id"] == second["webhook-id"]
    assert len(chat.asked) == 1


@pytest.mark.long
def test_what_is_old_is_forgotten_and_what_failed_is_kept_for_two_weeks(settings: Settings, hook: Webhook) -> None:
    hook.answer = 500
    publish(settings, 2, call("A"), call("B"))
    tell(settings)
    tell(settings, NOW + timedelta(days=3))
    assert counts(settings.home.outbox_path)["failed"] == 1
    tell(settings, NOW + timedelta(days=15))
    assert counts(settings.home.outbox_path)["failed"] == 0


def test_the_first_look_of_a_home_tells_digests_of_the_week(config: Path, chat: Webhook) -> None:
    settings = load_settings(config)
    assert lib.tell_of_build(settings, print, lambda: NOW).not_told_because == "nothing is published yet"
    publish(settings, 1, call("A"))
    assert tell(settings).became_urgent == 0
    assert [body["title"] for body in chat.bodies] == ["Dana Reyes: Calls of week 47: 1 account, 1 urgent"]
