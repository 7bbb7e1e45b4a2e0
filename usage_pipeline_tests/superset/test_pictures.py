"""Pages beside their kept pictures: a change of how they look is seen, and `make pictures` keeps the new look.

A picture is kept at half of its size. It is compared in squares, by their mean color, so that a letter which another
release of the browser draws a bit differently is no change, and a chart that is gone, moved or recolored is one.
"""

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.kept import REPO
from usage_pipeline_tests.support.servers import SupersetServer
from usage_pipeline_tests.support.superset_client import logged_in, open_path, path_to

pytestmark = [pytest.mark.superset, pytest.mark.long]

KEPT = Path(__file__).parent / "pictures"
# pictures of a run that differ from the kept ones, to look at
DIFFERENT = REPO / "data" / "pictures"
# pixels of a side of a square, of a kept picture; by how much its color may differ, of 255; how many squares may do so
_SQUARE, _COLOR, _SHARE = 10, 24, 0.01
_HEIGHT = 1600

DESKTOP, PHONE = 1400, 390
# the state of the data is left out: it tells of the moment
PAGES = (
    *("call-list", "account", "application", "applications-accounts", "usage-over-time", "changes"),
    *("low-inactive", "kpi-sheet", "contacts"),
)
VIEWS = [
    *((slug, DESKTOP, "light") for slug in PAGES),
    *((slug, DESKTOP, "dark") for slug in ("call-list", "account")),
    *((slug, PHONE, "light") for slug in ("call-list", "account", "contacts")),
]
# the others stand in `make soak`, and `make pictures` renews all
_EACH_TIME = (("call-list", DESKTOP, "light"), ("account", DESKTOP, "light"), ("call-list", PHONE, "light"))


def squares(picture: Image.Image) -> NDArray[np.int16]:
    """Mean colors of the squares of a picture: (rows, columns, 3)."""
    small = picture.convert("RGB").resize((picture.width // _SQUARE, picture.height // _SQUARE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.int16)


def share_that_differs(one: Image.Image, other: Image.Image) -> float:
    """Share of squares whose color differs; 1 where the pictures have not the same size."""
    if one.size != other.size:
        return 1.0
    return float((np.abs(squares(one) - squares(other)).max(axis=2) > _COLOR).mean())


def picture_of(page: Any) -> Image.Image:
    """The page as it is seen, at half of its size, in 128 colors as it is kept."""
    taken = Image.open(BytesIO(page.screenshot())).convert("RGB")
    half = taken.resize((taken.width // 2, taken.height // 2), Image.Resampling.BOX)
    return half.quantize(128, dither=Image.Dither.NONE)


@pytest.fixture
def opened(superset: SupersetServer, browser: Any, demo: Demo, request: pytest.FixtureRequest) -> Any:
    """A page of the view, drawn."""
    slug, width, theme = request.param
    page = logged_in(browser, superset, "manager", theme, (width, _HEIGHT))
    open_path(page, superset, path_to(slug, demo))
    page.mouse.move(5, 5)
    # charts grow into their place for a second
    page.wait_for_timeout(1500)
    yield page, KEPT / f"{slug}-{width}-{theme}.png"
    page.context.close()


@pytest.mark.parametrize(
    "opened",
    [pytest.param(view, marks=() if view in _EACH_TIME else pytest.mark.soak) for view in VIEWS],
    ids=lambda view: "-".join(map(str, view)),
    indirect=True,
)
def test_a_page_looks_as_it_was_kept(opened: tuple[Any, Path]) -> None:
    page, file = opened
    now = picture_of(page)
    if os.environ.get("USAGE_KEEP_PICTURES"):
        KEPT.mkdir(exist_ok=True)
        now.save(file, optimize=True)
    kept = Image.open(file)
    share = share_that_differs(now, kept)
    if share > _SHARE:
        DIFFERENT.mkdir(parents=True, exist_ok=True)
        now.save(DIFFERENT / file.name)
    assert share <= _SHARE, (
        f"{share:.1%} of the page differ from {file.relative_to(REPO)}: compare it with {DIFFERENT / file.name}, "
        "and keep the new look by `make pictures` where it is meant"
    )


@pytest.mark.parametrize("opened", [("call-list", DESKTOP, "light")], indirect=True)
@pytest.mark.parametrize(
    "change",
    [
        "document.querySelector('.dashboard-chart:has(canvas)').style.visibility = 'hidden'",
        "document.querySelectorAll('table td').forEach(cell => cell.style.background = '#ffd0d0')",
        "document.querySelector('.grid-container').style.paddingTop = '60px'",
    ],
    ids=["gone", "recolored", "moved"],
)
def test_a_chart_that_is_gone_recolored_or_moved_is_seen(opened: tuple[Any, Path], change: str) -> None:
    page, _ = opened
    before = picture_of(page)
    assert share_that_differs(before, picture_of(page)) <= _SHARE / 2, "the same page twice"
    page.evaluate(change)
    page.wait_for_timeout(500)
    assert share_that_differs(before, picture_of(page)) > _SHARE
