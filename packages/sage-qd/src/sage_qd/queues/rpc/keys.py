"""
Who may talk to whom: key files, allow-lists of public keys, and the hosts that a descriptor may lead to.

A key file is text, readable by its owner alone::

    # sage-qd CURVE key; keep it secret
    public = 40 characters
    secret = 40 characters

A public key alone stands in a file ``….pub``; an allow-list is a file of such keys, one a line, ``#`` starts a comment.
The secret part is never shown: not in a ``repr``, not in an error, not in a log.
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from typing import Final

from sage_qd.errors import DescriptorError, InsecureQueueError

__all__ = [
    "HOSTS_VARIABLE",
    "KeyPair",
    "allow_hosts",
    "check_host",
    "check_public_key",
    "generate_keys",
    "is_loopback",
    "key_from_environment",
    "read_allow_list",
    "read_key_file",
]

HOSTS_VARIABLE: Final = "SAGE_QD_RPC_HOSTS"
"""Environment variable with the hosts, beside those of this machine, that descriptors may lead to; ``*`` for all."""
KEY_CHARACTERS: Final = 40
_Z85: Final = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#")
_HEADING: Final = "# sage-qd CURVE key; keep it secret\n"
_allowed_hosts: Final[set[str]] = set()
_mutex: Final = Lock()


@dataclass(frozen=True)
class KeyPair:
    """
    A public key and the secret one that belongs to it.

    Attributes:
        public: 40 characters that others may know.
        secret: 40 characters that nobody else may know; not shown.
    """

    public: str
    secret: str = field(repr=False)


def check_public_key(key: str) -> None:
    """
    Check the form of a public key.

    Raises:
        ValueError: It is none.
    """
    if len(key) != KEY_CHARACTERS or not _Z85.issuperset(key):
        raise ValueError(f"a public CURVE key has {KEY_CHARACTERS} Z85 characters, and {key!r:.60} is none")


def generate_keys(path: str | os.PathLike[str]) -> KeyPair:
    """
    Make a new pair of keys and write it to ``path`` (mode 0600), its public half also to ``path`` with ``.pub`` added.

    Both files are complete or not there: they get their names when they are written.

    Raises:
        FileExistsError: One of the files is there; keys are never written over.
        BackendUnavailableError: The socket library, which makes keys, is not installed.
    """
    from sage_qd.queues.rpc.sockets import new_pair

    public, secret = new_pair()
    place = Path(path)
    _write_new(place, f"{_HEADING}public = {public}\nsecret = {secret}\n", 0o600)
    _write_new(place.with_name(f"{place.name}.pub"), f"{public}\n", 0o644)
    return KeyPair(public, secret)


def _write_new(place: Path, text: str, mode: int) -> None:
    """Write a file beside its place and link it in: a kill leaves a file of another name at most, never half a key."""
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(fresh, place)
    finally:
        fresh.unlink()


def read_key_file(path: str | os.PathLike[str]) -> KeyPair:
    """
    Return the pair of a key file.

    Raises:
        OSError: It cannot be read.
        InsecureQueueError: Others could read or write it, or it is no regular file of this user.
        ValueError: It is no key file; says which line is wrong, without its content.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle) as file:
        found = os.fstat(file.fileno())
        shown = os.fspath(path)
        if not stat.S_ISREG(found.st_mode):
            raise InsecureQueueError(path=shown, reason="it is no regular file", stat=found)
        if found.st_uid not in (os.geteuid(), 0):
            raise InsecureQueueError(path=shown, reason="it belongs to another user", stat=found)
        if found.st_mode & 0o077:
            raise InsecureQueueError(path=shown, reason="others may read or write this secret", stat=found)
        lines = file.read(4096).splitlines()
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            name, equals, value = line.partition(" = ")
            if not equals or name not in ("public", "secret") or name in values:
                raise ValueError(f"{shown!r} is no key file: line {number} is not 'public = …' or 'secret = …'")
            values[name] = value.strip()
    if values.keys() != {"public", "secret"}:
        raise ValueError(f"{shown!r} is no key file: it needs a public and a secret key")
    return _pair(values["secret"], shown, values["public"])


def key_from_environment(variable: str) -> KeyPair:
    """
    Return the pair whose secret key an environment variable holds.

    Raises:
        ValueError: It is not set, or holds no key; its content is not shown.
    """
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise ValueError(f"the environment variable {variable!r} should hold a secret key and is not set")
    return _pair(secret, f"the environment variable {variable}", None)


def _pair(secret: str, where: str, public: str | None) -> KeyPair:
    from sage_qd.queues.rpc.sockets import public_of

    try:
        derived = public_of(secret)
    except ValueError:
        raise ValueError(f"{where!r} holds no secret CURVE key of {KEY_CHARACTERS} Z85 characters") from None
    if public is not None and public != derived:
        raise ValueError(f"{where!r} holds a public key that does not belong to its secret one")
    return KeyPair(derived, secret)


def read_allow_list(path: str | os.PathLike[str]) -> frozenset[str]:
    """
    Return the public keys of an allow-list.

    Raises:
        ValueError: A line is no public key; names the line.
    """
    keys = set()
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        key = line.split(" #", 1)[0].strip()
        if key and not line.startswith("#"):
            try:
                check_public_key(key)
            except ValueError as error:
                raise ValueError(f"{os.fspath(path)!r}, line {number}: {error}") from None
            keys.add(key)
    return frozenset(keys)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, and reached by nobody else."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def allow_hosts(*hosts: str) -> None:
    """Let descriptors lead this process to more hosts than its own: names or addresses as descriptors have them."""
    for host in hosts:
        if not host:
            raise ValueError("a host has a name or an address")
    with _mutex:
        _allowed_hosts.update(hosts)


def check_host(host: str) -> None:
    """
    Refuse a host that this process was not allowed to talk to: a descriptor may come from anybody.

    Raises:
        DescriptorError: It is not this machine, and nobody allowed it.
    """
    named: Iterable[str] = (each.strip() for each in os.environ.get(HOSTS_VARIABLE, "").split(","))
    with _mutex:
        allowed = _allowed_hosts.union(named)
    if is_loopback(host) or host in allowed or "*" in allowed:
        return
    raise DescriptorError(
        pointer="/metadata/host",
        reason=f"this process may not connect to {host!r}; name it in {HOSTS_VARIABLE} or call allow_hosts({host!r})",
    )
