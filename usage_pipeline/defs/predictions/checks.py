"""Checks on predictions."""

from usage_pipeline.defs.tables import contract_check

PREDICTION_CHECKS = [contract_check("low_usage_risks")]
