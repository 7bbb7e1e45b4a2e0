"""Every page printed to PDF and read back: it holds all that its tables show on the screen, whatever the tab."""

from io import BytesIO
from typing import Any

import pypdf
import pytest

from usage_pipeline_tests.support.demo_home import Demo
from usage_pipeline_tests.support.servers import SupersetServer
from usage_pipeline_tests.support.superset_client import logged_in, open_path, path_to, some_of_the_pages, tabs_of

pytestmark = [pytest.mark.superset, pytest.mark.long]

# texts of the cells that are seen: an empty one is drawn without its "N/A"
_CELLS = (
    "[...document.querySelectorAll('.dashboard-chart table tbody td:not(.dt-is-null)')]"
    ".filter(cell => cell.offsetParent).map(cell => cell.innerText)"
)


def without_breaks(text: str) -> str:
    """Texts as they compare: lines end where paper or a cell is narrow."""
    return "".join(text.split()).replace("\u2060", "")


@pytest.mark.parametrize("slug", some_of_the_pages("call-list"))
def test_a_printed_page_holds_every_cell_of_its_tables(
    superset: SupersetServer, browser: Any, demo: Demo, slug: str
) -> None:
    """Before: what scrolled on the screen or lay beyond the edge of the paper was cut, a third of the call list."""
    page = logged_in(browser, superset, "viewer")
    open_path(page, superset, path_to(slug, demo))
    printed = 0
    for tab in tabs_of(page):
        cells = [text for text in page.evaluate(_CELLS) if text.strip()]
        pdf = pypdf.PdfReader(BytesIO(page.pdf(prefer_css_page_size=True)))
        text = without_breaks("".join(sheet.extract_text() for sheet in pdf.pages))
        missing = [cell for cell in cells if without_breaks(cell) not in text]
        assert not missing, (tab, missing[:10])
        printed += len(cells)
    assert printed > 3, "the line on top at least"
    page.context.close()
