"""The key of contacts: what is encrypted with which, and rewriting everything below the home for another one.

Belongs here: every file of contacts of a home. Does not: how one is encrypted (`privacy/encryption.py`).

The key is turned on, changed and turned off by the same command: what the home shall have is in USAGE_CONTACTS_KEY,
what it has in USAGE_CONTACTS_OLD_KEY; one that is not set stands for plain files. Each file is replaced whole by a
rename and keeps its mode; one that is as it should be is left alone, so a run that was killed is run again.
"""

from collections.abc import Callable
from pathlib import Path

from usage_pipeline.config.data_home import DataHome
from usage_pipeline.core.locks import file_lock
from usage_pipeline.ingestion.deliveries import deliveries_of_contacts
from usage_pipeline.operations.data_home import clean_history, clean_warehouse, databases_of_contacts
from usage_pipeline.privacy.encryption import (
    OLD_KEY_VARIABLE,
    ContactsKeyError,
    change_key,
    contacts_key,
    is_encrypted,
    must_open,
)
from usage_pipeline.resources import warehouse_of

Progress = Callable[[str], None]


def files_of_contacts(home: DataHome) -> list[Path]:
    """Every file below the home that holds names, addresses and telephone numbers of contacts."""
    return [*deliveries_of_contacts(home.history_dir), *databases_of_contacts(home)]


def key_problems(home: DataHome) -> list[str]:
    """Why files of contacts cannot be opened with the key that is set, a sentence each."""
    try:
        contacts_key()
    except ContactsKeyError as error:
        return [str(error)]
    problems = []
    for file in files_of_contacts(home):
        try:
            must_open(file)
        except FileNotFoundError:  # a run may be at it
            continue
        except ContactsKeyError as error:
            problems.append(str(error))
    return problems


def plain_files(home: DataHome) -> list[Path]:
    """Files of contacts that are not encrypted though a key is set."""
    if contacts_key() is None:
        return []
    return [file for file in files_of_contacts(home) if not is_encrypted(file)]


def rekey(home: DataHome, wait_seconds: float, progress: Progress = lambda _: None) -> int:
    """Rewrites every file of contacts that is not as USAGE_CONTACTS_KEY wants it; returns how many.

    Raises ContactsKeyError where a file opens with neither key, LockTimeoutError where a run holds one for too long.
    """
    new, old = contacts_key(), contacts_key(OLD_KEY_VARIABLE)
    wait, done = wait_seconds, 0
    with file_lock(home.history_lock, wait, what=str(home.history_dir), who="rekey", progress=progress):
        done += sum(_change(file, old, new, progress) for file in deliveries_of_contacts(home.history_dir))
        # what a run before left unfinished is of another key, or of none
        clean_history(home.history_dir)
    with warehouse_of(home, wait_seconds).locked():
        done += sum(_change(file, old, new, progress) for file in databases_of_contacts(home))
        clean_warehouse(home)
    return done


def _change(file: Path, old: str | None, new: str | None, progress: Progress) -> bool:
    is_changed = change_key(file, old, new)
    if is_changed:
        progress(f"{file} is {'encrypted' if new else 'plain'} now")
    return is_changed
