"""The texts that people read, from one catalogue: `usage_pipeline/texts/<language>.yaml`, by id.

An id is the way to a text through the sections of the file: `chart.call_list.title`. Values stand in braces:
`{accounts} to call`. Where a file holds ids in place of texts, an id stands in braces too; it has a dot in it, a value
has none. Superset's environment reads the same files with `superset/usage_superset/texts.py`.

Belongs here: reading, looking up, filling in. Does not: which texts a page or mail has.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TEXTS = Path(__file__).parents[1] / "texts"
LANGUAGE = "en"
_VALUE = re.compile(r"\{(\w+)\}")
# not ${...}, which is a value of a script
ID = re.compile(r"(?<!\$)\{([a-z_]+(?:\.\w+)+)\}")


class TextError(ValueError):
    """A text is not there; the message names its id, the file and the remedy."""


def read_texts(file: Path) -> dict[str, str]:
    """Texts by id. Raises TextError where the file holds something else than texts in sections."""

    def inside(section: Mapping[Any, Any], before: str) -> Iterator[tuple[str, str]]:
        for key, value in section.items():
            name = f"{before}{key}"
            if isinstance(value, Mapping):
                yield from inside(value, f"{name}.")
            elif isinstance(value, str):
                yield name, value
            else:
                raise TextError(f"{file.name}: {name}: is {value!r}; write a text, in quotes")

    # the parser in C: every start reads it
    return dict(inside(yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader), ""))


@cache
def texts() -> dict[str, str]:
    """Every text by its id."""
    return read_texts(TEXTS / f"{LANGUAGE}.yaml")


def text(name: str, /, **values: object) -> str:
    """The text of an id, with its values filled in. Raises TextError where there is none of that id."""
    found = texts().get(name)
    if found is None:
        raise TextError(f"{LANGUAGE}.yaml: {name}: there is no such text; add it, or name another id")
    return found.format(**values) if values else found


def positional(name: str) -> str:
    """The text of an id for `format` of SQL: `{1} of {0}`. Values come in the order in which English names them."""
    order = list(dict.fromkeys(_VALUE.findall(read_texts(TEXTS / "en.yaml")[name] if LANGUAGE != "en" else text(name))))
    return _VALUE.sub(lambda found: f"{{{order.index(found[1])}}}", text(name))


def counted(name: str, number: int) -> str:
    """`no account`, `1 account`, `1,234 accounts`: the text below an id that goes with a number."""
    form = "none" if number == 0 else "one" if number == 1 else "many"
    return text(f"{name}.{form}", number=f"{number:,}")


def section(name: str) -> dict[str, str]:
    """The texts of a section by the rest of their ids: of `empty`, `call_list` and so on."""
    before = f"{name}."
    return {key.removeprefix(before): value for key, value in texts().items() if key.startswith(before)}


def slug(word: str) -> str:
    """A word as part of an id: `never adopted` as `never_adopted`."""
    return re.sub(r"\W+", "_", word.lower()).strip("_")


def filled(content: Any) -> Any:
    """Content of a file with each `{id}` replaced by its text, in keys too. Raises TextError."""
    if isinstance(content, str):
        return ID.sub(lambda found: text(found[1]), content)
    if isinstance(content, dict):
        return {filled(key): filled(value) for key, value in content.items()}
    if isinstance(content, list):
        return [filled(value) for value in content]
    return content
