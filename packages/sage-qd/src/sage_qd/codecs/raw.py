"""The codec ``raw``: bytes in, bytes out."""

from typing import Final

from sage_qd.codecs.base import RAW_TAG, RAW_VIEW_TAG, Encoded, Payload, refuse_tag

__all__ = ["RawCodec"]


class RawCodec:
    """Carries ``bytes`` and what exports a C-contiguous buffer; it arrives as ``bytes``, or as a view while leased."""

    name: Final = "raw"
    number: Final = 0
    runs_code: Final = False
    plain: Final = None

    def encode(self, message: object) -> Encoded:
        """Return the bytes of a buffer; ``TypeError`` for what is none, ``BufferError`` where they are not in a row."""
        try:
            view = memoryview(message)  # type: ignore[arg-type]  # what is no buffer raises, and that is the check
        except TypeError:
            raise TypeError(
                f"a queue with codec 'raw' takes bytes-like messages, not {type(message).__name__}; "
                "make the queue with codec='pickle' or 'msgpack' for objects"
            ) from None
        if not view.c_contiguous:
            raise BufferError("the buffer is not C-contiguous; put bytes(buffer) to send a copy that is")
        return RAW_VIEW_TAG, (view.cast("B") if view.nbytes else b"",)

    def decode(self, tag: int, payload: Payload) -> bytes | memoryview:
        """Return the bytes of the record; of a lease, a view of them."""
        if tag not in (RAW_TAG, RAW_VIEW_TAG):
            raise refuse_tag(tag, self)
        return payload if isinstance(payload, memoryview) else bytes(payload)
