"""Words for values of columns that are codes too: `Urgent`, `never adopted`. Tables, rules and programs keep the code.

Pages, downloads and filters show the word of the language (`value.<column>.<code>` of the catalogue of texts), and what
a page's filter sends back means the code again. In English the two are the same.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from usage_superset.texts import language, texts

# columns that hold values of another one
_LIKE = {
    **dict.fromkeys(("anomaly", "platform_anomaly", "application_anomaly"), "anomaly_type"),
    **dict.fromkeys(("reasons", "new_reasons"), "call_reason"),
    **dict.fromkeys(("biggest_factor", "factors_not_known"), "factor"),
    **dict.fromkeys(("about", "application_type"), "application"),
    "renewal_priority": "urgency",
    "single_change": "change_is",
    "renewal_status": "call_status",
    "entity": "account",
}
# columns that hold several of them, with commas between
_LISTS = {"reasons", "new_reasons", "factors_not_known"}


def as_word(column: Any, value: Any) -> Any:
    """What is shown for a value of a column; whatever has no word as it is."""
    return _replaced(column, value, words_of(column)) if isinstance(value, str) else value


def as_code(column: Any, value: Any) -> Any:
    """The value of a column that a word, or each of a list of them, stands for."""
    if isinstance(value, list):
        return [as_code(column, item) for item in value]
    return _replaced(column, value, _codes(language(), str(column))) if isinstance(value, str) else value


def _replaced(column: Any, value: str, by: Mapping[str, str]) -> str:
    if not by or column not in _LISTS:
        return by.get(value, value)
    return ", ".join(by.get(part, part) for part in value.split(", "))


def words_of(column: Any) -> Mapping[str, str]:
    """Words by code, of those that differ from it."""
    return _words(language(), str(column))


@cache
def _words(_language: str, column: str) -> Mapping[str, str]:
    before = f"value.{_LIKE.get(column, column)}."
    found = {key.removeprefix(before): word for key, word in texts().items() if key.startswith(before)}
    return {code: word for code, word in found.items() if code != word}


@cache
def _codes(_language: str, column: str) -> Mapping[str, str]:
    return {word: code for code, word in _words(_language, column).items()}


def asset_in_words(asset: dict[str, Any]) -> dict[str, Any]:
    """A chart or dashboard whose colors and choices stand beside words: Superset compares with what it shows."""
    params = asset.get("params") or {}
    for rule in params.get("conditional_formatting") or []:
        rule["targetValue"] = as_word(rule["column"], rule.get("targetValue"))
    metadata = asset.get("metadata") or {}
    colors = metadata.get("label_colors") or {}
    colors.update(
        {word: color for code, color in list(colors.items()) for word in _all_words(language()).get(code, ())}
    )
    for native in metadata.get("native_filter_configuration") or []:
        mask = native.get("defaultDataMask") or {}
        for item in (mask.get("extraFormData") or {}).get("filters") or []:
            shown = (
                [as_word(item["col"], value) for value in item["val"]] if isinstance(item.get("val"), list) else None
            )
            if shown:
                item["val"], mask["filterState"]["value"] = shown, shown
    return asset


@cache
def _all_words(_language: str) -> Mapping[str, tuple[str, ...]]:
    """Every word of each code, whatever its column: colors are of words."""
    found: dict[str, dict[str, None]] = {}
    for key, word in texts().items():
        if key.startswith("value."):
            found.setdefault(key.split(".", 2)[2], {})[word] = None
    return {code: tuple(words) for code, words in found.items()}
