"""Which build a request sees, and the cache of results, kept by build.

Superset works out a result's key before it opens the connection. Were `current` resolved at each of the two, a publish
between them would keep one build's numbers under another's name. So a request resolves it once: key and connections
are of that build, and a request with several queries sees one build too. A build's folder outlives its turn by
`publish.keep_builds` publishes, so it can still be opened.

Kept is what was read from the warehouse of a build, and nothing else: a build never changes, and its personal data
stays in its one file. Results lie in files below SUPERSET_HOME, or in the Redis that USAGE_CACHE_URL names.
"""

import logging
import os
from contextlib import suppress
from datetime import date
from typing import Any

from flask import g, has_app_context
from flask_caching.backends.filesystemcache import FileSystemCache
from flask_caching.backends.rediscache import RedisCache

# the databases whose content is settled by the build; what others answer is asked for anew each time
KEPT = {"usage_warehouse"}
_MOST_FILES = 4000

logger = logging.getLogger(__name__)


def shown_now() -> str:
    """The path of the build that `current` names at this moment."""
    return os.path.realpath(os.path.join(os.environ["USAGE_PUBLISHED"], "current"))


def build_of_request() -> str:
    """The path of the build that this request sees, the same from its first question to its end."""
    if not has_app_context():
        return shown_now()
    if "usage_build" not in g:
        # the day belongs to a result too: a person's own chart may ask for "last week"
        g.usage_build, g.usage_day = shown_now(), date.today().isoformat()
    return str(g.usage_build)


def note_opened(database: str) -> None:
    """Says that this request reads that database; what it learns is kept only where all it read may be."""
    if has_app_context():
        g.usage_opened = g.get("usage_opened", set()) | {database}


def may_be_kept() -> bool:
    """Whether all that this request read may be kept; False as soon as it has read personal data."""
    return bool(g.get("usage_opened", set()) <= KEPT)


def _prefix() -> str:
    build = os.path.basename(build_of_request())
    return f"usage {build} {g.usage_day} "


class _OfOneBuild:
    """What both stores share: only the warehouse's results go in, and a store out of order is an empty one."""

    def get(self, key: str) -> Any:
        try:
            return super().get(key)  # type: ignore[misc]
        except Exception as error:  # a result can always be read again from the build
            logger.warning("the cache of results does not answer: %s", error)
            return None

    def set(self, key: str, value: Any, timeout: int | None = None, **more: Any) -> Any:
        return may_be_kept() and super().set(key, value, timeout, **more)  # type: ignore[misc]


class ResultFiles(_OfOneBuild, FileSystemCache):  # type: ignore[misc]
    """Results as files: the oldest go when there are too many or they take too much room."""

    most_bytes = 0

    def _get_filename(self, key: str) -> str:
        return str(super()._get_filename(_prefix() + key))

    def _prune(self) -> None:
        found = []
        for entry in os.scandir(self._path):
            with suppress(FileNotFoundError):
                status = entry.stat()
                found.append((status.st_mtime, status.st_size, entry.path))
        files, room = len(found), sum(size for _, size, _ in found)
        if files < _MOST_FILES and room < self.most_bytes:
            return
        for _, size, path in sorted(found):
            if files < 0.8 * _MOST_FILES and room < 0.8 * self.most_bytes:
                break
            with suppress(FileNotFoundError):
                os.remove(path)
            files, room = files - 1, room - size


class ResultsInRedis(_OfOneBuild, RedisCache):  # type: ignore[misc]
    """Results in Redis, which bounds them itself (maxmemory, allkeys-lru)."""


def results(app: Any, config: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The store of results, as Flask-Caching asks for it."""
    if config.get("CACHE_REDIS_URL"):
        return ResultsInRedis.factory(app, config | {"CACHE_KEY_PREFIX": _prefix}, args, kwargs)
    # results are data: nobody but the server reads them
    os.makedirs(config["CACHE_DIR"], mode=0o700, exist_ok=True)
    # Flask-Caching's own count of files is shared by workers without a lock, and drifts: 0 switches it off
    store = ResultFiles.factory(app, config | {"CACHE_THRESHOLD": 0}, args, kwargs)
    store.most_bytes = config["CACHE_MEGABYTES"] * 1_000_000
    return store
