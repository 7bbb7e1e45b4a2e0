"""Answers that were given and may be asked for again: a build never changes, so neither does what it answers.

The key is the tag of an answer (`answers.tag_of`), which another build, outcome, right or question changes. Contacts
are never kept. Of this process, and bounded.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

_MOST_BYTES = 64 * 2**20
# of an answer beside its body: tag, headers, entry
_BYTES_BESIDE = 1024


@dataclass(frozen=True)
class KeptAnswer:
    """The body of an answer, and the headers that it was sent with."""

    body: bytes
    media_type: str
    headers: dict[str, str]


class KeptAnswers:
    """The answers asked for last, as many as fit."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, KeptAnswer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, tag: str) -> KeptAnswer | None:
        with self._lock:
            if tag in self._kept:
                self._kept.move_to_end(tag)
            return self._kept.get(tag)

    def keep(self, tag: str, answer: KeptAnswer) -> None:
        """Keeps an answer, and lets those go that were asked for longest ago."""
        with self._lock:
            if tag in self._kept or len(answer.body) > self._most_bytes:
                return
            self._kept[tag] = answer
            self._bytes += len(answer.body) + _BYTES_BESIDE
            while self._bytes > self._most_bytes:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= len(gone.body) + _BYTES_BESIDE
