"""Sets Superset up from code: metadata, assets, roles, accounts; then runs every chart once.

Runs in Superset's own environment, at deployment, never in the weekly graph: `python -m usage_superset.bootstrap`.
Running it twice changes nothing. What it manages, it manages whole: assets of ours that the tree no longer has are
deleted, rights that a role should not have are taken away. Charts and dashboards that people made themselves stay.

Rights stand in `roles.yaml`, and in the file of further roles that USAGE_ROLES names. People are added by `users.py`
and in Superset itself; USAGE_ACCOUNTS, a JSON file of [{"username", "password", "role"}], adds those of a demo. There
is no default account: set-up acts as one that nobody can log in to, which owns what it imports.
"""

import inspect
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from usage_superset.build_cache import shown_now
from usage_superset.cache_warmup import ACCOUNT as WARMING
from usage_superset.chart_queries import errors_of, payload
from usage_superset.display import DATE_FORMAT, date_format
from usage_superset.outcome_form import RIGHT as RECORD_OUTCOMES
from usage_superset.roles import MARK, RolesError, roles
from usage_superset.texts import filled
from usage_superset.words import asset_in_words

ASSETS = Path(os.environ.get("USAGE_SUPERSET_ASSETS", Path(__file__).parents[1] / "assets"))

SET_UP_NAME = "usage-set-up"
# rights on views of ours, which Superset does not know by itself
_OURS = {RECORD_OUTCOMES, MARK}


def say(message: str) -> None:
    print(f"  superset: {message}", flush=True)


def main() -> int:
    os.umask(0o077)
    started = time.perf_counter()
    try:
        roles()
    except RolesError as error:
        print(f"superset: {error}", file=sys.stderr)
        return 2
    from superset.app import create_app

    app = create_app()
    with app.app_context():
        migrate(app)
        with app.test_request_context():
            write_base_roles(app)
            from superset.utils.core import override_user

            with override_user(set_up_account()):
                assets = read_assets()
                import_assets(assets)
                prune_assets(assets)
                store_requests()
                sync_roles()
                sync_warming_account()
                failed, charts = run_every_chart() if is_published() else (0, 0)
            add_accounts()
    say(f"set up in {time.perf_counter() - started:.0f} s")
    if 0 < failed < charts and app.config["IS_PRODUCTION"]:
        # pages with a chart out of order are better than none; the build may be of an earlier version
        say("where a chart is newer than the build, it works after the next refresh")
        return 0
    return 1 if failed else 0


def migrate(app: Any) -> None:
    """Brings the metadata database to this version; skipped where it is there already."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from flask_migrate import Migrate, upgrade
    from superset.app import create_app
    from superset.extensions import db

    folder = str(Path(inspect.getfile(create_app)).parent / "migrations")
    Migrate(app, db, directory=folder)
    with db.engine.connect() as connection:
        at = MigrationContext.configure(connection).get_current_revision()
    if at == ScriptDirectory(folder).get_current_head():
        say("metadata is up to date")
        return
    say("creating the metadata database" if at is None else "migrating the metadata database")
    upgrade(directory=folder)


def write_base_roles(app: Any) -> None:
    """Superset's own permissions and roles, and the names of ours; what each may do is said by `sync_roles`."""
    from superset import appbuilder, security_manager

    version = __import__("importlib.metadata").metadata.version("apache-superset")
    mark = Path(app.config["SQLALCHEMY_DATABASE_URI"].removeprefix("sqlite:///").split("?")[0]).with_suffix(".roles")
    if not mark.exists() or mark.read_text() != version:
        say("writing permissions and roles")
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        if mark.parent.is_dir():
            mark.write_text(version)
    for name in roles():
        security_manager.add_role(name)


def set_up_account() -> Any:
    """The account that set-up acts as: an administrator that is not active, with a password that nobody knows."""
    from superset import security_manager

    user = security_manager.find_user(SET_UP_NAME)
    if user is None:
        admin = security_manager.find_role("Admin")
        unknown = secrets.token_urlsafe(48)
        user = security_manager.add_user(SET_UP_NAME, "Usage", "set-up", f"{SET_UP_NAME}@usage.invalid", admin, unknown)
    if user.is_active:
        user.active = False
        security_manager.update_user(user)
    return user


def add_accounts() -> None:
    """Those of USAGE_ACCOUNTS that are not there yet."""
    from superset import security_manager

    file = os.environ.get("USAGE_ACCOUNTS")
    for account in json.loads(Path(file).read_text(encoding="utf-8")) if file else []:
        name = account["username"]
        if security_manager.find_user(name) is None:
            role = security_manager.find_role(account["role"])
            security_manager.add_user(name, name.capitalize(), "", f"{name}@usage.invalid", role, account["password"])
            say(f"account {name} made")


def read_assets() -> dict[str, Any]:
    """The tree with its texts, by the path of each file in it."""
    files = sorted(ASSETS.rglob("*.yaml"))
    # the fast loader; what is loaded is the same as by safe_load
    return {
        str(f.relative_to(ASSETS)): asset_in_words(filled(yaml.load(f.read_text(encoding="utf-8"), yaml.CSafeLoader)))
        for f in files
    }


def _contents(assets: dict[str, Any]) -> dict[str, str]:
    """The tree as Superset's importer takes it, with a number for each chart of a layout."""
    contents = {"metadata.yaml": yaml.safe_dump({"version": "1.0.0", "type": "assets"})}
    for path, loaded in assets.items():
        # the importer maps old numbers to new ones; files of ours hold none, so any will do
        cells = [c for c in loaded.get("position", {}).values() if isinstance(c, dict) and c.get("type") == "CHART"]
        for number, cell in enumerate(cells, 1):
            cell["meta"]["chartId"] = number
        written = yaml.dump(loaded, Dumper=yaml.CSafeDumper, sort_keys=False)
        contents[path] = written.replace(DATE_FORMAT, date_format())
    return contents


def import_assets(assets: dict[str, Any]) -> None:
    from superset.commands.importers.v1.assets import ImportAssetsCommand

    contents = _contents(assets)
    ImportAssetsCommand(contents).run()
    say(f"{len(contents) - 1} assets imported")


def prune_assets(assets: dict[str, Any]) -> None:
    """Deletes what was imported from the tree once and is no longer in it."""
    from superset.connectors.sqla.models import SqlaTable
    from superset.extensions import db
    from superset.models.core import Database
    from superset.models.dashboard import Dashboard
    from superset.models.slice import Slice

    wanted = {str(loaded["uuid"]) for loaded in assets.values()}
    for model in (Dashboard, Slice, SqlaTable, Database):
        for item in db.session.query(model).filter_by(is_managed_externally=True).all():
            if str(item.uuid) not in wanted:
                say(f"deleting {item}, which the tree no longer has")
                db.session.delete(item)
    db.session.commit()


def store_requests() -> None:
    """Writes beside each chart what a page asks for it: Superset answers for a chart by its number by that alone, to
    programs, agents and reports.
    """
    from superset.extensions import db
    from superset.models.slice import Slice

    for chart in db.session.query(Slice).filter_by(is_managed_externally=True).all():
        asked = payload(json.loads(chart.params), chart.datasource_id, force=False, as_rows=False)
        chart.query_context = json.dumps(asked)
    db.session.commit()


def sync_roles() -> None:
    """Gives each role exactly its rights: what is missing is added, what is more is taken away.

    A limited role that the files no longer have keeps no right: without its limit it would open everything.
    """
    from superset.extensions import db

    from superset import security_manager

    written = roles()
    for role in security_manager.get_all_roles():
        marks = [(p.permission.name, p.view_menu.name) for p in role.permissions]
        if role.name not in written and MARK in marks:
            role.permissions = []
            say(f"role {role.name} is in no file any more: its rights are taken away")
    unknown = []
    for name, rights in written.items():
        role = security_manager.find_role(name)
        wanted = []
        for permission, view in sorted(rights):
            if permission == "schema_access" or (permission, view) in _OURS:
                found = security_manager.add_permission_view_menu(permission, view)
            else:
                found = security_manager.find_permission_view_menu(permission, view)
            if found is None:
                unknown.append(f"[{permission}, {view}] of {name}")
            wanted.append(found)
        if not unknown and {p.id for p in role.permissions} != {p.id for p in wanted}:
            role.permissions = wanted
            say(f"role {name}: {len(wanted)} rights")
    if unknown:
        raise SystemExit(f"superset: Superset knows none of these rights of roles.yaml: {', '.join(unknown)}")
    db.session.commit()


def sync_warming_account() -> None:
    """The account that warms the cache, which nobody can log in to."""
    from superset.extensions import db

    from superset import security_manager

    role = security_manager.find_role("Usage service")
    user = security_manager.find_user(WARMING) or security_manager.add_user(
        WARMING, WARMING.capitalize(), "", f"{WARMING}@usage.invalid", role, secrets.token_urlsafe(48)
    )
    user.active, user.roles = False, [role]
    db.session.commit()


def is_published() -> bool:
    """Whether there is a build that charts could be run on; a deployment is set up before its first refresh."""
    if os.path.isdir(shown_now()):
        return True
    say("no build is published yet: charts are not run")
    return False


def run_every_chart() -> tuple[int, int]:
    """Asks for every chart's data once; returns how many failed, each said with its reason, and how many there are."""
    from superset.extensions import db
    from superset.models.slice import Slice

    failed, slowest, charts = 0, (0.0, ""), 0
    for chart in db.session.query(Slice).filter_by(is_managed_externally=True).all():
        charts += 1
        started = time.perf_counter()
        try:
            errors = errors_of(payload(json.loads(chart.params), chart.datasource_id))
        except Exception as error:  # any failure is that chart's failure, and the next one is still run
            errors = [str(error)]
        slowest = max(slowest, (time.perf_counter() - started, chart.slice_name))
        if errors:
            failed += 1
            print(f"superset: chart '{chart.slice_name}' fails: {errors[0]}", file=sys.stderr, flush=True)
    say(f"{charts - failed} of {charts} charts answer; slowest: {slowest[1]}, {slowest[0]:.2f} s")
    return failed, charts


if __name__ == "__main__":
    sys.exit(main())
