"""What reacts to runs: the status file is written after every one, failed ones too."""

import dagster as dg

from usage_pipeline.config import Settings
from usage_pipeline.lib.status import write_status


def status_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    def sensor(status: dg.DagsterRunStatus) -> dg.SensorDefinition:
        @dg.run_status_sensor(
            name=f"status_after_{status.value.lower()}",
            run_status=status,
            default_status=dg.DefaultSensorStatus.RUNNING,
            description="Writes the status file.",
        )
        def after_run(context: dg.RunStatusSensorContext) -> None:
            write_status(settings, context.instance)

        return after_run

    ends = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    return [sensor(status) for status in ends]
