"""Folders that tests make once and keep below `data/`: for this code, these libraries, and what else they are made of."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from usage_pipeline.core.locks import file_lock

REPO = Path(__file__).parents[2]
_SECONDS, _OTHERS = 900, 2


@contextmanager
def kept(name: str, made_of: Iterable[Path], make: Callable[[Path], None], *, also: str = "") -> Iterator[Path]:
    """The folder of what these files, and `also`, make; nobody else makes or removes it during the body."""
    content = hashlib.sha256(also.encode())
    for file in made_of:
        content.update(file.read_bytes())
    folder = REPO / "data" / name
    made = folder / content.hexdigest()[:16]
    with file_lock(folder / "lock", _SECONDS, what=str(folder)):
        if not (made / "whole").exists():
            shutil.rmtree(made, ignore_errors=True)
            # another run may be using one of the newest
            for older in sorted(folder.glob("*/"), key=lambda older: older.stat().st_mtime)[:-_OTHERS]:
                shutil.rmtree(older)
            made.mkdir()
            make(made)
            (made / "whole").touch()
        yield made
