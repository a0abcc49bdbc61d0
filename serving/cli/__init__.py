"""The `sluice` command."""


def main() -> None:
    """Run the command line."""
    raise SystemExit("sluice: no commands yet")
