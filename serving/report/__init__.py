"""A model's report as one HTML page: values in, text out; no network, no script, no I/O."""
