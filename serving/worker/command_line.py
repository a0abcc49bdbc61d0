"""What a worker process is told when it is started, and the port it is told to share."""

import argparse
import socket
from typing import Final

from serving.config.addresses import Address
from serving.config.store_argument import add_store_argument

__all__ = ["parse_arguments", "shared_socket"]

_BACKLOG: Final = 2048


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """What an engine tells a worker; an incomplete command line ends the process with usage."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.worker.process",
        description="One data-plane process. An engine starts it; see `sluice up`.",
    )
    parser.add_argument("--data", required=True, help="data directory")
    parser.add_argument("--config", required=True, help="configuration directory")
    parser.add_argument("--worker", required=True, type=int, help="this worker's number")
    parser.add_argument("--http", required=True, help="host:port shared by all workers")
    parser.add_argument("--grpc", required=True, help="host:port shared by all workers")
    add_store_argument(parser)
    parser.add_argument("--parent", type=int, help="exit when this process does")
    parser.add_argument(
        "--generation", type=int, default=0, help="settings to go by [default: CONFIG's own]"
    )
    return parser.parse_args(argv)


def shared_socket(address: Address) -> socket.socket:
    """Listen on a port that the other workers share; the kernel spreads the connections."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((address.host, address.port))
    listener.listen(_BACKLOG)
    return listener
