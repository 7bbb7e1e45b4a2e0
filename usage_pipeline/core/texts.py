"""The texts that people read, from one catalogue by id: `usage_pipeline/texts/<language>.yaml`, of $USAGE_LANGUAGE.

An id is the way to a text through the sections of the file: `chart.call_list.title`. Values stand in braces:
`{accounts} to call`. Where a file holds ids in place of texts, an id stands in braces too; it has a dot in it, a value
has none. Superset's environment reads the same files with `superset/usage_superset/texts.py`.

Belongs here: reading, looking up, filling in. Does not: which texts a page or mail has.
"""

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TEXTS = Path(__file__).parents[1] / "texts"
# that of the ids, of values in tables, and where no other is asked for
ENGLISH = "en"
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


def language() -> str:
    """The language of what people read, from $USAGE_LANGUAGE; ends the process where there is no such file."""
    return _known(os.environ.get("USAGE_LANGUAGE") or ENGLISH)


@cache
def _known(asked: str) -> str:
    there = sorted(file.stem for file in TEXTS.glob("*.yaml"))
    if asked not in there:
        # texts are read while modules are imported: nobody is there yet who could catch an error
        raise SystemExit(f"USAGE_LANGUAGE is {asked!r}: there are no texts of it; give it {' or '.join(there)}")
    return asked


def texts() -> dict[str, str]:
    """Every text by its id."""
    return _texts(language())


@cache
def _texts(of: str) -> dict[str, str]:
    return read_texts(TEXTS / f"{of}.yaml")


def text(name: str, /, **values: object) -> str:
    """The text of an id, with its values filled in. Raises TextError where there is none of that id."""
    found = texts().get(name)
    if found is None:
        raise TextError(f"{language()}.yaml: {name}: there is no such text; add it, or name another id")
    return found.format(**values) if values else found


def shown(column: str, value: str) -> str:
    """What people read for a value of a column that is a code too: `Urgent` of `urgency`; another value as it is."""
    return texts().get(f"value.{column}.{value}", value)


def positional(name: str) -> str:
    """The text of an id for `format` of SQL: `{1} of {0}`. Values come in the order in which English names them."""
    said = text(name)
    order = list(dict.fromkeys(_VALUE.findall(_texts(ENGLISH)[name])))
    return _VALUE.sub(lambda found: f"{{{order.index(found[1])}}}", said)


def number(value: float, places: int = 0) -> str:
    """A number as the language writes it: `1,234.5`, `1.234,5`."""
    return f"{value:,.{places}f}".translate(str.maketrans(",.", separators()))


def signed(value: float) -> str:
    """A difference with one decimal: `+1.5`, `-0.3`."""
    return f"{'-' if value < 0 else '+'}{number(abs(value), 1)}"


def separators() -> str:
    """What stands between thousands, and before decimals."""
    return text("format.thousands") + text("format.decimal")


def counted(name: str, count: int) -> str:
    """`no account`, `1 account`, `1,234 accounts`: the text below an id that goes with a number."""
    form = "none" if count == 0 else "one" if count == 1 else "many"
    return text(f"{name}.{form}", number=number(count))


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
