"""Asks pip-audit's service what is known against the packages of both locks: `make audit`.

Ends with 0 where nothing is known against any, 1 where something is, 2 where the service could not be asked about all
of them, which is not the same as nothing being wrong. Needs the network; `make check` does not.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "superset/requirements.lock")
CLEAN, KNOWN, NOT_ASKED = 0, 1, 2


def audited(lock: Path, pip_audit: list[str]) -> tuple[int, list[str]]:
    """The outcome for one lock, and the sentences that say it."""
    name = lock.relative_to(REPO).as_posix() if lock.is_relative_to(REPO) else lock.name
    command = [*pip_audit, "--format=json", "--progress-spinner=off", "--desc=off", "--disable-pip", "--require-hashes"]
    done = subprocess.run([*command, "-r", str(lock)], capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return NOT_ASKED, [f"{name}: NOT AUDITED, the service of advisories cannot be asked: {reason}"]
    asked = [package for package in packages if "skip_reason" not in package]
    known = [
        f"{name}: {package['name']} {package['version']}: {found['id']} {' '.join(found.get('aliases', []))}, "
        f"fixed in {', '.join(found['fix_versions']) or 'no release yet'}"
        for package in asked
        for found in package["vulns"]
    ]
    if len(asked) < len(packages):
        silent = len(packages) - len(asked)
        known.append(
            f"{name}: NOT AUDITED, the service of advisories knew nothing of {silent} of {len(packages)} packages: "
            "it is not reachable, or a mirror without advisories answers in its place"
        )
        return (KNOWN if len(known) > 1 else NOT_ASKED), known
    if known:
        return KNOWN, known
    return CLEAN, [f"{name}: nothing is known against its {len(packages)} packages"]


def main(pip_audit: list[str], locks: list[Path]) -> int:
    outcomes = []
    for lock in locks:
        outcome, sentences = audited(lock, pip_audit)
        outcomes.append(outcome)
        print("\n".join(sentences))
    if NOT_ASKED in outcomes:
        print("This is no clean bill: run `make audit` again where the network reaches the service")
    return KNOWN if KNOWN in outcomes else max(outcomes)


if __name__ == "__main__":
    beside = [str(Path(sys.executable).parent / "pip-audit")]
    sys.exit(main([*beside, *sys.argv[1:]], [REPO / lock for lock in LOCKS]))
