"""Sluice: a low-latency model-serving gateway."""
