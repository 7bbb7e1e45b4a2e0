"""Checks on anomalies."""

from usage_pipeline.defs.tables import schema_check

ANOMALY_CHECKS = [schema_check("anomaly_weeks"), schema_check("anomaly_rates"), schema_check("platform_events")]
