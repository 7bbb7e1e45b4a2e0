"""The weekly digest, against a real mail server: who gets what, exactly once, and what is said where it cannot be sent."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import openpyxl
import pandas as pd
import pytest
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import ConfigError, MailSettings, Settings, load_settings
from usage_pipeline.defs.notifications.assets import digests as digests_asset
from usage_pipeline.defs.notifications.checks import every_owner_with_calls_was_written_to
from usage_pipeline.notifications import digest as lib
from usage_pipeline.notifications import mailer
from usage_pipeline.notifications.digest import Digest
from usage_pipeline.publishing.builds import store_of
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.fake_smtp import PASSWORD, USER, FakeSmtp, certificate_for, serving_mail
from usage_pipeline_tests.support.lakes import write_config

PAGES = "https://usage.example.com"


def tried_again(settings: Settings) -> list[str]:
    return lib.worth_another_try(settings.home, settings.clock, settings.completeness, settings.mail)


@pytest.fixture
def office() -> Iterator[FakeSmtp]:
    with serving_mail() as found:
        yield found


def mail_to(office: FakeSmtp, **more: Any) -> MailSettings:
    known = {"host": "127.0.0.1", "port": office.port, "security": "none", "from_address": "usage@example.com"}
    return MailSettings.model_validate(known | {"pages_url": PAGES, "timeout_seconds": 5} | more)


def address_of(owner: str) -> str:
    return re.sub("[^a-z]", ".", owner.lower()) + "@example.com"


def owners_of(demo: Demo) -> list[str]:
    with duckdb.connect(str(demo.warehouse), read_only=True) as connection:
        rows = connection.execute("SELECT DISTINCT owner FROM mart.call_list ORDER BY 1").fetchall()
    return [owner for (owner,) in rows]


@pytest.fixture
def settings(demo: Demo, office: FakeSmtp, tmp_path: Path) -> Settings:
    """The demo, its builds where they are, and a home of its own for what is remembered of mail."""
    (tmp_path / "published").symlink_to(demo.settings.home.published_dir)
    mail = mail_to(office, recipients={owner: address_of(owner) for owner in owners_of(demo)})
    return demo.settings.model_copy(update={"home": DataHome(tmp_path), "mail": mail})


def attachment(mail: Any) -> pd.DataFrame:
    (found,) = [part for part in mail.walk() if part.get_content_disposition() == "attachment"]
    assert found.get_filename().endswith(".xlsx")
    return pd.read_excel(BytesIO(found.get_content()))


def body(mail: Any, kind: str) -> str:
    return str(mail.get_body((kind,)).get_content()).replace("\r\n", "\n")


class Words(HTMLParser):
    """The text and the links of HTML, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name == "href"]

    def handle_data(self, data: str) -> None:
        self.texts.append(" ".join(data.split()))


def test_each_owner_gets_exactly_his_own_accounts_and_never_a_contact(
    settings: Settings, demo: Demo, office: FakeSmtp
) -> None:
    done = lib.send_digests(settings, print)
    assert (done.failed, done.without_address) == ({}, [])
    with duckdb.connect(str(demo.warehouse), read_only=True) as connection:
        calls = connection.execute("SELECT * FROM mart.call_list").df()
    # independently of the mart's own owner column: the accounts as they were delivered
    delivered = pd.read_csv(demo.folder / "lake" / "accounts.csv").set_index("account_id")["owner"]
    calls["delivered_owner"] = calls["account_id"].map(delivered)
    people = pd.read_parquet(demo.folder / "lake" / "contacts.parquet")
    personal = [value for column in ("name", "email", "phone") for value in people[column].dropna()]
    assert len(office.mails) == calls["delivered_owner"].nunique() > 1
    for owner, of_owner in calls.groupby("delivered_owner"):
        (mail,) = office.to(address_of(str(owner)))
        listed, text, html = attachment(mail), body(mail, "plain"), body(mail, "html")
        ordered = of_owner.sort_values("rank")
        assert list(listed["Account"]) == list(ordered["account"])
        assert list(listed["Details"]) == list(ordered["reason"])
        assert list(listed["Priority"]) == list(ordered["urgency"])
        first = ordered.head(lib.LISTED)
        read = Words(html)
        assert [text for text in read.texts if text in set(calls["account"])] == list(first["account"])
        links = [link for link in read.links if "/account/" in link]
        assert links == [lib.page_of(PAGES, "account", name) for name in first["account"]]
        assert all(link.startswith(f"{PAGES}/") for link in read.links)
        assert [found for name in calls["account"] if (found := f": {name}\n") in text] == [
            f": {name}\n" for name in calls["account"] if name in set(first["account"])
        ]
        others = set(calls["account"]) - set(of_owner["account"])
        whole = text + html + listed.to_csv()
        assert not any(f">{other}<" in html or f": {other}\n" in text for other in others)
        assert not any(other in set(listed["Account"]) for other in others)
        assert not any(value in whole for value in personal)
        news = (of_owner["news"] == "new this week").sum()
        now = (of_owner["urgency"] == "Urgent").sum()
        assert f"{now} urgent" in text
        assert f"; {news} new since last week" in text
        assert f"{len(of_owner)} account" in mail["Subject"]


def test_it_is_sent_once_a_week_whatever_runs_come_after(settings: Settings, office: FakeSmtp) -> None:
    first = lib.send_digests(settings, print)
    again = lib.send_digests(settings, print)
    assert len(office.mails) == len(first.sent) == len(again.sent_before)
    assert again.sent == []


def test_one_who_is_refused_keeps_nothing_from_the_others_and_is_tried_again(
    settings: Settings, demo: Demo, office: FakeSmtp
) -> None:
    unlucky, *others = owners_of(demo)
    office.refused.add(address_of(unlucky))
    done = lib.send_digests(settings, print)
    assert done.sent == others
    assert "550 no such user here: correct the address" in done.failed[unlucky]
    assert done.refused == {unlucky: address_of(unlucky)}
    assert tried_again(settings) == []
    check: Any = every_owner_with_calls_was_written_to(settings)
    assert not check.passed
    office.refused.clear()
    assert lib.send_digests(settings, print).sent == [unlucky]
    assert len(office.to(address_of(unlucky))) == 1
    check = every_owner_with_calls_was_written_to(settings)
    assert check.passed


def test_one_who_is_put_off_is_worth_another_try(settings: Settings, demo: Demo, office: FakeSmtp) -> None:
    unlucky, *_ = owners_of(demo)
    office.refused.add(address_of(unlucky))
    office.refusal = "450 come again later"
    assert list(lib.send_digests(settings, print).failed) == tried_again(settings) == [unlucky]


@pytest.mark.parametrize("refusal", ["554 5.7.1 relay access denied", "550 5.7.1 blocked", "550 no such user here"])
def test_a_server_that_takes_nothing_is_no_fault_of_the_addresses(
    settings: Settings, demo: Demo, office: FakeSmtp, refusal: str
) -> None:
    owners = owners_of(demo)
    office.refused |= {address_of(owner) for owner in owners}
    office.refusal = refusal
    assert list(lib.send_digests(settings, print).failed) == tried_again(settings) == owners


def test_a_server_that_ends_without_a_goodbye_has_taken_the_mail(settings: Settings, office: FakeSmtp) -> None:
    office.goodbye = "421 too busy for that"
    assert lib.send_digests(settings, print).failed == {}


def test_a_run_that_is_killed_after_the_server_took_a_mail_sends_it_again_under_the_same_id(
    settings: Settings, office: FakeSmtp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(lib, "_keep", killed)
        lib.send_digests(settings, print)
    lib.send_digests(settings, print)
    first, second = (mail for mail in office.mails if mail["To"] == office.mails[0]["To"])
    assert first["Message-ID"] == second["Message-ID"]
    assert len({mail["Message-ID"] for mail in office.mails}) == len(office.mails) - 1


def test_an_owner_without_address_is_named_and_nobody_else_is_sent_to(
    settings: Settings, demo: Demo, office: FakeSmtp
) -> None:
    known, *unknown = owners_of(demo)
    mail = settings.mail.model_copy(
        update={"recipients": {known: "one@example.com", "Nobody Atall": "two@example.com"}}
    )
    done = lib.send_digests(settings.model_copy(update={"mail": mail}), print)
    assert (done.sent, done.without_address) == ([known], unknown)
    assert [mail["X-Recipients"] for mail in office.mails] == ["one@example.com"]


def test_nothing_is_sent_of_a_build_that_is_held_or_old_and_nothing_without_a_server(
    settings: Settings, demo: Demo, office: FakeSmtp, tmp_path: Path
) -> None:
    store = store_of(settings.home, settings.publish)
    unsent = settings.model_copy(update={"mail": MailSettings()})
    assert "mail.host is not set" in lib.why_not(unsent.clock, unsent.completeness, unsent.mail, store)
    later = load_settings(demo.folder / "sources.yaml", as_of=demo.settings.as_of.replace(month=12, day=20))
    late = settings.model_copy(update={"as_of": later.as_of})
    assert "nothing old is sent" in lib.why_not(late.clock, late.completeness, late.mail, store)
    held = tmp_path / "held"
    held.mkdir()
    build = store.current()
    assert build is not None
    (held / build.build_id).symlink_to(store.path(build.build_id).resolve())
    (held / "current").symlink_to(build.build_id)
    (held / "pinned").write_text(build.build_id)
    (tmp_path / "published").unlink()
    (tmp_path / "published").symlink_to(held)
    assert "a rollback holds build" in lib.send_digests(settings, print).not_sent_because
    assert office.mails == []


def test_the_asset_says_what_was_sent(settings: Settings, office: FakeSmtp, instance: dg.DagsterInstance) -> None:
    result = dg.materialize([digests_asset], instance=instance, resources={"settings": settings}, selection="digests")
    assert result.success
    (found,) = result.asset_materializations_for_node("digests")
    assert len(office.mails) == len(found.metadata["sent"].value) > 1  # type: ignore[arg-type]


# ---------------------------------------------------------------- names that mean harm, and names of everywhere


def call(**more: Any) -> dict[str, Any]:
    known = dict.fromkeys([name for name in lib._COLUMNS if name != "page"])
    return (
        known
        | {"account": "A", "urgency": "Urgent", "news": "new this week", "reason": "r", "days_to_renewal": 3}
        | more
    )


def written(tmp_path: Path, owner: str, *calls: dict[str, Any]) -> Any:
    settings = load_settings(
        write_config(tmp_path, mail={"from_address": "usage@example.com", "pages_url": PAGES + "/"})
    )
    day = pd.Timestamp("2025-02-24").date()
    return lib.write(settings.mail, settings.name, Digest(owner, day, day, "00001", list(calls)), "someone@example.com")


def test_names_cannot_become_markup_headers_or_formulas(tmp_path: Path) -> None:
    hostile = '<script>alert(1)</script><img src=x onerror="x">'
    mail = written(
        tmp_path,
        "Eve\nBcc: everybody@example.com\r\nSubject: other",
        call(account=hostile, reason="=HYPERLINK(1)"),
        call(account="=cmd()\nBcc: x@example.com", reason=hostile),
    )
    assert b"\nBcc:" not in mail.as_bytes()
    assert mail["Bcc"] is None
    assert mail["Subject"].count("\n") == 0
    read = Words(body(mail, "html"))
    assert not read.tags & {"script", "img"}
    assert hostile in read.texts
    assert "\nBcc" not in body(mail, "plain")
    (found,) = [part for part in mail.walk() if part.get_content_disposition() == "attachment"]
    sheet = openpyxl.load_workbook(BytesIO(found.get_content())).active
    assert sheet is not None
    assert {cell.data_type for row in sheet.iter_rows() for cell in row} <= {"s", "n"}, "no formula"
    assert sheet["D2"].value == "=HYPERLINK(1)"


def test_names_of_everywhere_arrive_as_they_are(settings: Settings, office: FakeSmtp, tmp_path: Path) -> None:
    name = "Gemeinde Žďár & Łódź / 東京 #1?"
    mail = written(tmp_path, "Zoë Müller", call(account=name))
    mailer.send(settings.mail, mail)
    (taken,) = office.mails
    assert name in Words(body(taken, "html")).texts
    assert name in body(taken, "plain")
    assert attachment(taken)["Account"][0] == name
    (link,) = [link for link in Words(body(taken, "html")).links if "/account/" in link]
    assert link.isascii()
    assert link.endswith("%20%231%3F")


def test_only_the_first_accounts_stand_in_the_mail_and_all_in_the_workbook(tmp_path: Path) -> None:
    mail = written(tmp_path, "Owner", *(call(account=f"Account {n}") for n in range(lib.LISTED + 5)))
    assert "And 5 accounts more" in " ".join(Words(body(mail, "html")).texts)
    assert len(attachment(mail)) == lib.LISTED + 5
    assert len(body(mail, "html")) < 100_000, "some programs cut what is longer"


# ---------------------------------------------------------------- what is wrong, in words


def refusal(mail: MailSettings) -> str:
    with pytest.raises(mailer.DeliveryError) as raised:
        mailer.send(mail, mailer.message(mail, "someone@example.com", "test", "test"))
    assert PASSWORD not in str(raised.value)
    return str(raised.value)


def test_a_server_with_tls_and_a_password_takes_mail_and_what_is_wrong_has_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate_for(tmp_path, "localhost")
    with serving_mail(certificate=file, starttls=True, login=True) as office:
        good = {"host": "localhost", "security": "starttls", "user": USER, "password": PASSWORD}
        mail = mail_to(office, **good)
        assert "certificate that does not hold: self-signed certificate: name the server" in refusal(mail)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        mailer.send(mail, mailer.message(mail, "someone@example.com", "test", "test"))
        assert len(office.mails) == 1
        wrong = refusal(mail_to(office, **(good | {"password": "wrong"})))
        assert "refuses user and password (535" in wrong
        assert "IP address mismatch" in refusal(mail_to(office, **(good | {"host": "127.0.0.1"})))
        assert "speaks no TLS at once: mail.security is starttls" in refusal(
            mail_to(office, **(good | {"security": "tls"}))
        )
    with serving_mail(certificate=file) as office:
        mail = mail_to(office, host="localhost", security="tls")
        mailer.send(mail, mailer.message(mail, "someone@example.com", "test", "test"))
        assert len(office.mails) == 1


def test_a_server_that_is_away_is_named_with_the_remedy(office: FakeSmtp) -> None:
    assert "offers no STARTTLS: mail.security is tls" in refusal(mail_to(office, security="starttls"))
    assert "leave mail.user and mail.password out" in refusal(mail_to(office, user=USER, password=PASSWORD))
    assert "cannot be talked to" in refusal(mail_to(FakeSmtp(1)))
    assert "there is no machine of that name" in refusal(mail_to(office, host="mail.invalid"))


def test_a_server_that_is_away_fails_everybody_at_once_and_the_next_run_sends(
    settings: Settings, demo: Demo, office: FakeSmtp
) -> None:
    away = settings.model_copy(update={"mail": settings.mail.model_copy(update={"port": 1})})
    done = lib.send_digests(away, print)
    assert list(done.failed) == tried_again(settings) == owners_of(demo)
    assert lib.send_digests(settings, print).sent == owners_of(demo)


@pytest.mark.parametrize(
    ("mail", "said"),
    [
        ({"host": "mail"}, "host is given, and from_address and pages_url is not: add it"),
        ({"recipients": {"A": "a@b@c"}}, "'a@b@c' of A is no address: write it as name@company.example"),
        ({"alerts": ["x@y\nBcc: z"]}, "is no address"),
        ({"pages_url": "usage.example.com"}, "write the address with http:// or https://"),
        ({"host": "m", "from_address": "a@b", "pages_url": "http://p", "user": "u"}, "user and password go together"),
        (
            {
                "host": "m",
                "from_address": "a@b",
                "pages_url": "http://p",
                "user": "u",
                "password": "p",
                "security": "none",
            },
            "the password could be read on its way",
        ),
    ],
)
def test_a_configuration_that_cannot_work_says_why(tmp_path: Path, mail: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(write_config(tmp_path, mail=mail))
    assert said in str(raised.value)


def test_no_secret_is_shown_by_the_settings(tmp_path: Path) -> None:
    settings = load_settings(write_config(tmp_path, mail={"password": "hidden", "webhook": "https://x.example/hidden"}))
    assert "hidden" not in repr(settings) + settings.model_dump_json()


# ---------------------------------------------------------------- the command line


def test_the_preview_writes_everything_and_sends_nothing(demo: Demo, tmp_path: Path) -> None:
    config = tmp_path / "sources.yaml"
    text = demo.configuration(f"{demo.folder}/lake").replace("home: home", f"home: {demo.settings.home.root}")
    config.write_text(f"{text}\nmail: {{from_address: usage@example.com, pages_url: {PAGES}}}\n", encoding="utf-8")
    owner = owners_of(demo)[0]
    done = CliRunner().invoke(
        app, ["digest", "preview", "--csm", owner, "--out", str(tmp_path / "out"), "-c", str(config)]
    )
    assert done.exit_code == 0, done.output
    assert sorted(file.suffix for file in (tmp_path / "out").iterdir()) == [".eml", ".html", ".txt", ".xlsx"]
    unknown = CliRunner().invoke(app, ["digest", "preview", "--csm", "Nobody", "-c", str(config)])
    assert unknown.exit_code == 1
    assert owner in unknown.output


def test_the_test_mail_arrives_or_says_why_not(tmp_path: Path, office: FakeSmtp) -> None:
    mail = json.loads(mail_to(office).model_dump_json(exclude_none=True, exclude={"recipients", "alerts"}))
    config = str(write_config(tmp_path, mail=mail))
    done = CliRunner().invoke(app, ["mail", "test", "someone@example.com", "-c", config])
    assert done.exit_code == 0, done.output
    assert len(office.to("someone@example.com")) == 1
    office.refused.add("other@example.com")
    done = CliRunner().invoke(app, ["mail", "test", "other@example.com", "-c", config])
    assert done.exit_code == 1
    assert "no such user here" in done.output
