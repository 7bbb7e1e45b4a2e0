"""Other accounts of the same machine: what a fresh home gives them, and what says so where it is open."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from usage_pipeline.cli import app
from usage_pipeline.config.settings import Settings, load_settings
from usage_pipeline.operations.local import REPO, superset_environment
from usage_pipeline_tests.support.lakes import event, write_config, write_week
from usage_pipeline_tests.support.servers import serving

NOBODY = 65534
pytestmark = pytest.mark.superset("second")


def command(*words: str | Path, umask: int = 0o022) -> str:
    """A command of the pipeline in a process of its own, started with the umask that a person usually has."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "usage_pipeline.cli", *map(str, words)],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    """A home where others may enter the folders above; somebody made its top by hand, and left it open."""
    folder = Path(tempfile.mkdtemp(prefix="usage-modes-"))
    folder.chmod(0o755)
    for number in (8, 9):
        write_week(folder / "lake", f"year=2025/week={number:02}", [event(f"2025-02-{17 + 7 * (number - 8)}")])
    config = write_config(folder)
    settings = load_settings(config)
    settings.home.root.mkdir()
    settings.home.root.chmod(0o755)
    command("refresh", "-c", config)
    command("users", "list", "-c", config)
    yield settings
    shutil.rmtree(folder)


def open_below(home: Path) -> list[str]:
    """What lies below a home and has any right for group or others, links aside."""
    found = [path for path in sorted(home.rglob("*")) if not path.is_symlink()]
    return [
        f"{path.relative_to(home)} {mode:04o}" for path in found if (mode := stat.S_IMODE(path.lstat().st_mode)) & 0o077
    ]


@pytest.mark.long
def test_a_fresh_home_is_closed_to_everybody_else(settings: Settings) -> None:
    """Before: superset.db 0644 with hashes of passwords, contacts.duckdb 0444, facts and history 0644, all in 0755."""
    made = {path.name for path in settings.home.root.rglob("*")}
    assert {"superset.db", "contacts.duckdb", "warehouse.duckdb", "facts.parquet", "usage_status.duckdb"} <= made
    assert open_below(settings.home.root) == []
    builds = [path for path in settings.home.published_dir.glob("0*/*") if path.is_file()]
    assert builds and all(stat.S_IMODE(path.stat().st_mode) == 0o400 for path in builds)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; the modes are tested beside it")
@pytest.mark.long
def test_another_user_reads_and_enters_nothing_of_a_fresh_home(settings: Settings) -> None:
    """Before: `nobody` read every file of the home, the private database and superset.db among them."""
    walked = subprocess.run(
        [
            "find",
            str(settings.home.root),
            "-mindepth",
            "1",
            "-not",
            "-type",
            "l",
            "(",
            "-readable",
            "-o",
            "-executable",
            ")",
        ],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert walked.stdout.splitlines() == []
    assert f"{settings.home.root}/facts" in walked.stderr, "it was there to be walked, and was refused"


@pytest.mark.long
def test_the_doctor_names_what_is_open_and_its_remedy_closes_it(settings: Settings) -> None:
    """Before: a doctor said nothing of a home that everybody could read."""
    config = settings.home.root.parent / "sources.yaml"
    opened = settings.home.published_dir / "current" / "contacts.duckdb"
    opened.chmod(0o444)
    done = CliRunner().invoke(app, ["doctor", "-c", str(config)])
    assert done.exit_code == 1
    failed = [line for line in done.output.splitlines() if line.startswith("failed   modes")]
    remedy = f"chmod -R go= {settings.home.root}"
    assert (
        f"{settings.home.root} is open to other accounts of this machine (mode 0755): `{remedy}` closes it" in failed[0]
    )
    assert f"{opened.resolve()} is open to other accounts of this machine (mode 0444)" in failed[1]
    assert len(failed) == 2
    subprocess.run(remedy.split(), check=True)
    said = CliRunner().invoke(app, ["doctor", "-c", str(config)]).output
    assert f"no other account of this machine can read below {settings.home.root}" in said
    settings.home.root.chmod(0o755)


@pytest.mark.long
def test_superset_and_all_its_processes_write_for_their_owner_only(settings: Settings) -> None:
    """Before: gunicorn's own umask was set, and its workers wrote with 0022: gunicorn gives it to sockets alone."""
    folder = settings.home.root / "run"
    before = os.umask(0o022)
    try:
        with serving(superset_environment(settings.home, folder), folder):
            umasks = {
                line.split()[1]
                for process in psutil.Process().children(recursive=True)
                if "serve.py" in (words := " ".join(process.cmdline())) or "gunicorn" in words
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                if line.startswith("Umask:")
            }
    finally:
        os.umask(before)
    assert umasks == {"0077"}
