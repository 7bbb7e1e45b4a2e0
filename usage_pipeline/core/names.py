"""What people call an account or an application: finding the one that is meant, or those that come near.

Belongs here: comparing words. Does not: reading names from any database.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_NEAR = 8


class UnclearNameError(Exception):
    """A name is that of nothing, or of several; the message says what could be meant."""


class UnknownNameError(UnclearNameError):
    """Nothing is called so."""


@dataclass(frozen=True)
class Named:
    """An account or an application: its key, and what pages call it."""

    key: str
    label: str
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        is_said = self.label == self.key or self.label.endswith(f"({self.key})")
        return self.label if is_said else f"{self.label} ({self.key})"


def resolve(kind: str, wanted: str, known: Sequence[Named]) -> Named:
    """The one of `known` that is called so: by key, by name, then either of them in any case.

    Raises UnknownNameError where there is none, with those that come near, UnclearNameError where there are several.
    """
    text, low = wanted.strip(), wanted.strip().casefold()
    for matches in (
        [one for one in known if one.key == text],
        [one for one in known if text in (one.label, *one.also)],
        [one for one in known if low in [word.casefold() for word in (one.key, one.label, *one.also)]],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = ", ".join(map(str, matches))
            raise UnclearNameError(f"{kind} '{wanted}' is the name of {len(matches)}: {listed}; give the id")
    near = _near(low, known)
    listed = f"; near: {', '.join(map(str, near))}" if near else f"; {len(known)} are known, none comes near"
    raise UnknownNameError(f"there is no {kind} '{wanted}'{listed}")


def meant(wanted: str, known: Iterable[str]) -> str:
    """The end of a sentence about a word that is none of `known`: those that come near, or all where they are few."""
    words = sorted(set(known))
    by_fold = {word.casefold(): word for word in words}
    close = difflib.get_close_matches(wanted.casefold(), list(by_fold), n=3)
    if close:
        return f"; did you mean {', '.join(by_fold[word] for word in close)}?"
    if not words:
        return "; there are none"
    return f"; there are {', '.join(words)}" if len(words) <= 30 else f"; there are {len(words):,}, none like it"


def _near(low: str, known: Sequence[Named]) -> list[Named]:
    """Those whose key or name holds the text, then those that are spelled much like it."""
    by_word = {word.casefold(): one for one in known for word in (one.key, one.label, *one.also)}
    holding = [one for word, one in by_word.items() if low and low in word]
    alike = [by_word[word] for word in difflib.get_close_matches(low, list(by_word), n=_NEAR, cutoff=0.6)]
    return list(dict.fromkeys([*holding, *alike]))[:_NEAR]
