"""Asks for what pages show as soon as a build is shown, so that no reader waits for it.

`python -m usage_superset.cache_warmup` does it once; `--watch` stays and does it whenever another build is shown (by a
publish, a rollback or a release) and at the turn of the day. It runs beside Superset (gunicorn_config.py), at low
priority, with the rights of a viewer without contacts, and through Superset's own code, so that keys and rights are
those of a reader. The weekly graph knows nothing of it: where it fails, it says so, and readers wait for their first
answer.
"""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import date
from typing import Any

from usage_superset.build_cache import shown_now
from usage_superset.chart_queries import errors_of, page_requests

ACCOUNT = "warming"
_POLL_INTERVAL_SECONDS = 5


def say(message: str) -> None:
    print(f"  warming: {message}", flush=True)


def watch() -> int:
    """Looks for another build until whoever started this is gone. Loads nothing of Superset itself."""
    # an exception, so that a warming under way ends too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parent, warmed = os.getppid(), ("", date.min)
    while os.getppid() == parent:
        seen = (shown_now(), date.today())
        if seen != warmed and os.path.isdir(seen[0]):
            # a process of its own: what Superset takes in memory is given back
            again = [sys.executable, "-u", "-P", "-m", "usage_superset.cache_warmup"]
            if subprocess.run(again, check=False).returncode:  # noqa: S603 - this module
                say(f"build {os.path.basename(seen[0])} is not warm; its first readers wait a little longer")
            warmed = seen
        time.sleep(_POLL_INTERVAL_SECONDS)
    return 0


def warm() -> int:
    """Asks for every answer of every dashboard once; returns 1 where any failed. Stops where the build is replaced."""
    from superset.app import create_app
    from superset.exceptions import SupersetSecurityException

    started, answers, failed, build = time.perf_counter(), 0, 0, shown_now()
    os.nice(5)  # readers first
    app = create_app()
    with app.app_context():
        from superset import security_manager

        if security_manager.find_user(ACCOUNT) is None:
            say(f"there is no account '{ACCOUNT}' to ask as: run bootstrap.py")
            return 1
        wanted = _pages()
    for name, body in wanted:
        if shown_now() != build:
            say(f"build {os.path.basename(build)} is replaced; what is shown now comes next")
            return 0
        # a context for each, as for readers: each sees the build that is shown when it asks
        with app.test_request_context():
            try:
                error = _ask(body)
            except SupersetSecurityException:  # personal data is not for a viewer, and is not kept
                continue
        answers += 1
        if error:
            failed += 1
            say(f"'{name}' fails: {error}")
    shown = f"{answers - failed} of {answers} answers of build {os.path.basename(build)}"
    say(f"{shown} are warm, {time.perf_counter() - started:.0f} s")
    return 1 if failed else 0


def _pages() -> list[tuple[str, dict[str, Any]]]:
    """Name and body of everything that browsers ask for when they open the dashboards of the tree."""
    from superset.extensions import db
    from superset.models.dashboard import Dashboard

    found: list[tuple[str, dict[str, Any]]] = []
    for dashboard in db.session.query(Dashboard).filter_by(is_managed_externally=True).order_by(Dashboard.slug):
        filters = json.loads(dashboard.json_metadata)["native_filter_configuration"]
        charts = [(c.slice_name, json.loads(c.params), c.datasource_id) for c in dashboard.slices]
        found += [(name, body) for name, body, _ in page_requests(filters, charts)]
    return found


def _ask(body: dict[str, Any]) -> str | None:
    """Asks as the account of warming; returns what went wrong. Raises SupersetSecurityException where it may not."""
    from superset.exceptions import SupersetSecurityException
    from superset.utils.core import override_user

    from superset import security_manager

    try:
        with override_user(security_manager.find_user(ACCOUNT)):
            errors = errors_of(body)
    except SupersetSecurityException:
        raise
    except Exception as error:  # whatever it is, it is that chart's, and the next one is still asked for
        return str(error)
    return errors[0] if errors else None


if __name__ == "__main__":
    sys.exit(watch() if "--watch" in sys.argv else warm())
