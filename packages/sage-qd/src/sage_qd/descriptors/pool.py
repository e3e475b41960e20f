"""The descriptors of a job, by name: a mapping that goes to other processes as one text."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.parsing import canonical_json, pointer_to
from sage_qd.errors import DescriptorError

__all__ = ["HasQueueDescriptors", "QueueDescriptorPool"]

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_DESCRIPTORS: Final = 16 * 1024


@runtime_checkable
class HasQueueDescriptors(Protocol):
    """A dispatcher, as far as a pool needs it."""

    @property
    def queue_descriptors(self) -> Mapping[str, BaseQueueDescriptor]:
        """Its descriptors by name."""


class QueueDescriptorPool(Mapping[str, BaseQueueDescriptor]):
    """
    The descriptors of a dispatcher by name, or those of a mapping; it shows what these hold at each moment.

    Args:
        dispatcher: An object with ``queue_descriptors``, or a mapping of descriptors by name.
    """

    def __init__(self, dispatcher: HasQueueDescriptors | Mapping[str, BaseQueueDescriptor]) -> None:
        found = dispatcher if isinstance(dispatcher, Mapping) else getattr(dispatcher, "queue_descriptors", None)
        if not isinstance(found, Mapping):
            raise TypeError(f"a pool needs a mapping, or an object with queue_descriptors, not {dispatcher!r:.80}")
        self.dispatcher = dispatcher
        self.descriptors: Mapping[str, BaseQueueDescriptor] = found

    def __getitem__(self, name: str) -> BaseQueueDescriptor:
        return self.descriptors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.descriptors)

    def __len__(self) -> int:
        return len(self.descriptors)

    def __bool__(self) -> bool:
        """Return True: a pool is there, however much it holds."""
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self):,} descriptors>"

    def serialize_pool(self) -> str:
        """
        Return all descriptors as one canonical JSON object, for :meth:`deserialize_pool` in any process.

        A queue that means something in this process only is moved to where others reach it, by
        ``to_serializable_descriptor``; its handles here follow. One of kind ``auto`` is chosen here and now. When that
        fails for one, those before it stay moved and go on working here.

        Raises:
            NotShareableError: One cannot leave this process.
            NoBackendError: No kind meets the needs of one.
            QueueExistsError: A queue has the name that one is to be moved to.
            ValueError: There are more descriptors than can be read again.
        """
        if len(self) > MAX_DESCRIPTORS:
            raise ValueError(f"a pool has at most {MAX_DESCRIPTORS:,} descriptors, not {len(self):,}")
        documents = {name: each.to_serializable_descriptor().to_dict() for name, each in self.items()}
        text = canonical_json(documents)
        if len(text) > MAX_BYTES:
            raise ValueError(f"a pool takes at most {MAX_BYTES:,} bytes, not {len(text):,}")
        return text.decode()

    @classmethod
    def deserialize_pool(cls, json_data: str | bytes) -> dict[str, BaseQueueDescriptor]:
        """
        Return the descriptors of a pool by name, each of the kind that the registry has for it; nothing is opened.

        Raises:
            TypeError: ``json_data`` is no text.
            DescriptorError: The text is rejected, as a whole; ``pointer`` names the place.
        """
        descriptors = {}
        for name, document in _members(json_data).items():
            try:
                descriptors[name] = BaseQueueDescriptor.from_json(bytes(document))
            except DescriptorError as error:
                raise DescriptorError(pointer=pointer_to(name) + error.pointer, reason=error.reason) from error
        return descriptors


def _members(json_data: str | bytes) -> dict[str, msgspec.Raw]:
    """Take the outer object apart; what is inside is left to the reader of descriptors."""
    if not isinstance(json_data, (str, bytes)):
        raise TypeError(f"a pool must be str or bytes, not {type(json_data).__name__}")
    try:
        data = json_data.encode() if isinstance(json_data, str) else json_data
    except UnicodeEncodeError as error:
        raise DescriptorError(pointer="", reason=f"it is no Unicode text: {error.reason}") from None
    if len(data) > MAX_BYTES:
        raise DescriptorError(pointer="", reason=f"it takes {len(data):,} bytes and the limit is {MAX_BYTES:,}")
    try:
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DescriptorError(pointer="", reason=f"it is no JSON object of descriptors: {error}") from error
    if len(members) > MAX_DESCRIPTORS:
        raise DescriptorError(pointer="", reason=f"it has more than {MAX_DESCRIPTORS:,} descriptors")
    _check_names(data)
    return members


def _check_names(data: bytes) -> None:
    """Refuse a name that comes twice, of which the parser would keep the last one."""
    import json  # only this parser shows both

    def pairs(found: list[tuple[str, Any]]) -> int:
        names = {name for name, _ in found}
        if len(names) != len(found):
            twice = next(name for at, (name, _) in enumerate(found) if name in dict(found[:at]))
            raise DescriptorError(pointer="", reason=f"the name {twice!r:.80} comes twice in one object")
        return 0

    try:
        json.loads(data, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DescriptorError):
            raise
        raise DescriptorError(pointer="", reason=f"it is no JSON: {error}") from error
