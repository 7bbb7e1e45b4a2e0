"""Files that are there whole or not at all, whenever a run is killed."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def put_whole(target: Path) -> Iterator[Path]:
    """A place beside the target to write to; what the body wrote is put in place at its end, by one rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    yield unfinished
    unfinished.replace(target)
