"""A refresh through the whole graph or a part of it, in this process."""

import json
from dataclasses import asdict

import dagster as dg

from usage_pipeline.config.settings import Settings
from usage_pipeline.definitions import build_definitions
from usage_pipeline.defs.schedules import window_tags
from usage_pipeline.publishing.builds import Build, BuildStore
from usage_pipeline.publishing.history import attach_pending, history_locked, promote


def run_refresh(
    settings: Settings,
    instance: dg.DagsterInstance,
    tags: dict[str, str] | None = None,
    only: list[str] | None = None,
    with_workbook: bool = False,
) -> dg.ExecuteInProcessResult:
    """The whole graph, or the assets named in `only`, through Dagster in this process.

    Nothing is made from the monthly KPI workbook, and its charts take a quarter of a small refresh: it is made for
    those who ask.
    """
    job = build_definitions(settings).resolve_job_def("refresh")
    names = only or [key.to_user_string() for key in job.asset_layer.selected_asset_keys]
    wanted = [dg.AssetKey(name) for name in names if with_workbook or only or name != "kpi_workbook"]
    return job.execute_in_process(
        instance=instance,
        tags=tags or window_tags(settings.clock),
        raise_on_error=False,
        asset_selection=wanted,
        run_config={"loggers": {"console": {"config": {}}}},
    )


def keep_as_published(settings: Settings) -> Build:
    """Publishes what is pending for history in a build of nothing else, as `published_build` does it."""
    store = BuildStore(settings.home.published_dir)
    newest = max((build.newest_week for build in store.builds()), default=str(settings.clock.running_week))
    as_of = settings.as_of.isoformat()
    build = Build(store.next_id(as_of, "0" * 8), as_of, newest, "0" * 8, {})
    with history_locked(settings.home, settings.ingest.wait_seconds):
        attach_pending(settings.home.history_dir, build, store.path(build.build_id))
        store.path(build.build_id).mkdir(parents=True, exist_ok=True)
        (store.path(build.build_id) / "build.json").write_text(json.dumps(asdict(build)), encoding="utf-8")
        store.finish()
        promote(settings.home)
    return build


def upstream_of(settings: Settings, *assets: str) -> list[str]:
    """Assets with all that they rest on."""
    graph = build_definitions(settings).resolve_asset_graph()
    return sorted(key.to_user_string() for key in dg.AssetSelection.assets(*assets).upstream().resolve(graph))
