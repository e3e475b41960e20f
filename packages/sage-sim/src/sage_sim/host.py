"""
The server of a run's RPC queues: ``python -m sage_sim.host``, started by the conductor and by nobody else.

It tells its port and public key on an inherited pipe, and never outlives the conductor. With a folder for keys, clients
have to prove who they are, everything is encrypted, and messages may be pickles.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_sim.lifeline import die_with

if TYPE_CHECKING:
    from sage_qd import QueueServer


@dataclass(frozen=True, kw_only=True)
class Hosting:
    """
    What the server has to do; its only argument, as JSON.

    Attributes:
        conductor: Process id of the parent.
        ready: File descriptor on which to tell port and key.
        keys: Folder for keys, which are made there; None for none.
    """

    conductor: int
    ready: int
    keys: str | None = None


def main() -> None:
    """Serve until the conductor ends it, or ends."""
    hosting = Hosting(**json.loads(sys.argv[1]))
    die_with(hosting.conductor)
    import sage_qd  # what is loaded from here on needs the library for sockets, which other runs do without

    access: dict[str, Any] = {}
    if hosting.keys is not None:
        folder = Path(hosting.keys)
        folder.mkdir(mode=0o700)
        for name in ("server", "client"):
            sage_qd.generate_keys(folder / name)
        clients = sage_qd.read_allow_list(folder / "client.pub")
        access = {"keys": sage_qd.read_key_file(folder / "server"), "clients": clients, "allow_pickle": True}

    def tell(server: QueueServer) -> None:
        os.write(hosting.ready, json.dumps({"port": server.port, "key": server.public_key}).encode() + b"\n")

    sage_qd.serve(make=lambda name, maxsize: sage_qd.LocalQueueDescriptor(name, maxsize=maxsize), ready=tell, **access)


if __name__ == "__main__":
    main()
