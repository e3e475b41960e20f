"""Host queues for other hosts: ``serve``."""

from pathlib import Path

import rich_click as click

from sage_qd.cli.endings import EXIT_CODES
from sage_qd.cli.exporting import listen_address
from sage_qd.descriptors import BaseQueueDescriptor

__all__ = ["serve"]

_file = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@click.argument("descriptors", nargs=-1, metavar="DESCRIPTOR...")
@click.option(
    "--listen",
    callback=listen_address,
    default="127.0.0.1:8000",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where to serve; port 0 takes any.",
)
@click.option("--key-file", type=_file, help="The server's key file, of this user alone.")
@click.option("--clients", type=_file, help="File with the public keys of the clients that are let in, one a line.")
@click.option("--allow-pickle", is_flag=True, help="Let pickles pass between clients; needs both of the above.")
@click.option("--insecure", is_flag=True, help="Listen beyond this machine without keys: everybody can read and write.")
@click.option("--make-key", type=_file, help="Make a key file here, with its public half in ....pub, and end.")
def serve(
    descriptors: tuple[str, ...],
    listen: tuple[str, int],
    key_file: Path | None,
    clients: Path | None,
    allow_pickle: bool,
    insecure: bool,
    make_key: Path | None,
) -> None:
    """
    Host queues for clients on this host and on others, until interrupted.

    DESCRIPTOR is a URI or JSON; clients know the queue by its queue id. It is opened, and made if it is missing. Beyond
    this machine the server needs a key and a list of clients. Needs the extra rpc.

    \b
    Examples:
      sage-qd serve --make-key server.key
      sage-qd serve 'sage://team/jobs?codec=msgpack&auto_cleanup=false'
      sage-qd serve 'sage://team/jobs?codec=msgpack' --listen 0.0.0.0:8000 --key-file server.key --clients clients
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    from sage_qd.queues.rpc.keys import generate_keys, read_allow_list, read_key_file

    if make_key is not None:
        if descriptors:
            raise click.UsageError("--make-key makes a key and serves nothing")
        click.echo(f"public key {generate_keys(make_key).public}")
        return
    if not descriptors:
        raise click.UsageError("give at least one descriptor")
    served = {each.queue_id: each for each in map(_read, descriptors)}
    if len(served) < len(descriptors):
        raise click.UsageError("two descriptors have the same queue id")
    from sage_qd.queues.rpc.server import serve as serve_queues

    host, port = listen
    serve_queues(
        served,
        host=host,
        port=port,
        keys=None if key_file is None else read_key_file(key_file),
        clients=None if clients is None else read_allow_list(clients),
        allow_pickle=allow_pickle,
        insecure=insecure,
    )


def _read(text: str) -> BaseQueueDescriptor:
    return BaseQueueDescriptor.from_json(text) if text.startswith("{") else BaseQueueDescriptor.from_uri(text)
