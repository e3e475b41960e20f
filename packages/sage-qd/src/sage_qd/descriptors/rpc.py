"""Descriptor of the queue at a server, on this host or another one."""

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, overload

from sage_qd.codecs import check_codec_name
from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.settings import Setting, arranged
from sage_qd.errors import BackendUnavailableError
from sage_qd.queues.abilities import RPC
from sage_qd.queues.base import Capabilities
from sage_qd.queues.rpc.keys import check_host, check_public_key, key_from_environment, read_key_file

if TYPE_CHECKING:
    from sage_qd.queues.rpc.keys import KeyPair
    from sage_qd.queues.rpc.queue import RPCQueue

__all__ = ["RPCQueueDescriptor"]

DEFAULT_PORT: Final = 8000
_LARGEST_MAXSIZE: Final = 2**31 - 1
_LONGEST_TIMEOUT: Final = 86_400
_ACKS: Final = ("lease", "auto")
_FIRST_ORDER: Final = ("host", "port", "connection_timeout", "retry_count", "enable_pooling", "queue_id")


def _check_host_name(host: str) -> None:
    if not 0 < len(host) <= 255 or not host.isprintable() or set(host) & set(" /?#@[]%\\"):
        raise ValueError(f"host must be a name or address, not {host!r:.80}")


def _check_ack(ack: str) -> None:
    if ack not in _ACKS:
        raise ValueError(f"ack must be one of {', '.join(_ACKS)}, not {ack!r:.80}")


class RPCQueueDescriptor(BaseQueueDescriptor):
    """
    Names an :class:`~sage_qd.RPCQueue`: a queue at a :class:`~sage_qd.QueueServer`.

    A descriptor may come from anybody, so it is only opened for servers on this machine, and for hosts that the
    environment variable ``SAGE_QD_RPC_HOSTS`` or :func:`~sage_qd.allow_hosts` names.

    Args:
        queue_id: The name of the queue at the server; made up when there is none.
        host: Name or address of the server.
        port: Its port.
        connection_timeout: Seconds to wait for the server, whenever it cannot be reached.
        retry_count: How often a request is sent again when a connection broke before its answer came.
        enable_pooling: Whether the queues of this process at one server share a connection.
        server_key: The server's public key; None for a server without keys, on this machine.
        key_file: Path of the file with our key, see :func:`~sage_qd.generate_keys`.
        key_env: Name of the environment variable with our secret key. The key itself is never part of the descriptor.
        codec: How messages become bytes: ``msgpack``, ``json``, ``raw``, or ``pickle`` with ``allow_pickle``.
        allow_pickle: Let messages be pickles; who can put one can run code here. The server must allow them, too.
        ack: ``lease``: ``get`` is at least once, a client that dies gives back its messages; ``auto``: at most once.
        maxsize: Exact bound in messages of a queue that the server makes for us; 0 or less for whatever there is.
            ``max_items`` is the same.
    """

    queue_type = "rpc_queue"
    can_serialize = True
    uri_scheme: ClassVar[str | None] = "rpc"
    capabilities: ClassVar[Capabilities | None] = RPC
    uri_authority: ClassVar[tuple[str, ...]] = ("host", "port")
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="host", type=str, default="127.0.0.1", check=_check_host_name),
        Setting(name="port", type=int, default=DEFAULT_PORT, low=1, high=65_535),
        Setting(name="connection_timeout", type=float, default=30.0, low=0, high=_LONGEST_TIMEOUT),
        Setting(name="retry_count", type=int, default=3, low=0, high=1_000_000),
        Setting(name="enable_pooling", type=bool, default=True),
        Setting(name="server_key", type=str, default=None, optional=True, check=check_public_key),
        Setting(name="key_file", type=str, default=None, optional=True),
        Setting(name="key_env", type=str, default=None, optional=True),
        Setting(name="codec", type=str, default="msgpack", check=check_codec_name),
        Setting(name="allow_pickle", type=bool, default=False),
        Setting(name="ack", type=str, default="lease", check=_check_ack),
        Setting(name="maxsize", type=int, default=0, low=0, high=_LARGEST_MAXSIZE, uri_name="max_items"),
    )

    host: str
    port: int
    connection_timeout: float
    retry_count: int
    enable_pooling: bool
    server_key: str | None
    key_file: str | None
    key_env: str | None
    codec: str
    allow_pickle: bool
    ack: str
    maxsize: int

    @overload
    def __init__(
        self,
        queue_id: str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        connection_timeout: float = 30.0,
        retry_count: int = 3,
        enable_pooling: bool = True,
        server_key: str | None = None,
        key_file: str | None = None,
        key_env: str | None = None,
        codec: str = "msgpack",
        allow_pickle: bool = False,
        ack: Literal["lease", "auto"] = "lease",
        maxsize: int = 0,
        max_items: int = 0,
    ) -> None: ...
    @overload
    def __init__(
        self,
        host: str,
        port: int,
        connection_timeout: float = 30.0,
        retry_count: int = 3,
        enable_pooling: bool = True,
        queue_id: str | None = None,
        *,
        server_key: str | None = None,
        key_file: str | None = None,
        key_env: str | None = None,
        codec: str = "msgpack",
        allow_pickle: bool = False,
        ack: Literal["lease", "auto"] = "lease",
        maxsize: int = 0,
        max_items: int = 0,
    ) -> None: ...

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        given = arranged(positional, keywords, _FIRST_ORDER)
        super().__init__(**given)
        if self.key_file is not None and self.key_env is not None:
            raise ValueError("key_file and key_env are two places for one key; give one of them")
        if self.codec == "pickle" and not self.allow_pickle:
            raise ValueError("codec 'pickle' needs allow_pickle=True: whoever can put a message can run code here")
        if self.allow_pickle and self.server_key is None:
            raise ValueError("allow_pickle=True needs a server_key: pickles are taken from a server that is known")

    def _open_queue(self, create: bool) -> "RPCQueue[Any]":
        check_host(self.host)
        try:
            from sage_qd.queues.rpc.calls import Address
            from sage_qd.queues.rpc.queue import RPCQueue

            keys = self._keys()
        except ImportError as error:
            raise BackendUnavailableError(
                backend=self.queue_type,
                missing=f"the socket library ({error})",
                install="pip install 'sage-qd[rpc]'",
            ) from error
        address = Address(
            self.host,
            self.port,
            server_key=self.server_key,
            keys=keys,
            connection_timeout=self.connection_timeout,
            retry_count=self.retry_count,
        )
        return RPCQueue(
            address,
            self.queue_id,
            codec=self.codec,
            maxsize=self.maxsize,
            auto_ack=self.ack == "auto",
            is_shared=self.enable_pooling,
            create=create,
            instance=self.instance,
        )

    def _keys(self) -> "KeyPair | None":
        """Our key, from where the descriptor says that it is."""
        if self.key_file is not None:
            return read_key_file(self.key_file)
        return None if self.key_env is None else key_from_environment(self.key_env)

    def get_connection_status(self) -> dict[str, Any]:
        """
        Figures of the connection; opens none.

        Returns:
            ``endpoint``, ``state`` (``lazy`` before the queue is open, then ``connecting``, ``greeting``, ``up`` or
            ``down``), ``connected``, ``encrypted``, ``server_id``, ``connections`` (how often one was made),
            ``in_flight`` (requests without an answer), ``silent_seconds`` and ``reason`` (why it is not connected).
        """
        queue = self.queue_instance
        if queue is None:
            return {
                "endpoint": f"rpc://{self.host}:{self.port}",
                "state": "lazy",
                "connected": False,
                "encrypted": self.server_key is not None,
                "server_id": None,
                "connections": 0,
                "in_flight": 0,
                "silent_seconds": None,
                "reason": "the queue is not open here",
            }
        status: dict[str, Any] = queue.connection_status()  # type: ignore[attr-defined]  # the kind of queue it opens
        return status

    def reconnect(self) -> None:
        """Close the queue here and open it again, on a connection that works; leases are given back."""
        self.trim()
        self.open()

    if TYPE_CHECKING:  # the same methods; only the type of the queue is known here

        def open(self, create: bool | None = None) -> "RPCQueue[Any]": ...  # noqa: D102
        def attach(self) -> "RPCQueue[Any]": ...  # noqa: D102
