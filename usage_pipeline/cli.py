"""The command line: `usage-pipeline`. Each command is a few lines that call the package and print."""

import json
import os
import sys
import time
import warnings
from contextlib import suppress
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.config.settings import CONFIG_VARIABLE, ConfigError, Settings, load_settings
from usage_pipeline.core.files import FILE, atomic_write, keep_private

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Usage analytics: lake to dashboards.")
dashboards_app = typer.Typer(no_args_is_help=True, help="The dashboards as code, under superset/assets.")
app.add_typer(dashboards_app, name="dashboards")
sources_app = typer.Typer(no_args_is_help=True, help="The sources of a configuration.")
app.add_typer(sources_app, name="sources")
demo_app = typer.Typer(no_args_is_help=True, help="A demo lake, and everything running on it.")
app.add_typer(demo_app, name="demo")
kpi_app = typer.Typer(no_args_is_help=True, help="The KPI sheet.")
app.add_typer(kpi_app, name="kpi")
model_app = typer.Typer(no_args_is_help=True, help="What is predicted, and how well.")
app.add_typer(model_app, name="model")
digest_app = typer.Typer(no_args_is_help=True, help="The weekly digest of each CSM.")
app.add_typer(digest_app, name="digest")
crm_app = typer.Typer(no_args_is_help=True, help="The files of accounts and calls for a CRM.")
app.add_typer(crm_app, name="crm")
tokens_app = typer.Typer(no_args_is_help=True, help="The tokens of programs that read by `api` and `mcp`.")
app.add_typer(tokens_app, name="tokens")
mail_app = typer.Typer(no_args_is_help=True, help="The mail server of the configuration.")
app.add_typer(mail_app, name="mail")
notify_app = typer.Typer(no_args_is_help=True, help="Messages to chat and webhooks, and the outbox that they wait in.")
app.add_typer(notify_app, name="notify")
users_app = typer.Typer(no_args_is_help=True, help="The people who may log in to the dashboards.")
app.add_typer(users_app, name="users")
deliveries_app = typer.Typer(no_args_is_help=True, help="Deliveries of reference sources: in force, and held back.")
app.add_typer(deliveries_app, name="deliveries")
contacts_app = typer.Typer(no_args_is_help=True, help="People to call: how their personal data is kept.")
app.add_typer(contacts_app, name="contacts")
history_app = typer.Typer(no_args_is_help=True, help="What was published and is kept for good.")
app.add_typer(history_app, name="history")
outcomes_app = typer.Typer(no_args_is_help=True, help="What people recorded for rows of the call list.")
app.add_typer(outcomes_app, name="outcomes")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="sources.yaml to use; default: $USAGE_PIPELINE_CONFIG")
]
DEMO = Path(__file__).parents[1] / "data" / "demo"


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"usage-pipeline {version('usage-pipeline')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and leave")
    ] = False,
) -> None:
    keep_private()
    # said by Dagster of features that the lock pins; nothing a person at the command line can act on
    warnings.filterwarnings("ignore", message=".*currently in (beta|preview).*")


def say(message: str) -> None:
    typer.echo(message)


def fail(message: str) -> typer.Exit:
    typer.secho(message, fg=typer.colors.RED, err=True)
    return typer.Exit(1)


def settings_of(config: Path | None) -> Settings:
    try:
        return load_settings(config)
    except ConfigError as error:
        raise fail("\n".join(error.problems)) from error


@sources_app.command("check")
def sources_check(config: ConfigOption = None) -> None:
    """Read a configuration and say what it finds: weeks, files, rows, columns matched and ignored, every problem."""
    from usage_pipeline.ingestion.source_check import check_sources as check

    report = check(settings_of(config))
    for line in report.lines:
        say(line)
    for note in report.notes:
        typer.secho(f"note: {note}", fg=typer.colors.YELLOW)
    if report.problems:
        raise fail("\n".join(f"problem: {problem}" for problem in report.problems))
    say("no problem found")


@demo_app.command("lake")
def demo_lake(
    out: Annotated[Path, typer.Option(help="folder to write lake/, truth/ and sources.yaml into")] = DEMO,
    as_of: Annotated[str, typer.Option(help="day that the demo is seen from, YYYY-MM-DD; default: today")] = "",
    accounts: Annotated[int, typer.Option(min=10, help="number of accounts")] = 400,
    seed: Annotated[int, typer.Option(help="another seed, other accounts")] = 7,
    signs: Annotated[bool, typer.Option(help="whether usage tells of a coming cancellation")] = True,
) -> None:
    """Write a demo lake: 156 weeks of believable usage, and the truth about what was planted, beside it."""
    from usage_pipeline.demo.lake import write_demo_lake

    try:
        day = date.fromisoformat(as_of) if as_of else date.today()
    except ValueError as error:
        raise fail(f"--as-of {as_of}: {error}; write it as YYYY-MM-DD") from error
    write_demo_lake(out, day, accounts=accounts, seed=seed, with_signs=signs, progress=lambda line: say(f"  {line}"))
    say(f"lake, truth and {out / 'sources.yaml'} written")


@app.command()
def refresh(
    config: ConfigOption = None,
    if_changed: Annotated[bool, typer.Option("--if-changed", help="do nothing where nothing changed")] = False,
    full: Annotated[bool, typer.Option("--full", help="make every table from nothing")] = False,
) -> None:
    """Run the whole graph once through Dagster: what changed in the lake, what that touches, the build, the dashboards.

    A table is left as it is where nothing that it is made of changed. What is published stays up meanwhile.
    """
    from usage_pipeline.operations.local import LocalError
    from usage_pipeline.operations.local import refresh as run

    try:
        succeeded = run(settings_of(config), only_if_changed=if_changed and not full, full=full, say=say)
    except LocalError as error:
        raise fail(str(error)) from error
    if not succeeded:
        raise fail("the run failed; what was published before stays up. The log is above and in the Dagster UI")


@model_app.command("card")
def model_card(
    config: ConfigOption = None,
    out: Annotated[Path | None, typer.Option(help="file to write; default: print it")] = None,
) -> None:
    """What is predicted, by which method, and the back-test behind it, as Markdown."""
    from usage_pipeline.predictions.model_card import model_card as card_of

    settings = settings_of(config)
    try:
        text = card_of(settings.home, settings.name)
    except FileNotFoundError as error:
        raise fail(str(error)) from error
    if out:
        out.write_text(text, encoding="utf-8")
        say(f"{out} written")
    else:
        typer.echo(text)


@app.command()
def explain(
    account: Annotated[str, typer.Argument(help="id or name of the account")],
    application: Annotated[str, typer.Argument(help="key or name of the application")],
    week: Annotated[
        str, typer.Argument(help="any day of the week, YYYY-MM-DD; default: the newest complete week")
    ] = "",
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="everything that is known, for programs")] = False,
) -> None:
    """What stands behind a number: raw rows, subscription, page, expectation, anomalies, state, risk, and the build."""
    from usage_pipeline.core.locks import LockTimeoutError
    from usage_pipeline.core.names import UnclearNameError
    from usage_pipeline.observability.explain import ExplainError
    from usage_pipeline.observability.explain import explain as explained
    from usage_pipeline.observability.explain_text import as_text
    from usage_pipeline.resources import warehouse_of

    settings = settings_of(config)
    if not settings.home.warehouse_path.exists():
        raise fail(f"{settings.home.warehouse_path}: no such file; run `usage-pipeline refresh` first")
    try:
        day = date.fromisoformat(week) if week else None
    except ValueError as error:
        raise fail(f"{week} is no day: write it as YYYY-MM-DD") from error
    try:
        with warehouse_of(settings.home, settings.ingest.wait_seconds).read() as connection:
            found = explained(connection, settings, account, application, day)
    except (ExplainError, UnclearNameError, LockTimeoutError) as error:
        raise fail(str(error)) from error
    if as_json:
        typer.echo(json.dumps(found.as_json(), default=str, indent=1))
        return
    for line in as_text(found):
        typer.echo(line)


@kpi_app.command("export")
def kpi_export(
    config: ConfigOption = None,
    aggregation: Annotated[
        str, typer.Option(help="month, 3 months, 6 months, 12 months, year to date or week")
    ] = "month",
    month: Annotated[str, typer.Option(help="YYYY-MM (of a week, any day of it); default: the newest complete")] = "",
    entity_type: Annotated[list[str] | None, typer.Option(help="such as account or segment; may be repeated")] = None,
    entity_group: Annotated[list[str] | None, typer.Option(help="group of the configuration; may be repeated")] = None,
    entity: Annotated[list[str] | None, typer.Option(help="name of the entity; may be repeated")] = None,
    kpi_group: Annotated[list[str] | None, typer.Option(help="such as Usage; may be repeated")] = None,
    kpi: Annotated[list[str] | None, typer.Option(help="title of the KPI; may be repeated")] = None,
    out: Annotated[Path, typer.Option(help="the workbook to write")] = Path("kpi-sheet.xlsx"),
    charts: Annotated[Path | None, typer.Option(help="folder for a PNG of each KPI's months")] = None,
) -> None:
    """The KPI sheet to take away: a workbook of what is picked, and pictures; default: everything, the newest month."""
    from usage_pipeline.kpis.selection import Selection, SelectionError, read_selection
    from usage_pipeline.kpis.workbook import write_charts, write_workbook
    from usage_pipeline.publishing.builds import store_of

    settings = settings_of(config)
    store = store_of(settings.home, settings.publish)
    current = store.current()
    if current is None:
        raise fail(f"{store.folder}: there is no build yet; run `usage-pipeline refresh` first")
    try:
        day = date.fromisoformat(f"{month}-01" if len(month) == 7 else month) if month else None
    except ValueError as error:
        raise fail(f"{month} is no month: write it as YYYY-MM") from error
    picked = {
        "entity_type": entity_type,
        "entity_group": entity_group,
        "entity": entity,
        "kpi_group": kpi_group,
        "kpi": kpi,
    }
    selection = Selection(aggregation, day, **{name: tuple(values or ()) for name, values in picked.items()})
    try:
        sheet = read_selection(store.path(current.build_id), selection)
    except SelectionError as error:
        raise fail(str(error)) from error
    write_workbook(sheet, out)
    say(f"{out} written: {len(sheet.rows):,} figures, {aggregation} to {sheet.reference}, build {sheet.build_id}")
    if charts:
        write_charts(sheet, charts, say)


@digest_app.command("preview")
def digest_preview(
    csm: Annotated[str, typer.Option(help="customer success manager, as the call list names them")],
    out: Annotated[Path, typer.Option(help="folder to write text, HTML, workbook and mail into")] = Path("digest"),
    config: ConfigOption = None,
) -> None:
    """Write what a CSM would be sent this week, and send nothing."""
    from usage_pipeline.notifications.digest import DigestError, preview

    settings = settings_of(config)
    try:
        for file in preview(settings.home, settings.clock.as_of_day, settings.mail, settings.name, csm, out):
            say(f"{file} written")
    except DigestError as error:
        raise fail(str(error)) from error


@crm_app.command("preview")
def crm_preview(
    out: Annotated[Path, typer.Option(help="folder to write the files into")] = Path("crm-files"),
    config: ConfigOption = None,
) -> None:
    """Write the CRM files of the current build into a folder, and deliver nothing."""
    from usage_pipeline.crm.files import CrmFileError, preview

    settings = settings_of(config)
    try:
        made = preview(settings, out)
        for file in made.files:
            say(f"{file} written")
        since = f"since build {made.base}, the last that was delivered" if made.base else "as nothing was delivered yet"
        for kind, rows in made.rows.items():
            say(f"{kind}: {rows:,} rows, {made.changed[kind]:,} of them new or changed {since}")
    except CrmFileError as error:
        raise fail(str(error)) from error


HomeOption = Annotated[
    Path | None, typer.Option("--home", help="the data home itself, where its configuration is not at hand")
]


def _home_of(config: Path | None, home: Path | None) -> DataHome:
    if home is None:
        return settings_of(config).home
    if not home.is_dir():
        raise fail(f"--home {home}: there is no such folder; name the `home` of sources.yaml")
    return DataHome(home.resolve())


@app.command()
def api(
    config: ConfigOption = None,
    home: HomeOption = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on")] = 8090,
    per_minute: Annotated[int, typer.Option(min=1, help="requests of each token in a minute")] = 600,
    behind_https: Annotated[bool, typer.Option("--behind-https", help="a proxy with HTTPS stands in front")] = False,
) -> None:
    """Serve the read API to programs with a token, and tools to agents at /mcp; /openapi.json describes it."""
    if host not in ("127.0.0.1", "::1", "localhost") and not behind_https:
        raise fail(
            f"on {host} tokens would travel readable: put a proxy with HTTPS in front and add --behind-https, or leave "
            "--host out"
        )
    import uvicorn

    from usage_pipeline.serving.web import make_api

    read = _home_of(config, home)
    say(f"reading {read.published_dir}; described at http://{host}:{port}/openapi.json")
    uvicorn.run(make_api(read, per_minute), host=host, port=port, access_log=False, log_config=_api_log("stdout"))


def _api_log(stream: str) -> dict[str, Any]:
    line = {"format": "%(asctime)s %(levelname)s %(message)s"}
    to = {"class": "logging.StreamHandler", "formatter": "line", "stream": f"ext://sys.{stream}"}
    loggers = {
        name: {"handlers": ["out"], "level": "INFO", "propagate": False} for name in ("usage_pipeline", "uvicorn")
    }
    return {"version": 1, "formatters": {"line": line}, "handlers": {"out": to}, "loggers": loggers}


@app.command()
def mcp(
    config: ConfigOption = None,
    home: HomeOption = None,
    per_minute: Annotated[int, typer.Option(min=1, help="calls in a minute")] = 600,
) -> None:
    """Serve tools to an agent on this machine, over its input and output; the token is in $USAGE_API_TOKEN."""
    import logging.config

    from usage_pipeline.serving.agents import program_of_process, serve_input_and_output
    from usage_pipeline.serving.published import Published
    from usage_pipeline.serving.tokens import TOKEN_VARIABLE, TokenError, TokenStore

    read = _home_of(config, home)
    who = program_of_process(TokenStore(read.api_dir), os.environ.get(TOKEN_VARIABLE, ""), per_minute)
    try:
        who(None)
    except TokenError as error:
        raise fail(str(error)) from error
    # what it prints is the agent's
    logging.config.dictConfig(_api_log("stderr"))
    serve_input_and_output(Published(read), who)


@tokens_app.command("add")
def tokens_add(
    name: str,
    config: ConfigOption = None,
    contacts: Annotated[bool, typer.Option("--contacts", help="it may read contacts, which are personal data")] = False,
    csm: Annotated[list[str] | None, typer.Option(help="only accounts of this CSM; may be repeated")] = None,
    region: Annotated[list[str] | None, typer.Option(help="only accounts of this region; may be repeated")] = None,
    segment: Annotated[list[str] | None, typer.Option(help="only accounts of this segment; may be repeated")] = None,
) -> None:
    """Make a token for a program, and show it this once."""
    from usage_pipeline.serving.published import NotServedError, Published
    from usage_pipeline.serving.reads import limits_of_no_account
    from usage_pipeline.serving.tokens import TokenError, TokenStore

    limits = {"owner": csm or [], "region": region or [], "segment": segment or []}
    try:
        home = settings_of(config).home
        secret = TokenStore(home.api_dir).add(name, ["contacts"] if contacts else [], limits)
    except TokenError as error:
        raise fail(str(error)) from error
    typer.echo(secret)
    typer.echo("It is shown this once: keep it as you keep passwords.", err=True)
    # before the first build every value is as good as another
    with suppress(NotServedError):
        for line in limits_of_no_account(Published(home), limits) if any(limits.values()) else ():
            typer.secho(f"warning: {line} (`usage-pipeline tokens revoke {name}`, and add it anew)", err=True)


@tokens_app.command("list")
def tokens_list(config: ConfigOption = None) -> None:
    """List the tokens: names, scopes, limits, when they were made; none can be read again."""
    from usage_pipeline.serving.access import LIMITS
    from usage_pipeline.serving.tokens import TokenError, TokenStore

    try:
        found = TokenStore(settings_of(config).home.api_dir).tokens()
    except TokenError as error:
        raise fail(str(error)) from error
    for token in found:
        limits = "; ".join(f"{LIMITS[column]}: {', '.join(values)}" for column, values in token.limits.items())
        say(f"{token.name:24} {', '.join(token.scopes):16} {limits or 'all accounts'}; made {token.made_at}")
    if not found:
        say("no token was made yet: `usage-pipeline tokens add NAME`")


@tokens_app.command("revoke")
def tokens_revoke(name: str, config: ConfigOption = None) -> None:
    """Take a token away: its next request is refused."""
    from usage_pipeline.serving.tokens import TokenError, TokenStore

    try:
        TokenStore(settings_of(config).home.api_dir).revoke(name)
    except TokenError as error:
        raise fail(str(error)) from error
    say(f"{name} has no token any more")


@mail_app.command("test")
def mail_test(
    address: Annotated[str, typer.Argument(help="who gets the mail")],
    config: ConfigOption = None,
) -> None:
    """Send a mail that says it is a test, or say what is wrong with the mail server or its settings."""
    from usage_pipeline.notifications.mailer import DeliveryError, message, send

    settings = settings_of(config)
    mail = settings.mail
    if mail.host is None:
        remedy = "name the mail server in the configuration (docs/how-to/mail-and-digests.md)"
        raise fail(f"mail.host is not set, or USAGE_DISABLE_NOTIFICATIONS is: {remedy}")
    text = f"This is a test of {settings.name}. Digests and alerts come from this address, in the same way.\n"
    try:
        send(mail, message(mail, address, f"{settings.name}: a test", text))
    except DeliveryError as error:
        raise fail(str(error)) from error
    say(f"{mail.host}, port {mail.port_in_use} ({mail.security}), has taken a mail for {address}")


@notify_app.command("test")
def notify_test(
    address: Annotated[
        str, typer.Argument(help="environment variable that holds the address, as notify names it; default: all")
    ] = "",
    config: ConfigOption = None,
) -> None:
    """Send a message that says it is a test to chat and webhooks, or say what is wrong with an address."""
    from usage_pipeline.notifications.messages import send_test
    from usage_pipeline.notifications.outbox import NotTakenError

    settings = settings_of(config)
    known = settings.notify.addresses
    if not known:
        remedy = "name an address in the configuration (docs/how-to/chat-and-webhooks.md)"
        raise fail(f"notify names no address, or USAGE_DISABLE_NOTIFICATIONS is set: {remedy}")
    if address and address not in known:
        raise fail(f"notify does not name {address}: it is one of {', '.join(known)}")
    problems = []
    for variable in [address] if address else known:
        try:
            send_test(settings.notify, settings.name, variable)
            say(f"{variable} has taken a test")
        except NotTakenError as error:
            problems.append(str(error))
    if problems:
        raise fail("\n".join(problems))


@notify_app.command("outbox")
def notify_outbox(config: ConfigOption = None) -> None:
    """List the messages that wait to be tried again, and those that were given up, with the reason."""
    from usage_pipeline.core.locks import LockTimeoutError
    from usage_pipeline.notifications.outbox import opened

    path = settings_of(config).home.outbox_path
    if not path.exists():
        say("nothing was ever to be sent")
        return
    try:
        with opened(path) as outbox:
            found = outbox.entries("waiting", "sending", "failed")
    except LockTimeoutError as error:
        raise fail(str(error)) from error
    for entry in found:
        say(f"{entry.state:8} {entry.key}, {entry.attempts} attempts{': ' + entry.said if entry.said else ''}")
    if not found:
        say("nothing waits, and nothing was given up")


@notify_app.command("send")
def notify_send(
    config: ConfigOption = None,
    again: Annotated[bool, typer.Option("--again", help="what was given up too, from its first attempt on")] = False,
) -> None:
    """Send the messages that are due, as the sensor `outbox` does every minute; for schedulers outside of Dagster."""
    from usage_pipeline.core.locks import LockTimeoutError
    from usage_pipeline.notifications.messages import send_waiting, utc_now
    from usage_pipeline.notifications.outbox import opened

    settings = settings_of(config)
    try:
        if again and settings.home.outbox_path.exists():
            with opened(settings.home.outbox_path) as outbox:
                say(f"{outbox.retry(utc_now())} that were given up wait again")
        say(f"{send_waiting(settings, say)} sent")
    except LockTimeoutError as error:
        raise fail(str(error)) from error


@app.command()
def erase(
    account: Annotated[str, typer.Argument(help="id or name of the account")],
    user_id: Annotated[str, typer.Argument(help="id of the person in the account")],
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say where the person stands")] = False,
) -> None:
    """Erase a person for good from everything that the pipeline keeps; what they did stays counted, under no name."""
    from usage_pipeline.core.locks import LockTimeoutError
    from usage_pipeline.core.names import UnclearNameError
    from usage_pipeline.operations.erase import EraseError
    from usage_pipeline.operations.erase import erase as erased

    settings = settings_of(config)
    try:
        done = erased(settings, account, user_id, dry=dry_run, progress=lambda line: say(f"  {line}"))
    except (EraseError, UnclearNameError, LockTimeoutError) as error:
        raise fail(str(error)) from error
    for line in done.as_text(dry=dry_run):
        say(line)


@app.command()
def builds(config: ConfigOption = None) -> None:
    """List the builds that are kept, and which one pages read."""
    from usage_pipeline.publishing.builds import store_of

    settings = settings_of(config)
    store = store_of(settings.home, settings.publish)
    current, pinned = store.current(), store.pinned
    if store.pin_problem:
        typer.secho(store.pin_problem, fg=typer.colors.YELLOW, err=True)
    for build in store.builds():
        marks = ["shown"] * (current is not None and build.build_id == current.build_id)
        marks += ["pinned"] * (build.build_id == pinned)
        say(f"{build.build_id}  data through the week of {build.newest_week}  {', '.join(marks)}")


@app.command()
def rollback(
    build_id: Annotated[str | None, typer.Argument(help="build to show; default: the one before")] = None,
    release: Annotated[bool, typer.Option("--release", help="end the rollback: show the newest build")] = False,
    config: ConfigOption = None,
) -> None:
    """Show an older build, and hold it until released."""
    import duckdb

    from usage_pipeline.core.locks import LockTimeoutError
    from usage_pipeline.operations.local import record_status
    from usage_pipeline.publishing.builds import PublishError, store_of
    from usage_pipeline.publishing.history import history_locked, promote

    settings = settings_of(config)
    store = store_of(settings.home, settings.publish)
    try:
        build = store.release() if release else store.rollback(build_id)
    except PublishError as error:
        raise fail(str(error)) from error
    except OSError as error:
        raise fail(f"{store.folder} cannot be written to, and nothing was changed: {error}") from error
    if release:
        with (
            suppress(LockTimeoutError),
            history_locked(settings.home, seconds=10),
        ):  # if a run is at it, the next refresh does it
            promote(settings.home)
    try:
        record_status(settings, say)
    except (OSError, duckdb.Error, LockTimeoutError) as error:
        # whoever rolls back is in need: what was asked for is done
        say(f"data status and outcomes are not renewed yet, the next refresh does it: {error}")
    say(f"{build.build_id if build else 'nothing'} is shown" + ("" if release else ", until `rollback --release`"))


class Steps:
    """Says each step with the seconds since the first, and what happens inside it further to the right."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def step(self, title: str) -> None:
        say(f"[{time.monotonic() - self.started:4.0f} s] {title}")

    def inner(self, line: str) -> None:
        say(f"         {line}")


def bring_up(config: Path, steps: Steps, *, with_demo_accounts: bool) -> None:
    """Refreshes, sets Superset up, starts the servers, and prints where they are, and a demo's accounts."""
    from usage_pipeline.operations import local

    settings = settings_of(config)
    folder = settings.home.root / "run"
    if with_demo_accounts:
        local.demo_accounts(folder)
    try:
        servers = local.services(settings.home, config.absolute(), folder)
        for server in servers.values():
            if not local.running(folder, server.name):
                local.check_port(server)
        steps.step("materialising every asset through Dagster")
        if not local.refresh(settings, only_if_changed=True, say=steps.inner):
            raise fail("the run failed; its log is above")
        steps.step("setting up Superset")
        local.set_up_superset(settings.home, folder, only_if_changed=True, say=steps.inner)
        steps.step("starting the servers")
        local.start(servers.values(), folder, steps.inner)
    except local.LocalError as error:
        raise fail(str(error)) from error
    steps.step("ready")
    say("")
    say(f"  Dashboards (Superset)  {servers[local.SUPERSET_SERVER].address}/dashboard/list/")
    for account in local.demo_accounts(folder) if with_demo_accounts else []:
        say(f"      {account['username']:8} {account['password']:14} {account['role']}")
    say(f"  Pipeline (Dagster)     {servers[local.WEBSERVER].address}")


@demo_app.command("start")
def demo_start(
    accounts: Annotated[int, typer.Option(min=10, help="number of accounts of the demo lake")] = 400,
    seed: Annotated[int, typer.Option(help="another seed, other accounts")] = 7,
) -> None:
    """Everything on this machine: demo lake, pipeline, dashboards, servers."""
    from usage_pipeline.demo.lake import write_demo_lake

    steps, config = Steps(), DEMO / "sources.yaml"
    if config.exists():
        steps.step(f"the demo lake is there already ({DEMO}); `make clean-demo` removes it")
    else:
        steps.step(f"writing a demo lake: {accounts} accounts, 156 weeks")
        write_demo_lake(DEMO, date.today(), accounts=accounts, seed=seed, progress=steps.inner)
    bring_up(config, steps, with_demo_accounts=True)
    say("  To stop all            make stop")


@demo_app.command("advance")
def demo_advance(
    late: Annotated[bool, typer.Option(help="its week-end arrives in the folder of the next week")] = False,
    broken: Annotated[bool, typer.Option(help="a second file of it is cut off")] = False,
    changed: Annotated[bool, typer.Option(help="the week four weeks before is delivered again")] = False,
) -> None:
    """Let a week go by in the demo, and watch the pipeline work."""
    from usage_pipeline.demo.lake import add_week
    from usage_pipeline.operations import local

    config = DEMO / "sources.yaml"
    if not config.exists():
        raise fail("there is no demo yet: run `make demo` first")
    for line in add_week(DEMO, late=late, broken=broken, changed=changed):
        say(line)
    settings = settings_of(config)
    folder = settings.home.root / "run"
    servers = local.services(settings.home, config.absolute(), folder)
    if not local.running(folder, local.DAEMON):
        say("Dagster does not run: `make demo` starts it, and takes in the new week")
        return
    # partitions end with as_of, which is pinned in the demo: a code server reads it when it starts
    local.stop(folder, local.CODE, say)
    local.start([servers[local.CODE]], folder, say)
    address = servers[local.WEBSERVER].address
    say(f"the sensor looks every {settings.schedule.poll_interval_seconds} s:")
    say(f"  what it sees       {address}/locations/usage_pipeline/sensors/lake_week_sensor")
    say(f"  the run            {address}/runs")
    say(f"  files quarantined  {address}/assets/usage_facts?view=checks")


@app.command()
def up(config: ConfigOption = None) -> None:
    """The same on your own data: pipeline, dashboards, servers for a configuration."""
    path = config or Path(os.environ.get(CONFIG_VARIABLE, "sources.yaml"))
    bring_up(path, Steps(), with_demo_accounts=False)
    say(f"  First administrator    .venv/bin/usage-pipeline create-admin NAME -c {path}")
    say(f"  To stop all            make stop CONFIG={path}")


@app.command()
def doctor(
    config: ConfigOption = None,
    restart: Annotated[bool, typer.Option("--restart", help="start again what was started here and is down")] = False,
    alert: Annotated[bool, typer.Option("--alert", help="tell the data team, once when it begins and ends")] = False,
) -> None:
    """Whether everything is well: servers, data, checks, builds, disk, memory; fails where something is not."""
    from usage_pipeline.core.locks import LockTimeoutError
    from usage_pipeline.operations import doctor as doctors

    path = config or Path(os.environ.get(CONFIG_VARIABLE, "sources.yaml"))
    path = (path if path.exists() or config else DEMO / "sources.yaml").absolute()
    settings = settings_of(path)
    try:
        findings = doctors.restart(settings.home, path, say) if restart else []
    except LockTimeoutError as error:
        raise fail("another `doctor --restart` is at it: let it end") from error
    findings += doctors.examine(settings, path, datetime.now().astimezone())
    colours = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "failed": typer.colors.RED}
    for finding in findings:
        typer.secho(str(finding), fg=colours[finding.level])
    if alert:
        now = datetime.now().astimezone()
        doctors.tell(settings.home, settings.mail, settings.notify, settings.name, findings, now, say)
    failed = sum(finding.level == "failed" for finding in findings)
    if failed:
        raise fail(f"{failed} of {len(findings)} failed")


@app.command()
def metrics(
    config: ConfigOption = None,
    write: Annotated[bool, typer.Option("--write", help="write the file of metrics.file, as after a run")] = False,
) -> None:
    """Print metrics for Prometheus: freshness, runs, rows, rejected and quarantined, mails (docs/how-to/metrics.md)."""
    from usage_pipeline.operations.metrics import MetricsError, metrics_text, write_metrics

    settings = settings_of(config)
    if write and not settings.metrics.enabled:
        raise fail("metrics are not enabled: add metrics: {enabled: true} to the configuration")
    try:
        said = f"{write_metrics(settings)} written" if write else metrics_text(settings).decode().rstrip()
    except MetricsError as error:
        raise fail(str(error)) from error
    say(said)


@app.command()
def backup(
    out: Annotated[str, typer.Argument(help="tar file to write; - for standard output")],
    config: ConfigOption = None,
) -> None:
    """Pack the data home into one file, while nothing writes to it. It holds personal data: keep it as such."""
    from usage_pipeline.core.locks import LockTimeoutError
    from usage_pipeline.operations import local
    from usage_pipeline.operations.backup import back_up

    settings = settings_of(config)
    if any(local.running(settings.home.root / "run", name) for name in local.SERVERS):
        raise fail("servers run on this home, whose databases must stand still: `make stop` first")
    if out != "-" and Path(out).exists():
        raise fail(f"{out} is there already: name another file, or remove it")

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    try:
        if out == "-":
            files = back_up(settings.home, settings.ingest.wait_seconds, sys.stdout.buffer, tell)
        else:
            with atomic_write(Path(out)) as tmp_path:
                descriptor = os.open(tmp_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE)
                with os.fdopen(descriptor, "wb") as stream:
                    files = back_up(settings.home, settings.ingest.wait_seconds, stream, tell)
    except LockTimeoutError as error:
        raise fail(str(error)) from error
    tell(f"{files:,} files of {settings.home.root} packed")


@app.command()
def restore(
    source: Annotated[str, typer.Argument(help="tar file of `backup`; - for standard input")],
    home: Annotated[Path, typer.Option(help="the empty data home to fill")],
) -> None:
    """Unpack a backup into an empty data home."""
    from usage_pipeline.operations.backup import BackupError
    from usage_pipeline.operations.backup import restore as restored

    try:
        if source == "-":
            files = restored(home, sys.stdin.buffer)
        else:
            with Path(source).open("rb") as stream:
                files = restored(home, stream)
    except (BackupError, OSError) as error:
        raise fail(str(error)) from error
    say(f"{files:,} files put into {home}")


@app.command()
def webserver(
    workspace: Annotated[Path, typer.Option(help="file that says where the code server is")],
    host: Annotated[str, typer.Option(help="address to listen at")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen at")] = 3000,
) -> None:
    """Serve Dagster's pages behind the guard; `demo`, `up` and the images start it (docs/how-to/https-and-proxy.md)."""
    from usage_pipeline.operations.dagster_guard import GuardError
    from usage_pipeline.operations.dagster_internals import InternalsError
    from usage_pipeline.operations.webserver import serve

    try:
        serve(workspace, host, port, os.environ)
    except (GuardError, InternalsError) as error:
        raise fail(str(error)) from error


@app.command()
def stop(config: ConfigOption = None) -> None:
    """End the servers that `demo` or `up` started for a configuration, and nothing else."""
    from usage_pipeline.operations import local

    path = config or DEMO / "sources.yaml"
    names: list[str] = []
    if path.exists():
        folder = settings_of(path).home.root / "run"
        names = [name for name in local.SERVERS if local.running(folder, name)]
        # one that has died is forgotten too, or a doctor would start it again
        for name in local.SERVERS:
            local.stop(folder, name, say)
    if not names:
        say("nothing of ours was running")


PASSWORD_VARIABLE = "USAGE_PASSWORD"  # noqa: S105 - the name of the variable that holds one


def password_of_person() -> str:
    """From the environment, else asked for twice, else the first line that is piped in; never an argument."""
    if PASSWORD_VARIABLE in os.environ:
        return os.environ[PASSWORD_VARIABLE]
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\n")


def run_in_superset(config: Path | None, module: str, *arguments: str, given: str = "") -> None:
    from usage_pipeline.operations import local

    home = settings_of(config).home
    try:
        local.run_in_superset(home, home.root / "run", module, list(arguments), say, given=given)
    except local.LocalError as error:
        raise fail(str(error)) from error


@app.command()
def briefs(
    accounts: Annotated[list[str] | None, typer.Argument(help="names of accounts")] = None,
    *,
    username: Annotated[str, typer.Option("--as", help="the person whose rights count, of `users list`")],
    out: Annotated[Path, typer.Option(help="folder to write to")],
    names: Annotated[Path | None, typer.Option("--list", help="file of names, one a line")] = None,
    csm: Annotated[str, typer.Option(help="all accounts of this CSM")] = "",
    contacts: Annotated[
        bool, typer.Option("--contacts", help="with contacts, where that person may read them")
    ] = False,
    no_pdf: Annotated[bool, typer.Option("--no-pdf", help="HTML alone; PDF needs Chromium")] = False,
    config: ConfigOption = None,
) -> None:
    """Write the account brief of each of these accounts, as HTML and PDF, for meetings with customers."""
    options = ["--as", username, "--out", str(out)]
    options += ["--list", str(names)] if names else []
    options += ["--csm", csm] if csm else []
    options += ["--contacts"] * contacts + ["--no-pdf"] * no_pdf
    run_in_superset(config, "briefs", *options, "--", *(accounts or []))


@app.command()
def create_admin(username: str, config: ConfigOption = None) -> None:
    """Add the first administrator. The password is asked for, or piped in, or taken from USAGE_PASSWORD."""
    run_in_superset(config, "users", "add", username, "Admin", given=password_of_person())


@users_app.command("add")
def users_add(
    username: str,
    role: Annotated[str, typer.Argument(help='such as "Usage viewer"; another one lists them')],
    config: ConfigOption = None,
) -> None:
    """Add a person, or give one who is there another role and password (asked for as by create-admin)."""
    run_in_superset(config, "users", "add", username, role, given=password_of_person())


@users_app.command("remove")
def users_remove(username: str, config: ConfigOption = None) -> None:
    """Shut a person out, at once; what they made stays."""
    run_in_superset(config, "users", "remove", username)


@users_app.command("list")
def users_list(config: ConfigOption = None) -> None:
    """List who may log in, and as what."""
    run_in_superset(config, "users", "list")


@deliveries_app.command("list")
def deliveries_list(config: ConfigOption = None) -> None:
    """Say of each reference source which delivery is in force, what is held back, and why."""
    from usage_pipeline.ingestion.deliveries import SOURCES, describe

    settings = settings_of(config)
    for source in SOURCES:
        for line in describe(settings.home.history_dir, settings.sources, source):
            say(line)


@deliveries_app.command("accept")
def deliveries_accept(
    source: Annotated[str, typer.Argument(help="reference source, such as subscriptions")], config: ConfigOption = None
) -> None:
    """Put the delivery that is held back in force: it is right as it is. The next refresh shows it."""
    from usage_pipeline.core.locks import LockTimeoutError
    from usage_pipeline.ingestion.deliveries import NoDeliveryError, accept
    from usage_pipeline.operations.local import forget_inputs, record_status
    from usage_pipeline.outcomes.database import OtherVersionError

    settings = settings_of(config)
    try:
        file = accept(settings.home, settings.sources, settings.ingest.wait_seconds, source, progress=say)
    except (NoDeliveryError, LockTimeoutError) as error:
        raise fail(str(error)) from error
    forget_inputs(settings.home.root)
    try:
        record_status(settings, say)
    except OtherVersionError as error:
        say(str(error))
    say(f"{file.name} is in force; `usage-pipeline refresh` brings it onto the pages, else the next run does")


@contacts_app.command("rekey")
def contacts_rekey(config: ConfigOption = None) -> None:
    """Encrypt everything of contacts below the home with USAGE_CONTACTS_KEY; not set: make it plain again.

    USAGE_CONTACTS_OLD_KEY is the key until now; not set where there was none.
    """
    from usage_pipeline.core.locks import LockTimeoutError
    from usage_pipeline.operations.rekey import rekey
    from usage_pipeline.privacy.encryption import ContactsKeyError, contacts_key

    settings = settings_of(config)
    try:
        changed = rekey(settings.home, settings.ingest.wait_seconds, progress=lambda line: say(f"  {line}"))
        state = "encrypted with USAGE_CONTACTS_KEY" if contacts_key() else "plain, as USAGE_CONTACTS_KEY is not set"
    except (ContactsKeyError, LockTimeoutError) as error:
        raise fail(f"{error}; what is changed already stays, and this can be run again") from error
    say(f"{changed} files rewritten; all files of contacts are {state}: start the servers with the same")


@outcomes_app.command("list")
def outcomes_list(config: ConfigOption = None) -> None:
    """List what was recorded, oldest first: when, who, which account, what, and which reasons were useful. No notes."""
    from usage_pipeline.outcomes.records import read_records

    settings = settings_of(config)
    found = read_records(settings.home.feedback_dir, settings.home.history_dir)
    for record in found:
        status = f"{record.status} until {record.snoozed_until}" if record.snoozed_until else record.status
        reached = {True: "reached", False: "not reached", None: "not tried"}[record.was_reached]
        useful = ", ".join(f"{u.call_reason}: {'useful' if u.is_useful else 'useless'}" for u in record.useful)
        say(
            f"{record.recorded_at:%Y-%m-%d %H:%M}  {record.recorded_by}  {record.account_id} {record.account}  "
            f"{status}, {reached}{'; ' if useful else ''}{useful}"
        )
    if not found:
        say("nothing was recorded yet")


@outcomes_app.command("verify")
def outcomes_verify(config: ConfigOption = None) -> None:
    """Say which records were changed or are missing."""
    from usage_pipeline.outcomes.records import problems, read_records

    home = settings_of(config).home
    found = problems(home.feedback_dir, home.history_dir)
    for problem in found:
        say(f"{problem.name} {problem.words}")
    if found:
        raise fail(f"{len(found)} findings in {home.feedback_dir} and its copies in history")
    say(f"{len(read_records(home.feedback_dir, home.history_dir)):,} records, none changed or missing")


@outcomes_app.command("export")
def outcomes_export(config: ConfigOption = None) -> None:
    """Write every record, notes too, as JSON: one a line, oldest first, for `usage bring-back-outcomes` of Superset."""
    from usage_pipeline.outcomes.records import exported

    settings = settings_of(config)
    for line in exported(settings.home.feedback_dir, settings.home.history_dir):
        say(line)


KindArgument = Annotated[str, typer.Argument(metavar="WHAT", help="anomalies, scores, months, health or calls")]
PeriodArgument = Annotated[
    str, typer.Argument(metavar="WEEK", help="any day of the week, YYYY-MM-DD; of months YYYY-MM")
]


@history_app.command("list")
def history_list(config: ConfigOption = None) -> None:
    """List what is kept for good: week or month, as of when, which build, rows; and what was withdrawn, and why."""
    from usage_pipeline.publishing.history import entries

    found = entries(settings_of(config).home.history_dir)
    for entry in found:
        as_of = f"{entry.issued_as_of:%Y-%m-%d %H:%M}" if entry.issued_as_of else "-"
        line = f"{entry.kind:9}  {entry.period:10}  as of {as_of}  build {entry.build_id or '-'}  {entry.rows:,} rows"
        if entry.is_withdrawn:
            line += f"  withdrawn {entry.withdrawn_at} by {entry.withdrawn_by}: {entry.reason}"
        say(line)
    if not found:
        say("nothing is kept yet: the first refresh that publishes keeps the newest complete week")


@history_app.command("show")
def history_show(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="a published table, such as call_list")],
    day: Annotated[str, typer.Argument(metavar="DAY", help="YYYY-MM-DD: as pages showed it on that day")],
    out: Annotated[Path | None, typer.Option(help="write all rows into this CSV file")] = None,
    config: ConfigOption = None,
) -> None:
    """Show a published table as it was on a day: of the last build that was shown by then."""
    from datetime import date

    import duckdb

    from usage_pipeline.core.sql import literal
    from usage_pipeline.publishing.kept_tables import KeptTableError, find_table

    try:
        file, build = find_table(settings_of(config).home.history_dir, table, date.fromisoformat(day))
    except KeptTableError as error:
        raise fail(str(error)) from error
    except ValueError as error:
        raise fail(f"'{day}' is not a day: write it as YYYY-MM-DD") from error
    rows = duckdb.sql(f"FROM read_parquet({literal(file)})")
    if out:
        rows.write_csv(str(out))
    else:
        say(str(rows.limit(50)))
    say(f"{table} of build {build}" + (f": {out}" if out else ""))


@history_app.command("withdraw")
def history_withdraw(
    kind: KindArgument,
    period: PeriodArgument,
    reason: Annotated[str, typer.Option(help="why it is wrong; stays beside the entry")] = "",
    config: ConfigOption = None,
) -> None:
    """Take an entry out of what pages and predictions read; it is kept with the reason, and can be restored."""
    from usage_pipeline.core.locks import LockTimeoutError
    from usage_pipeline.publishing.history import HistoryError, withdraw

    settings = settings_of(config)
    try:
        entry = withdraw(settings.home, settings.ingest.wait_seconds, kind, period, reason)
    except (HistoryError, LockTimeoutError) as error:
        raise fail(str(error)) from error
    say(f"{entry.kind} of {entry.period} withdrawn: {entry.file}")
    say("the next refresh leaves them out of the pages, and issues them anew where they are due still")


@history_app.command("restore")
def history_restore(kind: KindArgument, period: PeriodArgument, config: ConfigOption = None) -> None:
    """Put an entry that was withdrawn back."""
    from usage_pipeline.core.locks import LockTimeoutError
    from usage_pipeline.publishing.history import HistoryError, restore

    settings = settings_of(config)
    try:
        entry = restore(settings.home, settings.ingest.wait_seconds, kind, period)
    except (HistoryError, LockTimeoutError) as error:
        raise fail(str(error)) from error
    say(f"{entry.kind} of {entry.period} restored; the next refresh brings them back to the pages")


@dashboards_app.command("check")
def dashboards_check() -> None:
    """Check that every reference resolves, every column exists, and every file is in its normal form."""
    from usage_pipeline.pages.dashboards import ASSETS, AssetsError, load_assets, problems_of

    try:
        problems = problems_of()
    except AssetsError as error:
        raise fail(str(error)) from error
    if problems:
        raise fail("\n".join(problems))
    assets, _ = load_assets()
    counted = f"{len(assets.dashboards)} dashboards with {len(assets.charts)} charts"
    say(f"{ASSETS.parent.name}/{ASSETS.name}: {counted} are sound")


@dashboards_app.command("format")
def dashboards_format() -> None:
    """Write every file in its normal form, datasets with the columns of the catalogue."""
    from usage_pipeline.pages.dashboards import normalise

    for file in normalise():
        say(f"{file} rewritten")


if __name__ == "__main__":
    sys.exit(app())
