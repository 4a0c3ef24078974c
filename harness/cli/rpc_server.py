"""`harness rpc-server`: lend this machine's devices to another one."""

from __future__ import annotations

from collections.abc import Sequence

import click

from harness.cli import terminal
from harness.cli.options import WholeNumber
from harness.errors import UsageError
from harness.host.cpu import choose_threads
from harness.host.rpc import is_loopback
from harness.parsers import parse_devices
from harness.records.cells import Device
from harness.runs.rpc_server import Offer, find_endpoint, resolve_address, serve
from harness.units import format_gb

_EXAMPLES = """
\b
Examples:
  harness rpc-server                            this machine, for itself
  harness rpc-server --port 50053 -dev CUDA0    one device of several
  harness rpc-server --host 0.0.0.0 --allow-network
\b
On the machine that measures, through an SSH tunnel (safe):
  ssh -N -L 50052:127.0.0.1:50052 other-machine
  harness sweep -m model.gguf --rpc 127.0.0.1:50052
"""

WARNING = (
    "llama.cpp's RPC has no password and no encryption: whoever reaches {endpoint} can use this machine, read what is sent, and "
    "perhaps run code here. Use it only in a network where you trust every machine, or through an SSH tunnel."
)


@click.command("rpc-server", epilog=_EXAMPLES)
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Address or name to listen on. [127.0.0.1]")
@click.option("--port", type=WholeNumber(0, 65535), default=50052, metavar="N", help="Port; 0 picks one. [50052]")
@click.option("-dev", "--device", "devices", metavar="A/B", help="Devices to lend; default: every GPU, else the CPU.")
@click.option("-t", "--threads", "n_threads", type=WholeNumber(1, 512), metavar="N", help="CPU threads. [cores]")
@click.option("--allow-network", is_flag=True, help="Listen where other machines can reach it.")
def command(host: str, port: int, devices: str | None, n_threads: int | None, allow_network: bool) -> None:
    """Serve this machine's devices by llama.cpp's own RPC, until Ctrl-C.

    A measuring command elsewhere adds them with --rpc HOST:PORT. One client is served at a time. A server that dies is started
    again.
    """
    try:
        names = parse_devices(devices) if devices else ((),)
    except ValueError as error:
        raise UsageError(f"{error}.") from None
    if len(names) != 1:
        raise UsageError(
            f"--device {devices} names alternatives; join the devices to lend with /, such as CUDA0/CUDA1."
        )
    address = resolve_address(host)
    if not is_loopback(address):
        warning = WARNING.format(endpoint=f"{address}:{port}")
        if not allow_network:
            raise UsageError(f"{warning} If that is meant, say --allow-network; else leave out --host.")
        terminal.echo_error(f"warning: {warning}")
    endpoint = find_endpoint(address, port)
    offer = Offer(endpoint, names[0], n_threads or choose_threads().count)
    try:
        serve(offer, announce=lambda lent, pid: _announce(endpoint, lent, pid), warn=terminal.echo_error)
    except KeyboardInterrupt:
        terminal.echo_note("the RPC server has ended.")
        raise


def _announce(endpoint: str, lent: Sequence[Device], pid: int) -> None:
    """The one line that says it is ready, for people and for scripts."""
    free = [
        f"{device.name} ({'memory unknown' if device.memory_free_bytes is None else format_gb(device.memory_free_bytes) + ' free'})"
        for device in lent
    ]
    terminal.show(f"serving {', '.join(free)} on {endpoint} (process {pid}); Ctrl-C ends it")
