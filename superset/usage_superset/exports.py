"""Workbooks of the KPI sheet for readers: /kpi-sheets/2026-10, or /kpi-sheets/newest, of a month that was closed.

They lie beside the builds, where the pipeline puts them (`usage_pipeline/defs/kpis/assets.py`).
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import redirect, request, send_file
from flask_login import current_user

from usage_superset.rows import may_read
from usage_superset.texts import text


def add_exports(app: Any, published: str) -> None:
    """Serves the workbooks to whoever may read the sheet itself."""

    @app.get("/kpi-sheets/<month>")
    def kpi_workbook(month: str) -> Any:
        from superset import security_manager

        if not current_user.is_authenticated:
            return redirect(f"/login/?next={quote(request.path)}")
        if not may_read("kpi_report", "mart"):
            return text("kpi_workbook.refused"), 403
        if security_manager.limits():
            return text("kpi_workbook.limited"), 403, _PLAIN
        files = sorted(Path(published).glob("kpi-sheets/*/kpi-sheet-*.xlsx"))
        months = {file.parent.name: file for file in files}
        if month == "newest" and months:
            month = max(months)
        if not re.fullmatch(r"\d{4}-\d{2}", month) or month not in months:
            known = ", ".join(months) or text("kpi_workbook.none_yet")
            return text("kpi_workbook.not_there", month=repr(month), months=known), 404, _PLAIN
        return send_file(months[month].resolve(), as_attachment=True, download_name=months[month].name)


_PLAIN = {"Content-Type": "text/plain; charset=utf-8"}
