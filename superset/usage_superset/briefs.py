"""Account briefs as files, for a list of accounts: HTML, and PDF by Chromium. `usage-pipeline briefs` runs it.

Runs in Superset's own environment: `python -m usage_superset.briefs --as USERNAME --out FOLDER NAME ...`. A brief holds
what that person may read, as in their browser. Each file stands by itself: nothing is loaded from elsewhere.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from usage_superset.bootstrap import say
from usage_superset.page_addresses import nearest

_SECONDS = 60


class BriefError(Exception):
    """A brief cannot be written; the message says why, and the remedy."""


def main() -> int:
    asked = _asked()
    os.umask(0o077)
    from superset.app import create_app

    app = create_app()
    try:
        with app.app_context(), app.test_request_context(), _acting_as(asked.username):
            names, unknown = _names(asked)
            chromium = None if asked.no_pdf else _chromium()
            _write_all(names, asked, chromium)
    except BriefError as error:
        print(f"superset: {error}", file=sys.stderr)
        return 2
    for problem in unknown:
        print(f"superset: {problem}", file=sys.stderr)
    return 2 if unknown else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="names of accounts")
    parser.add_argument("--as", dest="username", required=True, help="the person whose rights count")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--list", type=Path, help="file of names, one a line")
    parser.add_argument("--csm", help="all accounts of this CSM")
    parser.add_argument("--contacts", action="store_true", help="with contacts, where that person may read them")
    parser.add_argument("--no-pdf", action="store_true", help="HTML alone")
    return parser.parse_args()


@contextmanager
def _acting_as(username: str) -> Iterator[None]:
    """Reads with the rights of a person who may log in. Raises BriefError."""
    from superset.utils.core import override_user

    from superset import security_manager

    user = security_manager.find_user(username)
    if user is None or not user.is_active:
        raise BriefError(f"{username} may not log in: name a person of `users list`")
    with override_user(user):
        yield


def _names(asked: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Names of accounts that are there, each once, and what is wrong with the others. Raises BriefError."""
    from usage_superset.rows import names_of, rows_of

    wanted = list(asked.names)
    if asked.list is not None:
        try:
            wanted += [line.strip() for line in asked.list.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise BriefError(f"{asked.list} cannot be read: {error}") from error
    known = names_of("account")
    if not known:
        raise BriefError(f"{asked.username} may read no account, or the dashboards were never set up")
    if asked.csm:
        of_csm = rows_of("accounts_summary", ["account"], {"owner": asked.csm}, limit=10_000)
        if not of_csm:
            raise BriefError(f"there is no CSM '{asked.csm}'{_meant(asked.csm, names_of('owner'))}")
        wanted += [row["account"] for row in of_csm]
    if not wanted:
        raise BriefError("name accounts, or a file of them with --list, or --csm")
    there = set(known)
    unknown = [f"there is no account '{name}'{_meant(name, known)}" for name in wanted if name not in there]
    return list(dict.fromkeys(name for name in wanted if name in there)), unknown


def _meant(name: str, known: list[str]) -> str:
    near = nearest(name, known, 3)
    return f"; did you mean {', '.join(near)}?" if near else ""


def _chromium() -> str:
    found = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    if found is None:
        raise BriefError("Chromium is missing: install it (Debian: apt-get install chromium), or add --no-pdf")
    return found


def _write_all(names: list[str], asked: argparse.Namespace, chromium: str | None) -> None:
    from usage_superset.account_brief import brief_as_file

    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        for name in names:
            file = asked.out / f"{_stem(name, taken)}.html"
            file.write_text(brief_as_file(name, with_contacts=asked.contacts), encoding="utf-8")
            if chromium is not None:
                _print(chromium, file)
            say(f"{file.with_suffix('.pdf') if chromium else file}: {name}")
    except OSError as error:
        raise BriefError(f"{asked.out} cannot be written to: {error}") from error


def _stem(name: str, taken: set[str]) -> str:
    """A file name of letters, digits and dashes, another one for each account."""
    stem = re.sub(r"[^\w]+", "-", name).strip("-_")[:80] or "account"
    number, found = 1, stem
    while found.casefold() in taken:
        number += 1
        found = f"{stem}-{number}"
    taken.add(found.casefold())
    return found


def _print(chromium: str, file: Path) -> None:
    """Prints a page to the PDF beside it. Raises BriefError."""
    from flask import current_app

    pdf = file.with_suffix(".pdf")
    # as the browser that draws reports
    options = [*current_app.config["WEBDRIVER_OPTION_ARGS"], "--no-pdf-header-footer"]
    pdf.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium, *options, f"--user-data-dir={profile}", f"--print-to-pdf={pdf.resolve()}"]
        try:
            done = subprocess.run(  # noqa: S603 - Chromium, with a file of ours
                [*command, file.resolve().as_uri()], capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BriefError(f"Chromium did not print {file} within {_SECONDS} s: add --no-pdf") from error
    if not pdf.exists():
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise BriefError(f"Chromium could not print {file} ({said[0]}): add --no-pdf")


if __name__ == "__main__":
    sys.exit(main())
