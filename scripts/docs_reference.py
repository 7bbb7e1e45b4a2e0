"""The references of the documentation, made from the code: `make docs-reference` writes them, `make check` compares.

Belongs here: reading what the code declares, and writing it as Markdown below docs/reference, with the index of
docs/decisions. Does not: prose; a meaning that is missing is added to the code (a description, a docstring).

What is made has no date, no path of a machine and no order of chance: a second run gives the same files.
"""

import ast
import contextlib
import io
import os
import re
import sys
import types
import typing
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo

REPO = Path(__file__).parents[1]
DOCS = REPO / "docs"
VARIABLES = Path(__file__).with_name("environment_variables.yaml")
CHECK_CONFIG = REPO / "examples" / "company.yaml"
MADE = "<!-- Made from the code by `make docs-reference`: change the code, not this page. -->\n"
CODE = ("usage_pipeline", "superset", "deploy", "scripts", "examples", "usage_pipeline_tests")


class DescriptionError(Exception):
    """Something of the code has no description; the message names it and the remedy."""


def cell(text: Any) -> str:
    """Text of a cell of a table, on one line."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join(lines + [f"| {' | '.join(cell(value) for value in row)} |" for row in rows]) + "\n"


def sentence(text: str) -> str:
    """With a capital first letter and a full stop."""
    text = " ".join(text.split())
    is_name = re.match(r"\w+[._/]\w", text)
    return (text if is_name else text[:1].upper() + text[1:]) + ("" if text.endswith((".", ":")) else ".")


# --- sources.yaml ---------------------------------------------------------------------------------------------------


def type_name(annotation: Any) -> str:
    """A type as a reader of YAML knows it."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(inside[0])
    if origin is Literal:
        return ", ".join(map(str, inside))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_name(one) for one in inside if one is not type(None)))
    if origin is list:
        return f"list of {type_name(inside[0])}"
    if origin is dict:
        return f"mapping of {type_name(inside[1])}"
    if is_a_value(annotation):
        return type_name(annotation.model_fields["root"].annotation)
    known = {"str": "text", "SecretStr": "text", "int": "whole number", "float": "number", "bool": "true or false"}
    known |= {"date": "day", "datetime": "day or moment", "Path": "path", "Expression": "{sql: expression}"}
    name = getattr(annotation, "__name__", str(annotation))
    return known.get(name, name)


def is_a_value(annotation: Any) -> bool:
    """Whether a model is written as one value, without keys."""
    return isinstance(annotation, type) and issubclass(annotation, RootModel)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type is made of: those with keys of their own."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [] if is_a_value(annotation) else [annotation]
    return [model for one in typing.get_args(annotation) for model in models_in(one)]


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default_factory() if field.default_factory in (list, dict) else field.default  # type: ignore[call-arg,misc]
    if field.default_factory not in (None, list, dict):
        return "of the machine"
    if value in (None, [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def settings_sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Each section of sources.yaml with its model, in the order of the file; the six sources are one."""
    from usage_pipeline.config.settings import Expression, Source, Sources

    yield path, model
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            where = f"{path}.{name}" if path else name
            if inner is Sources:
                yield from settings_sections(Source, "sources.<source>")
            elif inner is not Expression:
                yield from settings_sections(inner, f"{where}.<name>" if name == "files" else where)


def settings_page() -> str:
    from usage_pipeline.config.settings import Expression, Settings
    from usage_pipeline.config.source_schemas import SOURCE_SCHEMAS

    parts = ["# sources.yaml\n", MADE]
    parts.append(
        "One YAML file is the whole configuration: where the data lies, how its columns map onto ours, and the "
        "settings of a run. `usage-pipeline sources check -c sources.yaml` checks it, and names every mistake with its "
        "remedy.\n\n"
        "- Relative paths are relative to the file.\n"
        "- `${NAME}` and `${NAME:-default}` are taken from the environment, so that no secret stands in the file.\n"
        "- A key that is not listed here is refused.\n"
    )
    for path, model in settings_sections(Settings, ""):
        parts.append(f"## {f'`{path}`' if path else 'Top level'}\n")
        parts.append(f"{sentence(model.__doc__ or '')}\n")
        rows = []
        for name, field in model.model_fields.items():
            inner = [m for m in models_in(field.annotation) if m is not Expression]
            if inner and not field.description:
                rows.append([f"`{name}`", "section", "", sentence(inner[0].__doc__ or "")])
                continue
            if not field.description:
                raise DescriptionError(f"settings.py: {path}.{name} has no description: give its Field one")
            if name == "as_of_is_pinned":
                continue
            several = typing.get_origin(field.annotation) is list
            kind = "list of sections" if inner and several else "section" if inner else type_name(field.annotation)
            default = "" if inner else default_of(field)
            rows.append([f"`{name}`", kind, "now" if name == "as_of" else default, sentence(field.description)])
        parts.append(table(["key", "type", "default", "meaning"], rows))
    parts.append("## Columns of each source\n")
    parts.append("Required columns are bold. What a source does not deliver is shown as not delivered, never as 0.\n")
    for schema in SOURCE_SCHEMAS.values():
        parts.append(f"### {schema.name}\n")
        parts.append(f"Grain: {schema.grain}.\n")
        rows = [[f"**{c.name}**" if c.required else c.name, c.type, sentence(c.description)] for c in schema.columns]
        parts.append(table(["column", "type", "meaning"], rows))
    return "\n".join(parts)


# --- commands -------------------------------------------------------------------------------------------------------


def commands_of(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(full name, command) of every command that does something, by name."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, child in sorted(inner.items()):
        yield from commands_of(child, f"{path} {name}")


def parameter_row(parameter: Any) -> list[str]:
    is_option = parameter.param_type_name == "option"
    name = ", ".join(f"`{one}`" for one in parameter.opts) if is_option else f"`{parameter_name(parameter)}`"
    default = parameter.default
    if isinstance(default, Path) and default.is_absolute():
        default = default.relative_to(REPO)
    shown = "required" if parameter.required else "" if default in (None, False, "") else f"`{default}`"
    return [name, shown, sentence(parameter.help or "")]


def parameter_name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def usage_line(name: str, command: Any) -> str:
    words = [name]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            word = parameter_name(parameter)
            words.append(word if parameter.required else f"[{word}]")
    return " ".join([*words, "[OPTIONS]"] if len(words) <= len(command.params) else words)


def commands_page() -> str:
    import typer.main

    from usage_pipeline.cli import app

    commands = list(commands_of(typer.main.get_command(app), "usage-pipeline"))
    parts = ["# Commands\n", MADE]
    parts.append(
        "In a checkout the command is `.venv/bin/usage-pipeline`; in a deployment `docker compose exec code usage`, "
        "without `-c`. `usage-pipeline --version` prints the version. `make` alone lists the commands of the "
        "Makefile.\n"
    )
    parts.append(
        table(
            ["command", "what it does"],
            [
                [f"[`{name}`](#{name.replace(' ', '-')})", sentence((c.help or "").split("\n\n")[0])]
                for name, c in commands
            ],
        )
    )
    for name, command in commands:
        parts.append(f"## {name}\n")
        parts.append(f"{' '.join((command.help or '').split())}\n")
        parts.append(f"```\n{usage_line(name, command)}\n```\n")
        rows = [parameter_row(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            parts.append(table(["argument or option", "default", "meaning"], rows))
    return "\n".join(parts)


# --- environment ----------------------------------------------------------------------------------------------------


def names_read(file: Path) -> set[str]:
    """Names of environment variables that a file reads."""
    if file.suffix == ".py" and "usage_pipeline_tests" in file.parts:
        # what tests set for others is no variable of theirs
        return set(re.findall(r"environ(?:\.get\(|\[)\"(USAGE_\w+)\"", file.read_text(encoding="utf-8")))
    if file.suffix == ".py":
        strings = (node.value for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.Constant))
        return {text for text in strings if isinstance(text, str) and re.fullmatch(r"USAGE_[A-Z0-9_]*[A-Z0-9]", text)}
    if file.name == "docker-compose.yml":
        return set(re.findall(r"(?<!\$)\$\{([A-Z][A-Z0-9_]*)", file.read_text(encoding="utf-8"))) - {"NAME"}
    if file.suffix in (".sh", ".yaml", ".yml") or file.name in ("Makefile", "Dockerfile"):
        return set(re.findall(r"\$\{?(USAGE_[A-Z0-9_]*[A-Z0-9])", file.read_text(encoding="utf-8")))
    return set()


def all_names_read() -> dict[str, str]:
    """Name of each variable that is read, and a file that reads it."""
    files = [REPO / "docker-compose.yml", REPO / "Makefile"]
    files += [file for folder in CODE for file in sorted((REPO / folder).rglob("*")) if file.is_file()]
    return {name: str(file.relative_to(REPO)) for file in reversed(files) for name in names_read(file)}


def environment_page() -> str:
    content = yaml.safe_load(VARIABLES.read_text(encoding="utf-8"))
    described = {name for section in content["sections"] for name in section["variables"]}
    read = all_names_read()
    missing = {name: file for name, file in read.items() if name not in described | content["others"].keys()}
    if missing:
        named = "; ".join(f"{name} ({file})" for name, file in sorted(missing.items()))
        raise DescriptionError(f"read and not described: {named}: add a line to scripts/{VARIABLES.name}")
    unread = sorted(name for name in described - read.keys() if name.startswith("USAGE_"))
    if unread:
        raise DescriptionError(f"described and not read: {', '.join(unread)}: remove it from scripts/{VARIABLES.name}")
    parts = ["# Environment variables\n", MADE]
    parts.append("`sources.yaml` may take further names of your own as `${NAME}`.\n")
    for section in content["sections"]:
        parts.append(f"## {section['title']}\n")
        parts.append(f"{section['about']}\n")
        rows = [
            [
                f"`{name}`",
                entry["default"] if entry["default"] in ("", "required") else f"`{entry['default']}`",
                sentence(entry["meaning"]),
            ]
            for name, entry in section["variables"].items()
        ]
        parts.append(table(["variable", "default", "meaning"], rows))
    return "\n".join(parts)


# --- assets and checks ----------------------------------------------------------------------------------------------

GROUPS = (
    "ingestion",
    "usage",
    "activity",
    "anomalies",
    "predictions",
    "people",
    "health",
    "outreach",
    "revenue",
    "kpis",
    "publish",
    "notifications",
)


def on_one_line(text: str) -> str:
    """A docstring as one line, each paragraph a sentence; its grain named as everywhere."""
    parts = [sentence(part) for part in re.split(r"\n\s*\n", text.strip())]
    return re.sub(r"One row: (one row )?", "Grain: ", " ".join(parts))


def assets_page() -> str:
    warnings.simplefilter("ignore")
    from usage_pipeline.config.settings import load_settings
    from usage_pipeline.definitions import build_definitions

    definitions = build_definitions(load_settings(CHECK_CONFIG))
    graph = definitions.resolve_asset_graph()
    specs = sorted(definitions.resolve_all_asset_specs(), key=lambda spec: spec.key.to_user_string())
    by_group: dict[str, list[Any]] = defaultdict(list)
    for spec in specs:
        if spec.key in graph.materializable_asset_keys:
            by_group[spec.group_name or "default"].append(spec)
    order = [*(group for group in GROUPS if group in by_group), *sorted(by_group.keys() - set(GROUPS))]
    parts = ["# Assets and checks\n", MADE]
    parts.append(
        "What Dagster shows: each asset with its group, each check with the asset it is about. A blocking check that "
        "fails stops the run before anything is published.\n"
    )
    for group in order:
        parts.append(f"## Group {group}\n")
        rows = []
        for spec in by_group[group]:
            if not spec.description:
                raise DescriptionError(f"the asset {spec.key.to_user_string()} has no description: give it a docstring")
            rows.append([f"`{spec.key.to_user_string()}`", on_one_line(spec.description)])
        parts.append(table(["asset", "what it is"], rows))
    parts.append("## Checks\n")
    rows = []
    for key in sorted(graph.asset_check_keys, key=lambda key: (key.asset_key.to_user_string(), key.name)):
        check = graph.get_check_spec(key)
        if not check.description:
            raise DescriptionError(f"the check {key.name} has no description: give it a docstring")
        blocks = "yes" if check.blocking else ""
        rows.append([f"`{key.asset_key.to_user_string()}`", f"`{key.name}`", blocks, on_one_line(check.description)])
    parts.append(table(["asset", "check", "blocking", "statement"], rows))
    parts.append("## Schedules, sensors and jobs\n")
    rows = [[f"`{one.name}`", "schedule", schedule_text(one)] for one in definitions.schedules or []]
    rows += [[f"`{one.name}`", "sensor", one.description or ""] for one in definitions.sensors or []]
    rows += [[f"`{one.name}`", "job", one.description or ""] for one in definitions.jobs or []]
    parts.append(table(["name", "kind", "what it does"], sorted(rows, key=lambda row: (row[1], row[0]))))
    return "\n".join(parts)


def schedule_text(schedule: Any) -> str:
    return f"{schedule.description or ''} (`{schedule.cron_schedule}`)"


# --- tables and columns ---------------------------------------------------------------------------------------------

SCHEMAS = {
    "mart": "What the dashboards read, in `warehouse.duckdb` of a build",
    "personal": "People to call, in `contacts.duckdb` of a build: a file of its own, for those who may see contacts",
    "outcomes": "What became of calls, in `usage_outcomes.duckdb`: made anew within seconds of an outcome",
    "responses": "How CSMs answer, in the same file, for whoever leads them",
    "status": "How the data is, in `usage_status.duckdb`: written anew after every run, failed ones too",
}
AGGREGATION = {"additive": "additive", "semi_additive": "semi-additive", "non_additive": "non-additive", None: ""}


def tables_page() -> str:
    from usage_pipeline.core.tables import METRICS, TABLES

    parts = ["# Tables and columns\n", MADE]
    parts.append(
        "Every published table: its grain, its key and its columns. **Additive** figures may be summed over anything; "
        "**semi-additive** ones over accounts and applications, never over time; **non-additive** ones never.\n"
    )
    for schema, about in SCHEMAS.items():
        parts.append(f"## Schema {schema}\n")
        parts.append(f"{about}.\n")
        for one in TABLES.values():
            if one.schema != schema:
                continue
            parts.append(f"### {one.full_name}\n")
            key = ", ".join(f"`{name}`" for name in one.key)
            parts.append(f"Grain: {one.row}. Key: {key}.\n")
            parts.append(
                table(["column", "type", "title", "meaning", "aggregation"], [column_row(c) for c in one.columns])
            )
            if metrics := METRICS.get(one.name):
                parts.append("Metrics:\n")
                rows = [[f"`{m.name}`", m.title, m.description, AGGREGATION[m.aggregation]] for m in metrics.values()]
                parts.append(table(["metric", "title", "meaning", "aggregation"], rows))
    return "\n".join(parts)


def column_row(column: Any) -> list[str]:
    words = "; ".join(f"*{word}*: {text}" for word, text in column.words.items())
    meaning = f"{sentence(column.description)} {words}".strip()
    return [f"`{column.name}`", column.type, column.title, meaning, AGGREGATION[column.aggregation]]


# --- KPIs and roles -------------------------------------------------------------------------------------------------


def kpi_meaning(kpi: Any) -> str:
    good = {"up": "Up is good", "down": "Down is good", "neither": "Neither is good"}[kpi.good]
    big = f"A big change: {kpi.big_change.share:.0%} and {kpi.big_change.floor:g}"
    needs = f" Needs {' and '.join(kpi.needs)}." if kpi.needs else ""
    return f"{sentence(kpi.description)} {good}. {big}.{needs}"


def kpis_page() -> str:
    from usage_pipeline.kpis.catalogue import read_kpis

    parts = ["# KPIs\n", MADE]
    parts.append(
        "The figures of the KPI sheet, from `usage_pipeline/kpis/kpis.yaml`. A big change is at least "
        "the share and the difference that are named, against the same period a year ago.\n"
    )
    by_group: dict[str, list[Any]] = defaultdict(list)
    for kpi in read_kpis().kpis:
        by_group[kpi.group].append(kpi)
    for group, kpis in by_group.items():
        parts.append(f"## {group}\n")
        rows = [
            [f"**{kpi.title}**<br>`{kpi.name}`", kpi.unit, AGGREGATION[kpi.aggregation], kpi_meaning(kpi)]
            for kpi in kpis
        ]
        parts.append(table(["KPI", "unit", "aggregation", "meaning"], rows))
    return "\n".join(parts)


def roles_page() -> str:
    roles = yaml.safe_load((REPO / "superset" / "roles.yaml").read_text(encoding="utf-8"))
    parts = ["# Roles\n", MADE]
    parts.append(
        "Rights of each role in Superset, from `superset/roles.yaml`: set-up gives a role exactly these, and takes any "
        "other away. Superset's own role Admin is not listed: it has every right, contacts too. What the roles are "
        "for: [who may see what](../explanation/access.md).\n"
    )
    for name, role in roles.items():
        parts.append(f"## {name}\n")
        if includes := role.get("includes"):
            parts.append(f"All rights of {', '.join(includes)}, and:\n")
        by_view: dict[str, list[str]] = defaultdict(list)
        for permission, view in role.get("rights", []):
            by_view[view].append(f"`{permission}`")
        rows = [[view, ", ".join(sorted(permissions))] for view, permissions in sorted(by_view.items())]
        parts.append(table(["on", "may"], rows))
    return "\n".join(parts)


# --- decisions ------------------------------------------------------------------------------------------------------


def decisions_page() -> str:
    files = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    twice = [number for number, count in Counter(file.name[:4] for file in files).items() if count > 1]
    if twice:
        raise DescriptionError(f"docs/decisions: {', '.join(twice)} is taken twice: give one the next free number")
    rows = []
    for file in files:
        title = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        rows.append([file.name[:4], f"[{re.sub(r'^[0-9]{4} ', '', title)}]({file.name})"])
    return "\n".join(
        [
            "# Decisions\n",
            MADE,
            "Why things are as they are, one page each. Older pages use the words of their time.\n",
            table(["number", "decision"], rows),
        ]
    )


PAGES: dict[str, Callable[[], str]] = {
    "reference/sources-yaml.md": settings_page,
    "reference/commands.md": commands_page,
    "reference/environment.md": environment_page,
    "reference/assets.md": assets_page,
    "reference/tables.md": tables_page,
    "reference/kpis.md": kpis_page,
    "reference/roles.md": roles_page,
    "decisions/index.md": decisions_page,
}


def pages() -> dict[Path, str]:
    """Each page with its text. Raises DescriptionError with what has no description."""
    with contextlib.redirect_stderr(io.StringIO()):
        return {DOCS / name: make().rstrip() + "\n" for name, make in PAGES.items()}


def main() -> int:
    os.environ.setdefault("USAGE_PIPELINE_CONFIG", str(CHECK_CONFIG))
    only_check = "--check" in sys.argv
    try:
        made = pages()
    except DescriptionError as error:
        print(error)
        return 1
    stale = [file for file, text in made.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    names = ", ".join(str(file.relative_to(REPO)) for file in stale)
    if only_check:
        print(
            f"{names}: not as the code says; run `make docs-reference`" if stale else "references are as the code says"
        )
        return bool(stale)
    for file in stale:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(made[file], encoding="utf-8")
    print(f"{names} written" if stale else "nothing to write: references are as the code says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
