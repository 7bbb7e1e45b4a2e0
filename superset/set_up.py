"""Sets Superset up from code: metadata, assets, roles, accounts; then runs every chart once.

Runs in Superset's own environment, at deployment, never in the weekly graph: `python superset/set_up.py`. Running
it twice changes nothing. What it manages, it manages whole: assets of ours that the tree no longer has are deleted,
rights that a role should not have are taken away. Charts and dashboards that people made themselves stay.

Accounts come from USAGE_ACCOUNTS, a JSON file of [{"username", "password", "role"}], which is written by whoever
owns the installation; there is no default account.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from chart_queries import payload

ASSETS = Path(os.environ.get("USAGE_SUPERSET_ASSETS", Path(__file__).parent / "assets"))

# (permission, view): what anybody needs to look at dashboards, and nothing else; no explore, no SQL Lab
_LOOK = [
    ("can_read", "Dashboard"),
    ("can_read", "Chart"),
    ("can_read", "Dataset"),
    ("can_get", "Datasource"),
    ("can_dashboard", "Superset"),
    ("can_dashboard_permalink", "Superset"),
    ("can_read", "DashboardPermalinkRestApi"),
    ("can_write", "DashboardPermalinkRestApi"),
    ("can_read", "DashboardFilterStateRestApi"),
    ("can_write", "DashboardFilterStateRestApi"),
    ("can_time_range", "Api"),
    ("can_read", "CurrentUserRestApi"),
    ("can_read", "Theme"),
    ("can_csv", "Superset"),
    ("can_recent_activity", "Log"),
    ("menu_access", "Dashboards"),
    ("resetmypassword", "UserDBModelView"),
    ("can_this_form_get", "ResetMyPasswordView"),
    ("can_this_form_post", "ResetMyPasswordView"),
]
ROLES = {
    "Usage viewer": [
        *_LOOK,
        ("schema_access", "[Usage].[mart]"),
        ("schema_access", "[Usage status].[status]"),
    ],
    "Usage viewer with contacts": [
        *_LOOK,
        ("schema_access", "[Usage].[mart]"),
        ("schema_access", "[Usage status].[status]"),
        ("schema_access", "[Usage contacts].[personal]"),
    ],
}


def say(message: str) -> None:
    print(f"  superset: {message}", flush=True)


def main() -> int:
    started = time.perf_counter()
    from superset.app import create_app

    app = create_app()
    with app.app_context():
        migrate(app)
        with app.test_request_context():
            admin = sync_accounts_and_base_roles(app)
            if admin is None:
                print("superset: no account with the role Admin in USAGE_ACCOUNTS: add one", file=sys.stderr)
                return 2
            from superset.utils.core import override_user

            with override_user(admin):
                import_assets()
                prune_assets()
                sync_roles()
                failed = run_every_chart()
    say(f"set up in {time.perf_counter() - started:.0f} s")
    return 1 if failed else 0


def migrate(app: Any) -> None:
    """Brings the metadata database to this version; skipped where it is there already."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from flask_migrate import Migrate, upgrade
    from superset.extensions import db

    folder = str(Path(__import__("superset").__file__).parent / "migrations")
    Migrate(app, db, directory=folder)
    with db.engine.connect() as connection:
        at = MigrationContext.configure(connection).get_current_revision()
    if at == ScriptDirectory(folder).get_current_head():
        say("metadata is up to date")
        return
    say("creating the metadata database" if at is None else "migrating the metadata database")
    upgrade(directory=folder)


def sync_accounts_and_base_roles(app: Any) -> Any:
    """Superset's own permissions and roles, then the accounts; returns an administrator to act as."""
    from superset import appbuilder, security_manager

    version = __import__("importlib.metadata").metadata.version("apache-superset")
    mark = Path(app.config["SQLALCHEMY_DATABASE_URI"].removeprefix("sqlite:///").split("?")[0]).with_suffix(".roles")
    if not mark.exists() or mark.read_text() != version:
        say("writing permissions and roles")
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        if mark.parent.is_dir():
            mark.write_text(version)
    for name in ROLES:
        security_manager.add_role(name)
    admin = None
    for account in json.loads(Path(os.environ["USAGE_ACCOUNTS"]).read_text(encoding="utf-8")):
        user = security_manager.find_user(account["username"])
        role = security_manager.find_role(account["role"])
        if user is None:
            user = security_manager.add_user(
                account["username"],
                account["username"].capitalize(),
                "",
                f"{account['username']}@usage.invalid",
                role,
                account["password"],
            )
            say(f"account {account['username']} made")
        if account["role"] == "Admin":
            admin = user
    return admin


def _contents() -> dict[str, str]:
    """The tree as Superset's importer takes it, with a number for each chart of a layout."""
    contents = {"metadata.yaml": yaml.safe_dump({"version": "1.0.0", "type": "assets"})}
    for file in sorted(ASSETS.rglob("*.yaml")):
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
        # the importer maps old numbers to new ones; files of ours hold none, so any will do
        cells = [c for c in loaded.get("position", {}).values() if isinstance(c, dict) and c.get("type") == "CHART"]
        for number, cell in enumerate(cells, 1):
            cell["meta"]["chartId"] = number
        contents[str(file.relative_to(ASSETS))] = yaml.safe_dump(loaded, sort_keys=False)
    return contents


def import_assets() -> None:
    from superset.commands.importers.v1.assets import ImportAssetsCommand

    contents = _contents()
    ImportAssetsCommand(contents).run()
    say(f"{len(contents) - 1} assets imported")


def prune_assets() -> None:
    """Deletes what was imported from the tree once and is no longer in it."""
    from superset.connectors.sqla.models import SqlaTable
    from superset.extensions import db
    from superset.models.core import Database
    from superset.models.dashboard import Dashboard
    from superset.models.slice import Slice

    wanted = {str(yaml.safe_load(f.read_text(encoding="utf-8"))["uuid"]) for f in ASSETS.rglob("*.yaml")}
    for model in (Dashboard, Slice, SqlaTable, Database):
        for item in db.session.query(model).filter_by(is_managed_externally=True).all():
            if str(item.uuid) not in wanted:
                say(f"deleting {item}, which the tree no longer has")
                db.session.delete(item)
    db.session.commit()


def sync_roles() -> None:
    """Gives each role exactly its rights: what is missing is added, what is more is taken away."""
    from superset.extensions import db

    from superset import security_manager

    for name, rights in ROLES.items():
        role = security_manager.find_role(name)
        wanted = []
        for permission, view in rights:
            if permission == "schema_access":
                found = security_manager.add_permission_view_menu(permission, view)
            else:
                found = security_manager.find_permission_view_menu(permission, view)
            if found is not None:
                wanted.append(found)
        if {p.id for p in role.permissions} != {p.id for p in wanted}:
            role.permissions = wanted
            say(f"role {name}: {len(wanted)} rights")
    db.session.commit()


def run_every_chart() -> int:
    """Asks for every chart's data once; returns how many failed, each said with its reason."""
    from superset.charts.schemas import ChartDataQueryContextSchema
    from superset.commands.chart.data.get_data_command import ChartDataCommand
    from superset.extensions import db
    from superset.models.slice import Slice

    failed, slowest, charts = 0, (0.0, ""), 0
    for chart in db.session.query(Slice).filter_by(is_managed_externally=True).all():
        charts += 1
        started = time.perf_counter()
        try:
            body = payload(json.loads(chart.params), chart.datasource_id)
            command = ChartDataCommand(ChartDataQueryContextSchema().load(body))
            command.validate()
            errors = [query["error"] for query in command.run()["queries"] if query.get("error")]
        except Exception as error:  # any failure is that chart's failure, and the next one is still run
            errors = [str(error)]
        slowest = max(slowest, (time.perf_counter() - started, chart.slice_name))
        if errors:
            failed += 1
            print(f"superset: chart '{chart.slice_name}' fails: {errors[0]}", file=sys.stderr, flush=True)
    say(f"{charts - failed} of {charts} charts answer; slowest: {slowest[1]}, {slowest[0]:.2f} s")
    return failed


if __name__ == "__main__":
    sys.exit(main())
