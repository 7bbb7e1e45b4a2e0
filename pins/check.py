"""Whether pins.yaml names every image that we pull and what it says is so; needs no network.

An image or package that differs from the list fails. A look that is long ago warns, in words, and fails nothing: a
build that was sound yesterday is sound today.
"""

import re
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).parents[1]
LIST = "pins/pins.yaml"
# stand-ins of the tests, which nobody deploys
_NOT_OURS = {"usage_pipeline_tests", "data", "node_modules"}


def images_in_use(repo: Path) -> dict[str, set[str]]:
    """Every image that a compose file or a Dockerfile pulls, with the files that do (relative paths)."""
    found: dict[str, set[str]] = {}
    for pattern, images_of in (("*compose*.y*ml", _of_compose), ("*Dockerfile*", _of_dockerfile)):
        for file in sorted(repo.rglob(pattern)):
            place = file.relative_to(repo)
            if file.is_file() and not any(part in _NOT_OURS or part.startswith(".") for part in place.parts):
                for image in images_of(file.read_text(encoding="utf-8")):
                    found.setdefault(image, set()).add(place.as_posix())
    return found


def _of_compose(text: str) -> Iterator[str]:
    services = (yaml.safe_load(text) or {}).get("services") or {}
    # what has a build is ours
    yield from (service["image"] for service in services.values() if "image" in service and "build" not in service)


def _of_dockerfile(text: str) -> Iterator[str]:
    lines = text.splitlines()
    arguments = (re.match(r"ARG\s+(\w+)=(\S+)", line, re.IGNORECASE) for line in lines)
    defaults = {found[1]: found[2] for found in arguments if found}
    stages: set[str] = set()
    for line in lines:
        for word in re.findall(r"^FROM\s+(?:--\S+\s+)*(\S+)|^COPY\s.*?--from=(\S+)", line, re.IGNORECASE):
            image = re.sub(r"\$\{?(\w+)\}?", lambda name: defaults.get(name[1], name[0]), word[0] or word[1])
            if image not in stages and image != "scratch" and not image.isdigit():
                yield image
        if stage := re.match(r"FROM\s.*\sAS\s+(\S+)", line, re.IGNORECASE):
            stages.add(stage[1])


def faults(repo: Path, listed: dict[str, Any]) -> Iterator[str]:
    """Where the list and the files differ, each as a sentence that names the file and the remedy."""
    in_use = images_in_use(repo)
    named = {entry["image"] for entry in listed["images"]}
    tags = {image.rpartition(":")[0]: image for image in named}
    for image, files in sorted(in_use.items()):
        if image in named:
            continue
        where, same = ", ".join(sorted(files)), tags.get(image.partition("@")[0].rpartition(":")[0])
        if same:
            yield f"{where} pulls {image}, and {LIST} names {same}: look at both, and make them one"
        else:
            yield f"{where} pulls {image}, which {LIST} does not name: add it, with the day and place of the look"
    for image in sorted(named - in_use.keys()):
        yield f"{LIST} names {image}, which nothing pulls: take it out"
    for entry in listed["packages"]:
        lock = (repo / entry["lock"]).read_text(encoding="utf-8")
        locked = re.search(rf"^{re.escape(entry['name'])}==(\S+)", lock, re.MULTILINE)
        if locked is None:
            yield f"{LIST} names {entry['name']}, which {entry['lock']} does not hold: take it out"
        elif locked[1] != str(entry["version"]):
            yield (
                f"{entry['lock']} holds {entry['name']} {locked[1]}, and {LIST} says {entry['version']}: "
                "look at the new one, and write its version and the day"
            )


def warnings(listed: dict[str, Any], today: date) -> Iterator[str]:
    """What nobody has looked at for longer than the list allows, or on a day that is yet to come."""
    for entry in [*listed["images"], *listed["packages"]]:
        what = entry.get("image") or f"{entry['name']} of {entry['lock']}"
        days = (today - entry["looked_at"]).days
        if days > listed["warn_after_days"]:
            yield f"{what} was last looked at {days} days ago: is there a newer release? Then, or if not, write the day"
        elif days < 0:
            yield f"{what} was looked at on {entry['looked_at']}, which is yet to come: the day or this clock is wrong"


def main(repo: Path = REPO, today: date | None = None) -> int:
    """Says faults and warnings; 1 where there is a fault."""
    listed = yaml.safe_load((repo / LIST).read_text(encoding="utf-8"))
    found = list(faults(repo, listed))
    old = list(warnings(listed, today or date.today()))
    for sentence in found:
        print(sentence, file=sys.stderr)
    for sentence in old:
        print(f"warning: {sentence}")
    if not found:
        count = len(listed["images"]) + len(listed["packages"])
        print(f"{count} pins are as {LIST} says" + (f", {len(old)} of them not looked at for long" if old else ""))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
