"""A load test's outcome for others: JSON for programs, JUnit XML for CI, a page for people."""
