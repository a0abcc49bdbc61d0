"""The `sluice` command: one module per command, imported only when it is called."""

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code (0 ok, 1 no, 2 usage, 3 unreachable)."""
    from serving.cli.app import app

    app()
