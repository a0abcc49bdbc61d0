"""Load tests: requests on a schedule, what became of them, and a verdict."""
