"""A server process for tests of queues at a server: on loopback, with CURVE on both sides."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sage_qd import generate_keys

SERVER = """
import sys
from sage_qd import LocalQueueDescriptor, SageQueueDescriptor, read_allow_list, read_key_file, serve

kind, namespace, key, clients = sys.argv[1:]

def make(name, maxsize):
    if kind == "local":
        return LocalQueueDescriptor(name, maxsize=maxsize)
    return SageQueueDescriptor(name, maxsize=maxsize, namespace=namespace, codec=kind)

serve(
    make=make,
    keys=read_key_file(key),
    clients=read_allow_list(clients),
    allow_pickle=True,
    ready=lambda server: print(server.port, flush=True),
)
"""


@contextmanager
def server_process(kind: str) -> Iterator[dict[str, Any]]:
    """
    Run a server that makes queues as they are asked for; yields the settings of descriptors that reach it.

    Args:
        kind: ``local`` for queues in its memory, or the codec of rings.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = generate_keys(folder / "server")
        generate_keys(folder / "client")
        arguments = [kind, f"rpc-contract-{os.getpid()}", folder / "server", folder / "client.pub"]
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield {"port": port, "server_key": keys.public, "key_file": str(folder / "client")}
        finally:
            process.terminate()
            process.communicate(timeout=60)
        assert process.returncode == 0
