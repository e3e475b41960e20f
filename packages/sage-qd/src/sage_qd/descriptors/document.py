"""
A descriptor as a document: the members it has, and the checks they must pass.

Version 1 of the document is one object::

    {"can_serialize": true, "class_name": "SageQueueDescriptor", "created_timestamp": 1763948932.5,
     "metadata": {"maxsize": 1000, ...}, "queue_id": "jobs", "queue_type": "sage_queue", "version": 1}

and may have ``instance`` (32 hexadecimal digits: this queue and no later one of the name) and members that start with
``x-``, which are kept. Nothing in it names code: ``queue_type`` is looked up among the registered kinds, ``class_name``
must then be right, and the metadata has exactly the members that this kind has.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from sage_qd.descriptors.parsing import LARGEST_INTEGER, canonical_json, parse_json, pointer_to
from sage_qd.descriptors.settings import Setting
from sage_qd.errors import DescriptorError, DescriptorVersionError

__all__ = ["VERSION", "Members", "check_extensions", "check_tag", "members_of", "settings_of", "with_tag"]

VERSION: Final = 1
_REQUIRED: Final = (
    "version",
    "queue_type",
    "queue_id",
    "class_name",
    "metadata",
    "can_serialize",
    "created_timestamp",
)
_OPTIONAL: Final = ("instance", "hmac")
_INSTANCE: Final = re.compile(r"[0-9a-f]{32}")


class Members(NamedTuple):
    """The members of a document, each of the right type; whether they fit the kind is not known yet."""

    queue_type: str
    queue_id: str
    class_name: str | None
    metadata: Mapping[str, Any]
    can_serialize: bool | None
    created_timestamp: float
    instance: str | None
    extensions: dict[str, Any]
    is_complete: bool


def members_of(document: Mapping[str, Any]) -> Members:
    """
    Check the outer object of a document.

    A document without ``version`` is one of the releases before versions were written: only ``queue_type`` and
    ``queue_id`` are needed then, and settings that it does not have are the defaults.

    Raises:
        DescriptorVersionError: It is of a version that this release does not read.
        DescriptorError: A member is missing, unknown, or of the wrong type.
    """
    is_complete = "version" in document
    if is_complete:
        version = _member(document, "version", int, "an integer")
        if version != VERSION:
            raise DescriptorVersionError(found=version, supported=[VERSION])
    required = _REQUIRED if is_complete else ("queue_type", "queue_id")
    for name in required:
        if name not in document:
            raise DescriptorError(pointer=pointer_to(name), reason="this member is missing")
    extensions = {}
    for name, value in document.items():
        if type(name) is not str:
            raise DescriptorError(pointer="", reason=f"a member has a name that is no text: {name!r:.80}")
        if name.startswith("x-"):
            extensions[name] = value
        elif name not in _REQUIRED and name not in _OPTIONAL:
            raise DescriptorError(pointer=pointer_to(name), reason="there is no such member; own ones start with 'x-'")
    check_extensions(extensions)
    instance = _member(document, "instance", str, "text") if "instance" in document else None
    if instance is not None and not _INSTANCE.fullmatch(instance):
        raise DescriptorError(pointer="/instance", reason="it must be 32 hexadecimal digits in lower case")
    return Members(
        queue_type=_member(document, "queue_type", str, "text"),
        queue_id=_member(document, "queue_id", str, "text"),
        class_name=_member(document, "class_name", str, "text") if "class_name" in document else None,
        metadata=_member(document, "metadata", dict, "an object") if "metadata" in document else {},
        can_serialize=_member(document, "can_serialize", bool, "true or false")
        if "can_serialize" in document
        else None,
        created_timestamp=_timestamp(document),
        instance=instance,
        extensions=extensions,
        is_complete=is_complete,
    )


def settings_of(members: Members, settings: tuple[Setting, ...]) -> dict[str, Any]:
    """
    Check the metadata against the settings of the kind.

    Raises:
        DescriptorError: A setting is missing, unknown, of the wrong type or beyond its limits.
    """
    known = {setting.name for setting in settings}
    for name in members.metadata:
        if name not in known:
            raise DescriptorError(
                pointer=pointer_to("metadata", name), reason=f"{members.queue_type!r} has no such setting"
            )
    values = {}
    for setting in settings:
        if setting.name in members.metadata:
            try:
                values[setting.name] = setting.checked(members.metadata[setting.name])
            except (TypeError, ValueError) as error:
                raise DescriptorError(pointer=pointer_to("metadata", setting.name), reason=str(error)) from error
        elif members.is_complete:
            raise DescriptorError(pointer=pointer_to("metadata", setting.name), reason="this setting is missing")
    return values


def check_extensions(extensions: Mapping[str, Any]) -> None:
    """Refuse members of the user's own that would not survive being written and read."""
    if not extensions:
        return
    try:
        again = parse_json(canonical_json(extensions))
    except DescriptorError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise DescriptorError(pointer=pointer_to(min(extensions)), reason=f"it is no JSON: {error}") from error
    for name, value in extensions.items():
        if again[name] != value:
            raise DescriptorError(pointer=pointer_to(name), reason="it would be another value once written and read")


def with_tag(document: dict[str, Any], key: bytes) -> dict[str, Any]:
    """Return the document with a tag that only the holders of the key can make."""
    return document | {"hmac": _tag(document, key)}


def check_tag(document: Any, key: bytes) -> None:
    """
    Check that a document was written by a holder of the key, in constant time.

    Raises:
        DescriptorError: It has no tag, or a wrong one.
    """
    if type(document) is not dict or type(document.get("hmac")) is not str:
        raise DescriptorError(pointer="/hmac", reason="it is not signed, and a key is configured here")
    unsigned = {name: value for name, value in document.items() if name != "hmac"}
    if not hmac.compare_digest(
        _tag(unsigned, key), document["hmac"].encode("utf-8", "replace").decode("ascii", "replace")
    ):
        raise DescriptorError(pointer="/hmac", reason="the signature is not right for this document and key")


def _tag(document: dict[str, Any], key: bytes) -> str:
    return hmac.new(key, canonical_json(document), hashlib.sha256).hexdigest()


def _member(document: Mapping[str, Any], name: str, kind: type, word: str) -> Any:
    value = document[name]
    if type(value) is not kind:
        raise DescriptorError(pointer=pointer_to(name), reason=f"it must be {word}, not {type(value).__name__}")
    return value


def _timestamp(document: Mapping[str, Any]) -> float:
    if "created_timestamp" not in document:
        return time.time()
    value = document["created_timestamp"]
    if type(value) not in (int, float) or not 0 <= value <= LARGEST_INTEGER:
        raise DescriptorError(pointer="/created_timestamp", reason="it must be seconds since 1970")
    return float(value)
