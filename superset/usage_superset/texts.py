"""The texts that people read: the catalogue of the pipeline, `usage_pipeline/texts/<language>.yaml`, read as data.

Superset's environment holds none of the pipeline's code, so that what `usage_pipeline/core/texts.py` says about ids and
braces is read here once more.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TEXTS = Path(__file__).parents[2] / "usage_pipeline" / "texts"
LANGUAGE = "en"
# not ${...}, which is a value of a script
_ID = re.compile(r"(?<!\$)\{([a-z_]+(?:\.\w+)+)\}")


@cache
def texts() -> Mapping[str, str]:
    """Every text by its id."""

    def inside(section: Mapping[Any, Any], before: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, value in section.items():
            name = f"{before}{key}"
            found |= inside(value, f"{name}.") if isinstance(value, Mapping) else {name: str(value)}
        return found

    return inside(yaml.load((TEXTS / f"{LANGUAGE}.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader), "")


def text(name: str, /, **values: object) -> str:
    """The text of an id, with its values filled in. Raises KeyError where there is none of that id."""
    found = texts()[name]
    return found.format(**values) if values else found


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
