"""Which images the tests of the deployment put in the place of those that docker-compose.yml and its Dockerfile name."""

import re
from pathlib import Path

import yaml

FILES = ["docker-compose.yml", "usage_pipeline_tests/compose/stand-ins.yml"]


def stand_ins(repo: Path, files: list[str]) -> dict[str, str]:
    """For each image that is replaced, what is in its place, where compose reads these files one after the other."""
    found: dict[str, str] = {}
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", (repo / "deploy" / "Dockerfile").read_text(encoding="utf-8"), re.M)
    named, *laid_over = [yaml.safe_load((repo / file).read_text(encoding="utf-8"))["services"] for file in files]
    for services in laid_over:
        for name, service in services.items():
            if "image" in service and service["image"] != named[name]["image"]:
                found[named[name]["image"]] = service["image"]
            given = (service.get("build") or {}).get("args", {}).get("PYTHON_IMAGE", base)
            if given != base and "image" not in service:
                found[base] = f"{given} of this engine"
    return found


def sentence(repo: Path, files: list[str]) -> str:
    replaced = stand_ins(repo, files)
    if not replaced:
        return "images: every image is the one that docker-compose.yml names"
    told = "; ".join(f"{placed} for {image}" for image, placed in sorted(replaced.items()))
    return f"images: STAND-INS, not the real ones: {told}"
