"""What a run prints: one plain line a message, for people who start it from the command line."""

import logging

import dagster as dg


class _Plain(logging.Formatter):
    """`asset: message`; of an error the cause alone: the whole of it is in the Dagster UI."""

    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {})
        step = meta.get("step_key") or meta.get("job_name") or ""
        text = meta.get("orig_message") or record.getMessage()
        event = meta.get("dagster_event")
        if event is not None and event.is_step_failure and event.step_failure_data.error is not None:
            error = event.step_failure_data.error
            # of what we raise as a failure, the sentence alone
            said = (error.cause or error).message.strip().removeprefix(f"{dg.Failure.__module__}.Failure: ")
            text = f"FAILED: {said}"
        return f"  {step}: {text}"


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Not that a step waits for one that failed: a hundred of those would bury the sentence that says why."""
    said = getattr(record, "dagster_meta", {}).get("orig_message") or ""
    return not said.startswith("Dependencies for step ")


@dg.logger(None, "One plain line a message, for people who start a run from the command line.")
def console_log(_: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("usage_pipeline", logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    handler.addFilter(_is_worth_a_line)
    logger.addHandler(handler)
    return logger
