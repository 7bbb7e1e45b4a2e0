"""Answers as programs get them: JSON or CSV, their schema, and the tag that changes with them.

Belongs here: the form of an answer. Does not: what is in it (`reads.py`), addresses and statuses (`web.py`).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from usage_pipeline.core.csv_cells import as_csv
from usage_pipeline.core.tables import Column
from usage_pipeline.serving.reads import MOMENTS, Answer, Reader, Row

_VERSION = version("usage-pipeline")
_NULL_BECAUSE = """By column, why it is null in some row; `rows`: why there is none. `not delivered, or not known yet`:
no row of the build has a value. Where null means that there is none, it says so: `no notice was received`."""
_TYPES = {"BIGINT": "integer", "INTEGER": "integer", "DOUBLE": "number", "BOOLEAN": "boolean"}


def as_json(content: Row) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, default=str).encode()


def list_told(answer: Answer) -> Row:
    """An answer of one part: build, what was understood, source, rows, and where the next page begins."""
    return answer.head() | {"next_offset": next_offset(answer)} | answer.rows.told()


def parts_told(answer: Answer) -> Row:
    """An answer of several parts, each with its source and all of its rows."""
    return answer.head() | {"parts": answer.told_parts()}


def next_offset(answer: Answer) -> int | None:
    """Where the next page begins; None on the last one."""
    part, page = answer.rows, answer.page
    after = page.offset + len(part.rows) if page else part.total
    return after if part.rows and after < part.total else None


def rows_as_csv(answer: Answer) -> bytes:
    names = [column.name for column in answer.rows.columns]
    return as_csv(names, ([row[name] for name in names] for row in answer.rows.rows))


def tag_of(reader: Reader, question: str) -> str:
    """Changes whenever the answer to a question may: with the build, outcomes, rights, or our version."""
    rights = f"{sorted(reader.access.scopes)} {sorted(reader.access.limits.items())}"
    outcomes = f"{reader.outcomes.name} {reader.outcomes.no_status}"
    told = (reader.build.build_id, outcomes, _VERSION, rights, question)
    return f'"{hashlib.sha256(chr(0).join(told).encode()).hexdigest()[:32]}"'


# ---------------------------------------------------------------- schemas


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


_COUNT = {"type": "integer", "minimum": 0}
BUILD = _object(
    {
        "build_id": _text("the build that the answer is of"),
        "as_of": _text(
            "the moment that the build looks at the data from, with the offset of the configured time zone; where a "
            "day was given, its beginning there"
        )
        | {"format": "date-time"},
        "newest_week": {"type": ["string", "null"], "description": "Monday of the newest complete week"},
        "data_through": {"type": ["string", "null"], "description": "last day of the newest complete week"},
        "sentence": _text("what the build holds"),
    }
)
_HEAD = {
    "build": BUILD,
    "asked": {"type": "object", "description": "filters as they were understood"},
    "notes": {"type": "array", "items": {"type": "string"}},
}
_NEXT = {"next_offset": {"type": ["integer", "null"], "description": "where the next page begins; null on the last"}}
_MAYBE = {"type": ["string", "null"]}
_WORD = {"kind": {"type": "string"}, "name": {"type": "string"}, "title": _MAYBE, "meaning": {"type": "string"}}
DEFINITIONS = _object(
    _HEAD | _NEXT | {"total": _COUNT, "rows": {"type": "array", "items": _object(_WORD | {"aggregation": _MAYBE})}}
)
PROBLEM = _object({"status": {"type": "integer"}, "title": _text("the status"), "detail": _text("with the remedy")})


def _part(columns: Iterable[Column]) -> dict[str, Any]:
    row = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            column.name: {
                "type": [_TYPES.get(column.type, "string"), "null"],
                "title": column.title,
                "description": column.description,
            }
            | _day_or_moment(column)
            for column in columns
        },
    }
    return {
        "source": _text("the table that the rows are from"),
        "a_row_is": _text("what a row of it stands for"),
        "total": _COUNT | {"description": "rows that the filters leave"},
        "null_because": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": _NULL_BECAUSE,
        },
        "rows": {"type": "array", "items": row},
    }


def _day_or_moment(column: Column) -> dict[str, str]:
    """Each says its zone: a moment is UTC and ends with Z, a day is one of the configured time zone."""
    if column.type != "TIMESTAMP":
        return {}
    if column.name in MOMENTS:
        return {"format": "date-time", "description": f"{column.description}; ISO 8601 with Z"}
    return {"format": "date", "description": f"{column.description}; a day of the configured time zone"}


def list_schema(columns: Iterable[Column]) -> dict[str, Any]:
    return _object(_HEAD | _NEXT | _part(columns))


def parts_schema(parts: Mapping[str, Iterable[Column]]) -> dict[str, Any]:
    of_parts = {name: _object(_part(columns)) for name, columns in parts.items()}
    return _object(_HEAD | {"parts": {"type": "object", "additionalProperties": False, "properties": of_parts}})
