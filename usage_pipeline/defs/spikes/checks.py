"""Checks on flags."""

from usage_pipeline.defs.tables import contract_check

SPIKE_CHECKS = [contract_check("flagged_weeks"), contract_check("fleet_events")]
