"""Hand the counters to monitoring systems: ``export``."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import rich_click as click

from sage_qd.cli.endings import EXIT_CODES
from sage_qd.cli.listing import namespace_option
from sage_qd.monitor import QueueState, queue_states

__all__ = ["export", "listen_address"]


def listen_address(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, int]:
    """Take a text apart into host and port."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is no address and port, as 127.0.0.1:9464 or [::1]:9464")
    return host, int(port)


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@click.option("--prometheus", is_flag=True, help="Serve the metrics over HTTP (extra prometheus).")
@click.option("--otel", is_flag=True, help="Send the metrics to an OpenTelemetry collector (extra otel).")
@click.option("--once", is_flag=True, help="Print the metrics in Prometheus' format, and end.")
@namespace_option
@click.option(
    "--listen",
    callback=listen_address,
    default="127.0.0.1:9464",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where to serve; port 0 takes any.",
)
@click.option("--beyond-loopback", is_flag=True, help="Allow an address that other machines can reach.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File of this user alone with the token; without it one is made up and printed once.",
)
@click.option("--name", "names", multiple=True, metavar="NAME", help="Another name by which clients call this server.")
@click.option("--endpoint", metavar="URL", help="The collector; by default what OTEL_EXPORTER_OTLP_ENDPOINT says.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds between two sendings to the collector.",
)
def export(
    prometheus: bool,
    otel: bool,
    once: bool,
    namespace: str | None,
    listen: tuple[str, int],
    beyond_loopback: bool,
    token_file: Path | None,
    names: tuple[str, ...],
    endpoint: str | None,
    interval: float,
) -> None:
    """
    Hand the counters of all queues to Prometheus or OpenTelemetry, until interrupted.

    Only counters leave: no message, no payload. The server answers GET /metrics alone, and only to who knows the token
    and calls it by its own name; that holds on loopback too, which every page in a browser can reach.

    \b
    Examples:
      sage-qd export --prometheus
      sage-qd export --prometheus --listen 127.0.0.1:9464 --token-file ~/.config/sage-qd.token
      sage-qd export --otel --endpoint http://localhost:4318/v1/metrics --interval 5
      sage-qd export --once
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    if prometheus + otel + once != 1:
        raise click.UsageError("give exactly one of --prometheus, --otel and --once")

    def states() -> list[QueueState]:
        return queue_states(namespace)

    # The HTTP server of the standard library takes longer to load than most verbs to run.
    from sage_qd.monitor.prometheus import MetricsServer, metrics_text, new_token, token_from_file

    if once:
        click.echo(metrics_text(states()).decode(), nl=False)
    elif otel:
        _send(states, endpoint, interval)
    else:
        token = new_token() if token_file is None else token_from_file(token_file)
        host, port = listen
        server = MetricsServer(states, token=token, host=host, port=port, beyond_loopback=beyond_loopback, names=names)
        try:
            if token_file is None:
                click.echo(f"token: {token}", err=True)
            click.echo(f"serving {server.url}; send the token as 'Authorization: Bearer ...'", err=True)
            _interrupt_on_term()
            server.serve()
        finally:
            server.close()


def _send(states: Callable[[], list[QueueState]], endpoint: str | None, interval: float) -> None:
    from sage_qd.monitor.otel import exporting_provider

    provider = exporting_provider(states, endpoint=endpoint, seconds=interval)
    try:
        click.echo(f"sending every {interval:g} s", err=True)
        _interrupt_on_term()
        threading.Event().wait()
    finally:
        provider.shutdown()


def _interrupt_on_term() -> None:
    """Let a service manager's SIGTERM end this as Ctrl-C does."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
