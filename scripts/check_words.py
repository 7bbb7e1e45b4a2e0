"""Old words in identifiers and page texts: `make check` fails on those that docs/glossary.md has another term for.

Identifiers of Python and SQL are cut into their words; page texts are titles and descriptions of the catalogues, what
Superset shows, and the prose of README.md and docs: code in it is left out, decisions keep the words of their time.
Names that belong to others are listed in ALLOWED. Tests are left out: their names are sentences.
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).parents[1]
CODE = ("usage_pipeline", "superset", "deploy", "scripts", "benchmarks")
# word of an identifier: the term that stands in docs/glossary.md
IN_IDENTIFIERS = {
    "spell": "subscription period",
    "spells": "subscription periods",
    "pair": "account_application",
    "pairs": "account_applications",
    "flag": "anomaly",
    "flags": "anomalies",
    "flagged": "anomalous",
    "fleet": "platform, or accounts",
    "ledger": "history",
    "tenth": "decile",
    "tenths": "deciles",
    "chance": "probability",
    "chances": "probabilities",
    "alarm": "alert",
    "alarms": "alerts",
    "timetable": "schedule",
    "verdict": "summary",
    "untold": "pending",
    "contract": "subscription, or schema of a table",
    "contracts": "subscriptions, or schemas of tables",
    "riser": "gainer",
    "risers": "gainers",
    "faller": "decliner",
    "fallers": "decliners",
}
# phrase of a page: what it says instead
ON_PAGES = {
    r"fleet": "platform-wide",
    r"flags?": "anomaly",
    r"flagged": "anomalous",
    r"chances?": "probability",
    r"tenths?": "decile",
    r"ledger": "history",
    r"alarms?": "alert",
    r"set aside": "quarantined",
    r"call now": "Urgent",
    r"call soon": "This week",
    r"keep in mind": "Watch",
    r"never used": "never adopted",
    r"value concerned": "ARR at risk",
    r"annual value": "ARR",
    r"notice given": "notice received",
    r"lost to (inactivity|cancellation)": "lapsed, churned",
    r"drop in use": "usage drop",
    r"drop-offs?": "usage drop",
    r"new level": "step up, step down",
    r"contracts?": "subscription",
    r"risers?": "top gainers",
    r"fallers?": "top decliners",
    r"seats in use": "seat utilization",
    r"restated": "revised",
    r"a year ago, as reported": "last year, as reported",
}
# names of others, whole
ALLOWED = {"flags", "FEATURE_FLAGS"}


def words_of(name: str) -> list[str]:
    """Words of an identifier, in lower case: `AnomalySettings` and `anomaly_settings` alike."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def identifiers(file: Path) -> Iterator[tuple[int, str]]:
    """(line, identifier) of a Python or SQL file."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME:
                yield token.start[0], token.string
        return
    for number, line in enumerate(text.splitlines(), start=1):
        code = re.sub(r"'[^']*'", "''", line.split("--")[0])
        for name in re.findall(r"[A-Za-z_]\w*", code):
            yield number, name


def texts(file: Path) -> Iterator[str]:
    """Everything in a YAML file that a page may show."""

    def inside(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                if key not in ("expression", "sqlExpression", "name", "column_name", "metric_name", "viz_type", "sql"):
                    yield from inside(item)
        elif isinstance(value, list):
            for item in value:
                yield from inside(item)
        elif isinstance(value, str) and " " in value:
            yield value

    yield from inside(yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of a Markdown file, without code."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", lambda code: "\n" * code[0].count("\n"), file.read_text(encoding="utf-8"))
    for number, line in enumerate(text.splitlines(), start=1):
        yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)


def old_words(text: str) -> Iterator[str]:
    """What a text for readers says in another word than the glossary."""
    for phrase, instead in ON_PAGES.items():
        if found := re.search(rf"(?i)\b{phrase}\b", text):
            yield f"“{found[0]}” in “{text.strip()[:60]}”: say {instead}"


def documents() -> Iterator[Path]:
    docs = REPO / "docs"
    others = {docs / "glossary.md"}
    yield REPO / "README.md"
    for file in sorted(docs.rglob("*.md")):
        if file not in others and not file.is_relative_to(docs / "decisions"):
            yield file


def problems() -> Iterator[str]:
    for folder in CODE:
        for file in sorted((REPO / folder).rglob("*")):
            where = file.relative_to(REPO)
            if file.suffix in (".py", ".sql"):
                for line, name in identifiers(file):
                    for word in set(words_of(name)) & IN_IDENTIFIERS.keys() if name not in ALLOWED else ():
                        yield f"{where}:{line}: {name}: the word for {word} is {IN_IDENTIFIERS[word]}"
    pages = [*(REPO / "superset" / "assets").rglob("*.yaml"), *(REPO / "usage_pipeline").rglob("*.yaml")]
    for file in sorted(pages):
        for text in texts(file):
            for problem in old_words(text):
                yield f"{file.relative_to(REPO)}: {problem}"
    for file in documents():
        for line, text in prose(file):
            for problem in old_words(text):
                yield f"{file.relative_to(REPO)}:{line}: {problem}"


if __name__ == "__main__":
    found = sorted(set(problems()))
    print("\n".join(found) or "words are those of docs/glossary.md")
    sys.exit(bool(found))
