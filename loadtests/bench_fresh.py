"""What a fresh HTTP connection costs a gateway: CPU of its workers per connection.

    python loadtests/bench_fresh.py                        # 1, 2, 4 and 8 workers, 32 at a time
    python loadtests/bench_fresh.py --tls --workers 1,4

Each connection asks one thing (`/v2/health/live`), is answered and closed, as many as `--clients`
being open at a time. Counted is user and system time of the worker processes over connections; the
client's own does not count. Stops by itself.
"""

import argparse
import contextlib
import json
import socket
import ssl
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import gateway_kit
import onnx_models
import trustme
from bench_process import cpu_seconds

_ASK = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_SECONDS = 20.0
_WARM_UP = 500


@contextlib.contextmanager
def gateway(workers: int, *, tls: bool) -> Iterator[tuple[Any, ssl.SSLContext | None]]:
    """One that runs, and how its clients speak TLS."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "conf"
        listen: dict[str, Any] = dict.fromkeys(("http", "grpc", "admin"), "127.0.0.1:0")
        context = None
        if tls:
            directory.mkdir()
            authority = trustme.CA()
            certificate = authority.issue_cert("localhost")
            key = directory / "key.pem"
            certificate.private_key_pem.write_to_path(str(key))
            key.chmod(0o600)
            chain = directory / "cert.pem"
            chain.write_bytes(b"".join(one.bytes() for one in certificate.cert_chain_pems))
            listen["http"] = {
                "address": "127.0.0.1:0",
                "tls": {"cert": chain.name, "key": key.name},
            }
            context = ssl.create_default_context()
            authority.configure_trust(context)
        gateway_kit.write_gateway(directory, engine={"workers": workers}, listen=listen)
        gateway_kit.write_model(directory, "m", {"v1": onnx_models.doubler(3)}, {})
        with gateway_kit.running(directory) as running:
            yield running, context


def connect(address: str, number: int, clients: int, context: ssl.SSLContext | None) -> None:
    """Make that many connections and have each answered."""
    host, _, port = address.rpartition(":")
    for _ in range(number // clients):
        with ExitStack() as stack:
            opened = []
            for _ in range(clients):
                one = stack.enter_context(socket.create_connection((host, int(port)), _SECONDS))
                if context is not None:
                    one = stack.enter_context(context.wrap_socket(one, server_hostname="localhost"))
                opened.append(one)
            for one in opened:
                one.sendall(_ASK)
            for one in opened:
                assert one.recv(4096).startswith(b"HTTP/1.1 200"), "a connection got no answer"


def handed_over(running: gateway_kit.Running) -> float:
    """How many connections went to a sibling so far."""
    text = running.ask(f"{running.admin}/metrics", token=running.token)[1]
    return sum(
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("sluice_connections_handed_over_total")
    )


def measure(workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds of CPU a connection, by round."""
    rounds, number = [], options.connections // options.clients * options.clients
    with gateway(workers, tls=options.tls) as (running, context):
        pids = set(running.pids("worker"))
        connect(running.http, _WARM_UP, options.clients, context)
        for _ in range(options.rounds):
            before = sum(cpu_seconds(pids).values())
            connect(running.http, number, options.clients, context)
            rounds.append((sum(cpu_seconds(pids).values()) - before) / number * 1e6)
        made = _WARM_UP // options.clients * options.clients + number * options.rounds
        share = handed_over(running) / made
    return {"workers": workers, "cpu_us": rounds, "handed_over": share}


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", default="1,2,4,8", help="numbers of workers (1,2,4,8)")
    parser.add_argument("--connections", type=int, default=6000, help="in each round (6000)")
    parser.add_argument("--clients", type=int, default=32, help="open at a time (32)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions (3)")
    parser.add_argument("--tls", action="store_true", help="with TLS")
    parser.add_argument("--json", action="store_true", help="print one JSON list and no table")
    options = parser.parse_args()
    found = [measure(int(number), options) for number in options.workers.split(",")]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'workers':>7}  {'CPU us':>7}  {'handed over':>11}  rounds")
    for one in found:
        rounds = " ".join(f"{value:.0f}" for value in one["cpu_us"])
        median = statistics.median(one["cpu_us"])
        print(f"{one['workers']:7}  {median:7.0f}  {one['handed_over']:11.0%}  {rounds}")


if __name__ == "__main__":
    main()
