"""
Descriptors as URIs: ``scheme://namespace/queue?setting=value#instance``.

What stands between the second and third slash is said by the kind: most have a namespace or nothing there, others two
settings with a colon between them, as in ``scheme://host:port/queue``. Settings at their default are left out, the
others stand in the order of their names. Everything that is not a letter, digit or one of ``_.-~`` is percent-quoted.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from sage_qd.descriptors.parsing import MAX_BYTES, MAX_MEMBERS, pointer_to
from sage_qd.descriptors.settings import Setting
from sage_qd.errors import DescriptorError

__all__ = ["NAMESPACE_ONLY", "Parts", "parsed", "settings_of", "written"]

_FORM: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9_+.-]*)://(?P<authority>[^/?#]*)/(?P<queue_id>[^/?#]+)"
    r"(?:\?(?P<settings>[^#]+))?(?:\#(?P<instance>[0-9a-f]{32}))?"
)
_QUOTED: Final = re.compile(r"(?:[A-Za-z0-9_.~-]|%[0-9A-F]{2})*")
_NAMESPACE: Final = "namespace"
NAMESPACE_ONLY: Final = (_NAMESPACE,)
"""Settings before the queue id, unless a kind has others there."""


class Parts(NamedTuple):
    """The parts of a URI, unquoted; whether they fit the kind is not known yet."""

    scheme: str
    authority: tuple[str, ...]
    queue_id: str
    settings: dict[str, str]
    instance: str | None


def written(
    scheme: str,
    queue_id: str,
    values: Mapping[str, Any],
    settings: tuple[Setting, ...],
    instance: str | None,
    authority: tuple[str, ...] = NAMESPACE_ONLY,
) -> str:
    """Return the URI of a queue; ``authority`` names the settings that stand before the queue id."""
    known = {each.name: each for each in settings}
    place = ":".join(quote(known[name].written(values[name]), safe="") for name in authority if name in known)
    pairs = sorted(
        f"{each.written_name}={quote(each.written(values[each.name]), safe='')}"
        for each in settings
        if each.name not in authority and values[each.name] != each.default
    )
    query = f"?{'&'.join(pairs)}" if pairs else ""
    fragment = f"#{instance}" if instance is not None else ""
    return f"{scheme}://{place}/{quote(queue_id, safe='')}{query}{fragment}"


def parsed(text: str) -> Parts:
    """
    Take a URI apart.

    Raises:
        TypeError: ``text`` is no text.
        DescriptorError: It is too long, or no URI of a queue.
    """
    if not isinstance(text, str):
        raise TypeError(f"a URI must be text, not {type(text).__name__}")
    if len(text) > MAX_BYTES:
        raise DescriptorError(pointer="", reason=f"the URI has {len(text):,} characters and the limit is {MAX_BYTES:,}")
    found = _FORM.fullmatch(text)
    if found is None:
        raise DescriptorError(pointer="", reason="a URI of a queue looks like scheme://namespace/queue?setting=value")
    pairs = found["settings"].split("&") if found["settings"] else []
    if len(pairs) > MAX_MEMBERS:
        raise DescriptorError(pointer="/metadata", reason=f"it has more than {MAX_MEMBERS} settings")
    settings: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name in settings:
            raise DescriptorError(pointer=pointer_to("metadata", name), reason="a setting needs one value")
        settings[name] = _unquoted(value, "metadata", name)
    return Parts(
        scheme=found["scheme"],
        authority=tuple(
            _unquoted(part, "metadata", _NAMESPACE) for part in found["authority"].split(":") if found["authority"]
        ),
        queue_id=_unquoted(found["queue_id"], "queue_id"),
        settings=settings,
        instance=found["instance"],
    )


def settings_of(
    parts: Parts, settings: tuple[Setting, ...], authority: tuple[str, ...] = NAMESPACE_ONLY
) -> dict[str, Any]:
    """
    Return the settings of a kind that a URI has; ``authority`` names those that stand before the queue id.

    Raises:
        DescriptorError: One is unknown, of the wrong type or beyond its limits.
    """
    by_name = {each.written_name: each for each in settings}
    texts = dict(parts.settings)
    places = [name for name in authority if name in by_name]
    if misplaced := sorted({*authority} & texts.keys()):
        raise DescriptorError(
            pointer=pointer_to("metadata", misplaced[0]),
            reason=f"a {misplaced[0]} stands before the queue, if anywhere",
        )
    if parts.authority and len(parts.authority) != len(places):
        raise DescriptorError(
            pointer=pointer_to("metadata", authority[0]),
            reason=f"{parts.scheme!r} has {' and '.join(places) or 'nothing'} before the queue",
        )
    texts |= dict(zip(places, parts.authority, strict=False))
    values = {}
    for name, text in texts.items():
        if name not in by_name:
            raise DescriptorError(pointer=pointer_to("metadata", name), reason=f"{parts.scheme!r} has no such setting")
        try:
            values[by_name[name].name] = by_name[name].read(text)
        except ValueError as error:
            raise DescriptorError(pointer=pointer_to("metadata", by_name[name].name), reason=str(error)) from error
    return values


def _unquoted(text: str, *place: str) -> str:
    if not _QUOTED.fullmatch(text):
        raise DescriptorError(pointer=pointer_to(*place), reason="a character is not percent-quoted as it must be")
    data = re.sub(rb"%([0-9A-F]{2})", lambda code: bytes([int(code[1], 16)]), text.encode())
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DescriptorError(pointer=pointer_to(*place), reason=f"it is no UTF-8: {error.reason}") from None
