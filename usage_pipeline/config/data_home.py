"""Where everything lies that the pipeline writes: one folder, and the names of what is below it.

Belongs here: paths. Does not: what is written into them (the module that writes it), and who may touch which place
(`operations/data_home.py`).
"""

from pathlib import Path

from pydantic import ConfigDict, RootModel


class DataHome(RootModel[Path]):
    """The data home: a folder, written as its path in the configuration."""

    model_config = ConfigDict(frozen=True)

    @property
    def facts_dir(self) -> Path:
        return self.root / "facts"

    @property
    def history_dir(self) -> Path:
        return self.root / "history"

    @property
    def history_lock(self) -> Path:
        """Held by whoever writes what is kept for good, or takes people out of it."""
        return self.history_dir / ".lock"

    @property
    def warehouse_path(self) -> Path:
        return self.root / "warehouse" / "warehouse.duckdb"

    @property
    def private_contacts_path(self) -> Path:
        """Beside the warehouse: the only private database with names, addresses and telephone numbers of contacts."""
        return self.root / "warehouse" / "contacts.duckdb"

    @property
    def published_dir(self) -> Path:
        return self.root / "published"

    @property
    def models_dir(self) -> Path:
        return self.root / "models"

    @property
    def mail_dir(self) -> Path:
        """What was sent to whom, and which incidents are open."""
        return self.root / "mail"

    @property
    def outbox_path(self) -> Path:
        """What chat and webhooks are to be told, and what became of it."""
        return self.root / "outbox" / "outbox.sqlite"

    @property
    def api_dir(self) -> Path:
        """Hashes of the tokens of programs."""
        return self.root / "api"

    @property
    def crm_dir(self) -> Path:
        """Which build the CRM files were written of last."""
        return self.root / "crm"

    @property
    def spill_dir(self) -> Path:
        """What does not fit in memory, and copies of files that are being read."""
        return self.root / "spill"

    @property
    def feedback_dir(self) -> Path:
        """What people record on pages: Superset writes it, and nothing here does."""
        return self.root / "feedback"

    @property
    def outcomes_path(self) -> Path:
        """The call list with its outcomes, as of now: each has a folder of its own, like the status file."""
        return self.root / "outcomes" / "current" / "usage_outcomes.duckdb"

    @property
    def status_path(self) -> Path:
        """The status file of now: each one has a folder of its own, and `current` is a link to the newest."""
        # DuckDB names the catalog after the file: the same name as the schema's would be ambiguous
        return self.root / "status" / "current" / "usage_status.duckdb"

    @property
    def metrics_path(self) -> Path:
        """The same as numbers for Prometheus, where `metrics` are enabled and name no file of their own."""
        return self.root / "status" / "usage_pipeline.prom"
