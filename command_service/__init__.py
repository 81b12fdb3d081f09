"""Validates commands, owns the event log and publishes it."""
