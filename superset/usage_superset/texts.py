"""The texts that people read: the catalogue of the pipeline, `usage_pipeline/texts/<language>.yaml`, read as data.

Superset's environment holds none of the pipeline's code, so that what `usage_pipeline/core/texts.py` says about ids and
braces is read here once more.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TEXTS = Path(__file__).parents[2] / "usage_pipeline" / "texts"
ENGLISH = "en"
# not ${...}, which is a value of a script
_ID = re.compile(r"(?<!\$)\{([a-z_]+(?:\.\w+)+)\}")


def language() -> str:
    """The language of everything that people read, from $USAGE_LANGUAGE, as the pipeline reads it."""
    return os.environ.get("USAGE_LANGUAGE") or ENGLISH


def language_problem() -> str | None:
    """What is wrong with USAGE_LANGUAGE, if anything."""
    there = sorted(file.stem for file in TEXTS.glob("*.yaml"))
    return None if language() in there else f"USAGE_LANGUAGE is {language()!r}: give it {' or '.join(there)}"


def texts() -> Mapping[str, str]:
    """Every text by its id."""
    return _texts(language())


@cache
def _texts(of: str) -> Mapping[str, str]:

    def inside(section: Mapping[Any, Any], before: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, value in section.items():
            name = f"{before}{key}"
            found |= inside(value, f"{name}.") if isinstance(value, Mapping) else {name: str(value)}
        return found

    return inside(yaml.load((TEXTS / f"{of}.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader), "")


def text(name: str, /, **values: object) -> str:
    """The text of an id, with its values filled in. Raises KeyError where there is none of that id."""
    found = texts()[name]
    return found.format(**values) if values else found


def number(value: float, places: int = 0) -> str:
    """A number as the language writes it: `1,234.5`, `1.234,5`."""
    return f"{value:,.{places}f}".translate(str.maketrans(",.", text("format.thousands") + text("format.decimal")))


def shown(column: str, value: str) -> str:
    """What people read for a value of a column that is a code too; another value as it is."""
    return texts().get(f"value.{column}.{value}", value)


def filled(content: Any) -> Any:
    """Content of a file with each `{id}` replaced by its text, in keys too."""
    if isinstance(content, str):
        return _ID.sub(lambda found: text(found[1]), content)
    if isinstance(content, dict):
        return {filled(key): filled(value) for key, value in content.items()}
    if isinstance(content, list):
        return [filled(value) for value in content]
    return content


def slug(word: str) -> str:
    """A word as part of an id: `no problem` as `no_problem`."""
    return re.sub(r"\W+", "_", word.lower()).strip("_")
