"""The catalogue of texts is whole: `make check` fails on an id that no text has, a text that nothing uses, a language
that lacks a text or its values, a file out of its normal form, and a sentence that stands in a page or mail itself.

`--write` brings the files into their normal form. Dashboards are checked by `usage-pipeline dashboards check`.
"""

import ast
import re
import string
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import sqlglot
import sqlglot.expressions
import yaml

from usage_pipeline.core.tables import COLUMNS, METRICS
from usage_pipeline.core.texts import ENGLISH, ID, TEXTS, read_texts, slug
from usage_pipeline.kpis.catalogue import KPIS, text_ids

REPO = Path(__file__).parents[1]
CODE = ("usage_pipeline", "superset/usage_superset")
# files that write to people: a sentence in them belongs into the catalogue
TOLD_BY = (
    *("usage_pipeline/notifications/digest.py", "usage_pipeline/notifications/messages.py"),
    *("usage_pipeline/kpis/workbook.py", "superset/usage_superset/account_brief.py"),
    *("superset/usage_superset/downloads.py", "superset/usage_superset/exports.py"),
    *("superset/usage_superset/outcome_form.py", "superset/usage_superset/page_links.py"),
    "superset/usage_superset/usage_report.py",
)
_CALLS = {"text", "counted", "section", "_html"}
_IN_TEMPLATES = re.compile(r"""\btext\(\s*"([^"]+)"\s*(~)?(?:[^()"~]|\([^)]*\))*(?:~\s*"([^"]+)")?""")
_IN_SQL = re.compile(r"\$text__([a-z_]+)")
_COUNTED_IN_TEMPLATES = re.compile(r"""\bcounted\("(\w+)"\)""")
_FILLED_IN = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_TAGS = re.compile(r"<style.*?</style>|<[^>]*>|&\w+;", re.DOTALL)
_ATTRIBUTES = re.compile(r'\b(?:aria-label|title|alt|placeholder)="([^"]*)"')
_SENTENCE = re.compile(r"[A-Za-z]{2,},? [a-z]{2,}")
_SQL = re.compile(r"\s*SELECT\s")
# what speaks to whoever runs it: logs and the command line
_TO_OPERATORS = {"why_not", "why_not_now", "tell_of_build", "_remembered", "say"}
# values of columns, the name of a role, and what libraries are told
_CODES = {
    *("This week", "new this week", "active subscription", "notice received", "No filter"),
    "primary contact",
    *("Usage viewer with contacts", "d mmm yyyy", "mmm yyyy", "mmm d, yyyy", "upper left"),
}


def normal(file: Path) -> str:
    """A file of texts with its first lines, sorted."""
    content = file.read_text(encoding="utf-8")
    head = content[: content.index("\n\n") + 2] if content.startswith("#") else ""
    tree = yaml.load(content, Loader=yaml.CSafeLoader)
    return head + yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=True, allow_unicode=True, width=118)


def values_of(text: str) -> set[str]:
    """The names in braces."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@cache
def used() -> tuple[tuple[str, str], ...]:
    """(where, pattern) of every id that something names; `*` stands for what is known only when it runs."""
    return tuple(dict.fromkeys(_used()))


def _used() -> Iterator[tuple[str, str]]:
    for column in COLUMNS.values():
        yield from (("catalogue.yaml", f"{column.text_id}.{part}") for part in ("title", "description"))
        yield from (("catalogue.yaml", f"{column.text_id}.word.{slug(word)}") for word in column.words)
    for metric in (metric for metrics in METRICS.values() for metric in metrics.values()):
        yield from (("catalogue.yaml", f"{metric.text_id}.{part}") for part in ("title", "description"))
        yield from (("catalogue.yaml", f"{metric.text_id}.word.{slug(word)}") for word in metric.words)
    for name, kpi in yaml.load(KPIS.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["kpis"].items():
        yield from (("kpis.yaml", key) for key in text_ids(name, kpi["unit"], kpi["group"]).values())
    # words of values are looked up by column and code; formats by both environments
    yield from (("texts.py", pattern) for pattern in ("value.*", "format.*"))
    for file in sorted((REPO / "superset").rglob("*")):
        if file.suffix in (".yaml", ".css", ".js"):
            yield from ((_where(file), name) for name in ID.findall(file.read_text(encoding="utf-8")))
    for file in (file for folder in CODE for file in sorted((REPO / folder).rglob("*"))):
        if file.suffix == ".py":
            yield from ((_where(file), name) for name in _in_code(ast.parse(file.read_text(encoding="utf-8"))))
        elif file.suffix == ".sql":
            names = _IN_SQL.findall(file.read_text(encoding="utf-8"))
            yield from ((_where(file), name.replace("__", ".")) for name in names)
        elif "templates" in file.parts and file.is_file():
            content = file.read_text(encoding="utf-8")
            for name, is_more, rest in _IN_TEMPLATES.findall(content):
                yield _where(file), f"{name}*{rest}" if is_more else name
            yield from ((_where(file), f"count.{name}.*") for name in _COUNTED_IN_TEMPLATES.findall(content))


def _in_code(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ID.findall(node.value)
        elif isinstance(node, ast.JoinedStr) and (found := re.fullmatch(r"\{(\w+\..*)\}", _pattern(node))):
            yield found[1]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS and node.args:
            # SQLAlchemy has a function of that name too
            for name in filter(re.compile(r"[a-z_]+(\.[\w*]+)*").fullmatch, _names(node.args[0])):
                yield f"{name}.*" if node.func.id in ("counted", "section") else name


def _names(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield _pattern(node)
    elif isinstance(node, ast.IfExp):
        yield from _names(node.body)
        yield from _names(node.orelse)


def _pattern(node: ast.JoinedStr) -> str:
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)


def literals() -> Iterator[tuple[str, str]]:
    """(where, text) of what pages and mails say without the catalogue."""
    for file in (file for folder in CODE for file in sorted((REPO / folder).rglob("templates/*")) if file.is_file()):
        content = _FILLED_IN.sub("", file.read_text(encoding="utf-8"))
        plain = [*_TAGS.split(content), *_ATTRIBUTES.findall(content)]
        yield from ((_where(file), part.strip()) for part in plain if re.search(r"[A-Za-z]{2,}", part))
    for name in TOLD_BY:
        tree = ast.parse((REPO / name).read_text(encoding="utf-8"))
        yield from ((f"{name}:{line}", text) for line, text in _said_in(tree))


def _said_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Sentences of a module: not its docstrings, errors, SQL and what operators read."""
    for node in ast.iter_child_nodes(tree):
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        name = node.name if isinstance(node, ast.FunctionDef) else called
        if isinstance(node, ast.Raise) or is_docstring or name in _TO_OPERATORS:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_told(node.value):
            yield node.lineno, node.value
        yield from _said_in(node)


def _is_told(text: str) -> bool:
    return bool(_SENTENCE.search(text)) and not _SQL.match(text) and text not in _CODES


def values_in_sql() -> Iterator[str]:
    """Sentences of SQL that are given more or fewer values than the text names."""
    ours = read_texts(TEXTS / f"{ENGLISH}.yaml")
    for file in sorted((REPO / "usage_pipeline").rglob("*.sql")):
        content = re.sub(r"\$text__([a-z_]+)", r"'text \1'", file.read_text(encoding="utf-8"))
        if "'text " not in content:
            continue
        content = re.sub(r"\$\w+", "NULL", content)
        statement, filled_in = sqlglot.parse_one(content, dialect="duckdb"), set()
        for call in statement.find_all(sqlglot.exp.Format):
            for name in _texts_of(call.this):
                filled_in.add(name)
                wanted, given = len(values_of(ours.get(name, ""))), len(call.expressions)
                if name in ours and wanted != given:
                    yield f"{_where(file)}: {name} is given {given} values, and the text names {wanted}"
        for name in _texts_of(statement):
            if name not in filled_in and values_of(ours.get(name, "")):
                yield f"{_where(file)}: {name} is given no values, and the text names some; use format"


def _texts_of(node: sqlglot.exp.Expr) -> Iterator[str]:
    for literal in node.find_all(sqlglot.exp.Literal):
        if literal.is_string and literal.name.startswith("text "):
            yield literal.name.removeprefix("text ").replace("__", ".")


def problems() -> Iterator[str]:
    ours = read_texts(TEXTS / f"{ENGLISH}.yaml")
    named = set()
    for where, pattern in used():
        found = {pattern} & ours.keys()
        if "*" in pattern:
            as_regex = re.compile(re.escape(pattern).replace(r"\*", ".+" if pattern == "value.*" else r"[\w.]+"))
            found = {key for key in ours if as_regex.fullmatch(key)}
        if not found:
            yield f"{where}: there is no text {pattern}; add it to usage_pipeline/texts/{ENGLISH}.yaml"
        named |= found
    yield from values_in_sql()
    empty = {f"empty.{file.stem}" for file in (REPO / "superset/assets/charts").glob("*.yaml")}
    yield from (f"{ENGLISH}.yaml: {key}: nothing uses it; delete it" for key in sorted(ours.keys() - named - empty))
    for file in sorted(TEXTS.glob("*.yaml")):
        yield from _problems_of_language(file, ours)
    yield from (
        f"{where}: holds the text {text[:60]!r}; put it into usage_pipeline/texts" for where, text in literals()
    )


def _problems_of_language(file: Path, ours: dict[str, str]) -> Iterator[str]:
    theirs = read_texts(file)
    yield from (f"{file.name}: {key}: is missing; translate it" for key in sorted(ours.keys() - theirs.keys()))
    yield from (f"{file.name}: {key}: is no text of {ENGLISH}.yaml" for key in sorted(theirs.keys() - ours.keys()))
    for key in sorted(ours.keys() & theirs.keys()):
        if values_of(ours[key]) != values_of(theirs[key]):
            yield f"{file.name}: {key}: has the values {values_of(theirs[key])}, not {values_of(ours[key])}"
        if "<" in theirs[key] and key.partition(".")[0] not in ("column", "metric", "chart"):
            yield f"{file.name}: {key}: holds markup; pages show texts as they are"
        # they stand between quotation marks in a style sheet or script, or in a table of Markdown
        quoted = key.startswith(("empty.", "script.")) or key.endswith(".title")
        if quoted and re.search(r'["\\]', theirs[key]):
            yield f"{file.name}: {key}: holds a quotation mark or backslash; use “ ”"
        if key.startswith(("column.", "metric.", "kpi", "help.")) and re.search(r"[|\n]", theirs[key]):
            yield f"{file.name}: {key}: holds | or ends a line, which a table of the help tab cannot hold"
    yield from _problems_of_words(file.name, theirs)
    if normal(file) != file.read_text(encoding="utf-8"):
        yield f"{file.name}: not in the normal form; run `make format`"


def _problems_of_words(file: str, theirs: dict[str, str]) -> Iterator[str]:
    """Values of a column that a filter could not tell apart, and codes that nobody reads as a word."""
    words: dict[tuple[str, str], str] = {}
    for key, word in theirs.items():
        if key.startswith("value."):
            _, column, code = key.split(".", 2)
            other = words.setdefault((column, word), code)
            if other != code:
                yield f"{file}: value.{column}: {other!r} and {code!r} are both {word!r}; say how they differ"
            if column in COLUMNS and COLUMNS[column].words and "," in word and "," not in code:
                yield f"{file}: {key}: holds a comma, which stands between words of a list; use another"
    for name, entry in sorted(COLUMNS.items()):
        for code in entry.words:
            if f"value.{name}.{code}" not in theirs:
                yield f"{file}: value.{name}.{code}: is missing; say what people read for it"


def _where(file: Path) -> str:
    return str(file.relative_to(REPO))


if __name__ == "__main__":
    if "--write" in sys.argv:
        for texts_file in TEXTS.glob("*.yaml"):
            texts_file.write_text(normal(texts_file), encoding="utf-8")
        sys.exit()
    wrong = list(dict.fromkeys(problems()))
    print("\n".join(wrong) or "texts are whole")
    sys.exit(bool(wrong))
