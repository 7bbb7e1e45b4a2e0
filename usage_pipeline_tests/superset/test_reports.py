"""Superset's own reports: a dashboard on a schedule, made by a real worker, sent through a real mail server.

The queue is Debian's Redis, beat and worker are the processes of an installation. Beat looks once a minute, so the
whole way takes minutes and is among the heavy proofs; what a half configuration is refused with is quick.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from usage_pipeline.operations.local import SUPERSET_PYTHON, superset_environment
from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.fake_smtp import FakeSmtp, serving_mail
from usage_pipeline_tests.support.processes import end_process
from usage_pipeline_tests.support.servers import SupersetServer, free_port, serving
from usage_pipeline_tests.support.superset_client import log_in
from usage_pipeline_tests.support.visitors import GOOD_KEY, Visitor, start_problems

pytestmark = pytest.mark.superset("second")


def test_half_a_configuration_of_reports_says_what_is_missing() -> None:
    said = start_problems(
        SUPERSET_SECRET_KEY=GOOD_KEY,
        USAGE_STATUS="/nowhere",
        USAGE_CELERY_URL="redis://localhost/1",
        USAGE_SMTP_SECURITY="ssl",
        USAGE_SMTP_USER="someone",
        USAGE_INTERNAL_URL="http://web:8088",
        USAGE_ALLOWED_HOSTS="usage.example.com",
    )
    for words in (
        "USAGE_SMTP_HOST is not set",
        "USAGE_MAIL_FROM is not set",
        "USAGE_PUBLIC_URL is not set",
        "USAGE_INTERNAL_URL has a name that USAGE_ALLOWED_HOSTS lacks",
        "USAGE_SMTP_SECURITY is 'ssl': give it starttls, tls or none",
        "USAGE_SMTP_USER and USAGE_SMTP_PASSWORD go together",
    ):
        assert words in said
    assert "names no Redis" in start_problems(SUPERSET_SECRET_KEY=GOOD_KEY, USAGE_CELERY_URL="amqp://x")


@contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, env=os.environ | environment, cwd=log.parent, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        end_process(started, 60)


@dataclass
class Reports:
    """An installation with reports on: its address, its mail server, its log files."""

    url: str
    office: FakeSmtp
    folder: Path

    def wait_for(self, what: Any, seconds: float = 400) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := what():
                return found
            time.sleep(1)
        pytest.fail((self.folder / "worker.log").read_text()[-6000:])


@pytest.fixture(scope="module")
def reports(superset: SupersetServer, demo: Demo) -> Iterator[Reports]:
    redis = shutil.which("redis-server")
    if redis is None or shutil.which("chromedriver") is None:
        pytest.fail("Redis or Chromium's driver is missing: `make soak` installs them, or says how")
    celery = [str(SUPERSET_PYTHON.with_name("celery")), "--app=superset.tasks.celery_app:app"]
    folder, port = superset.folder, free_port()
    with ExitStack() as stack:
        office = stack.enter_context(serving_mail())
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        stack.enter_context(process([redis, *options], {}, folder / "redis.log"))
        environment = superset_environment(demo.settings.home, folder) | {
            "USAGE_CELERY_URL": f"redis://127.0.0.1:{port}/1",
            "USAGE_SMTP_HOST": "127.0.0.1",
            "USAGE_SMTP_PORT": str(office.port),
            "USAGE_SMTP_SECURITY": "none",
            "USAGE_MAIL_FROM": "usage@example.com",
            "USAGE_PUBLIC_URL": "https://usage.example.com",
            "USAGE_INTERNAL_URL": "http://127.0.0.1:1",
        }
        url = stack.enter_context(serving(environment, folder))
        environment["USAGE_INTERNAL_URL"] = url
        worker = [*celery, "worker", "--pool=prefork", "-O", "fair", "-c", "1"]
        stack.enter_context(process(worker, environment, folder / "worker.log"))
        beat = [*celery, "beat", "--pidfile=", f"--schedule={folder}/beat"]
        stack.enter_context(process(beat, environment, folder / "beat.log"))
        yield Reports(url, office, folder)


def schedule(admin: Visitor, slug: str, owner: str, **more: Any) -> int:
    """A report of a dashboard each minute, on behalf of `owner`, sent to an address named after the page."""

    def number(path: str, name: str, wanted: str) -> int:
        listed = admin.get(path).json()["result"]
        return int(next(item["id"] for item in listed if item[name] == wanted))

    found = admin.get("/api/v1/report/related/owners?q=(page_size:100)").json()["result"]
    whose = next(item["value"] for item in found if item["text"].split()[0].lower() == owner)
    made = admin.post(
        "/api/v1/report/",
        {
            "type": "Report",
            "name": f"The page {slug}",
            "crontab": "* * * * *",
            "timezone": "UTC",
            "active": True,
            "creation_method": "alerts_reports",
            "dashboard": number("/api/v1/dashboard/?q=(page_size:100)", "slug", slug),
            "owners": [whose],
            "recipients": [{"type": "Email", "recipient_config_json": {"target": f"{slug}@example.com"}}],
            "working_timeout": 600,
            "log_retention": 1,
        }
        | more,
    )
    assert made.status_code == 201, made.text
    return int(made.json()["id"])


def parts_of(mail: Any, kind: str) -> list[bytes]:
    return [part.get_payload(decode=True) for part in mail.walk() if part.get_content_type() == kind]


def small(picture: bytes) -> np.ndarray[Any, Any]:
    """The upper part of a page, so small that only its layout counts."""
    image = Image.open(BytesIO(picture)).convert("L")
    image = image.crop((0, 0, image.width, min(image.height, 1000)))
    return np.asarray(image.resize((64, 40)), dtype=float)


@pytest.mark.soak
def test_a_dashboard_arrives_on_schedule_and_one_of_contacts_only_for_who_may_see_them(
    reports: Reports, superset: SupersetServer, demo: Demo, browser: Any
) -> None:
    admin = Visitor(SupersetServer(reports.url, superset.passwords, superset.folder), "admin")
    made = [
        schedule(admin, "call-list", "viewer", report_format="PNG"),
        schedule(admin, "health", "viewer", report_format="PDF"),
        schedule(admin, "contacts", "viewer", report_format="PNG"),
    ]
    try:
        (png, *_) = reports.wait_for(lambda: reports.office.to("call-list@example.com"))
        (pdf, *_) = reports.wait_for(lambda: reports.office.to("health@example.com"))

        def refused() -> list[dict[str, Any]]:
            logged = admin.get(f"/api/v1/report/{made[2]}/log/?q=(page_size:50)").json()["result"]
            return [entry for entry in logged if entry["state"] == "Error"]

        (error, *_) = reports.wait_for(refused)
    finally:
        for number in made:
            admin.ask("DELETE", f"/api/v1/report/{number}")
    (picture,) = parts_of(png, "image/png")
    (superset.folder / "report.png").write_bytes(picture)
    image = Image.open(BytesIO(picture))
    assert image.width >= 1500
    assert image.height >= 1000
    assert len(set(image.convert("RGB").resize((400, 300)).getdata())) > 200, "not blank"
    assert png["Subject"] == "[Usage] The page call-list: Call list"
    assert "https://usage.example.com/superset/dashboard/" in png.get_body(("html",)).get_content()
    # the same page as its reader's browser shows it, and the page of somebody who is not logged in
    context = browser.new_context(viewport={"width": 1600, "height": 2400})
    page = context.new_page()
    page.goto(f"{reports.url}/login/")
    page.wait_for_timeout(3000)
    outside = page.screenshot()
    log_in(page, SupersetServer(reports.url, superset.passwords, superset.folder), "viewer")
    page.goto(f"{reports.url}/superset/dashboard/call-list/?standalone=3")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(3000)
    inside = page.locator(".standalone").screenshot()
    context.close()
    to_page, to_login = (float(np.abs(small(picture) - small(other)).mean()) for other in (inside, outside))
    assert to_page < to_login / 2, (to_page, to_login)
    # Superset names no type of it
    (document,) = parts_of(pdf, "application/octet-stream")
    assert document.startswith(b"%PDF")
    assert len(document) > 50_000
    assert "screenshot" in error["error_message"].lower()
    assert reports.office.to("contacts@example.com") == [], "who may not see contacts is sent none"
    people = pd.read_parquet(demo.folder / "lake" / "contacts.parquet")["email"].dropna()
    everything = "".join(str(mail) for mail in reports.office.mails)
    assert not any(address in everything for address in people)


@pytest.mark.soak
@pytest.mark.parametrize("who", ["viewer", "manager", "analyst"])
def test_only_an_administrator_makes_reports(reports: Reports, superset: SupersetServer, who: str) -> None:
    visitor = Visitor(SupersetServer(reports.url, superset.passwords, superset.folder), who)
    assert visitor.get("/api/v1/report/").status_code in (403, 404)
    assert visitor.post("/api/v1/report/", {"type": "Report", "name": "x", "crontab": "* * * * *"}).status_code == 403
