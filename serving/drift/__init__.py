"""Drift: frozen bins, a test with a known rate of false alarms, data quality, and verdicts."""
