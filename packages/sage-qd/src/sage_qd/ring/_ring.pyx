# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# The three checks concern indexing of C arrays, whose indices come from loops bounded by their lengths here.
"""
The ring as Python sees it: arguments, waiting, exceptions. The algorithm itself is in ring.h.

Every operation first tries with the GIL held: an uncontended put or get is one C call without a system call. What has
to wait, and what copies much, runs without the GIL, in slices of at most 50 ms between which signals are looked at.
No Python code runs while a lock of the ring is held.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.stat cimport fstat, struct_stat
from posix.unistd cimport close

import os
from functools import partial

from sage_qd import errors

cdef extern from "Python.h":
    # Declared here without an exception check: these are called under a lock of the ring, which must be freed first.
    PyObject *bytes_new "PyBytes_FromStringAndSize" (const char *data, Py_ssize_t size)
    PyObject *bytearray_new "PyByteArray_FromStringAndSize" (const char *data, Py_ssize_t size)
    int _PyBytes_Resize(PyObject **item, Py_ssize_t size)
    int PyByteArray_Resize(object item, Py_ssize_t size) except -1
    void Py_DECREF(PyObject *item)
    object PyObject_Vectorcall(object function, PyObject **arguments, size_t count, PyObject *names)
    void Py_XINCREF(PyObject *item)
    void Py_XDECREF(PyObject *item)

# Copies of more bytes than this run without the GIL: about 5 us, twice what giving it up and taking it back costs
# with another thread waiting (benchmarks/README.md).
cdef enum: COPY_WITH_GIL = 32768
# The first guess of a waiting get() at how much it will need.
cdef enum: FIRST_GUESS = 1024
# Records that put_many() and get_many() move in one turn, so that the other side is not kept waiting.
cdef enum: TURN = 256
# Keywords of a plain encoder that is a functools.partial.
cdef enum: KEYWORDS = 4
# Records with such a tag are handed to the decoder as a bytearray of its own, to build writable objects on.
cdef enum: TAG_WRITABLE = 0x80

LAYOUT_VERSION = SQ_LAYOUT_VERSION
CAPACITY_MAX = SQ_CAPACITY_MAX
ITEMS_MAX = SQ_ITEMS_MAX
WRITABLE = TAG_WRITABLE


cdef uint64_t deadline_of(bint block, object timeout) except? 0:
    """Turn the two arguments of the standard library into one absolute time; 0 is "try once"."""
    cdef double seconds
    cdef uint64_t now
    if timeout is None:
        return SQ_FOREVER if block else 0
    if isinstance(timeout, (bool, str, bytes)):
        raise TypeError(f"timeout must be None or a number of seconds, not {timeout!r}")
    seconds = float(timeout)
    if seconds != seconds:
        raise ValueError("timeout must be None or a number of seconds, not nan")
    if not block or seconds <= 0:
        return 0
    now = sq_now_ns()
    if seconds > 1e9:  # thirty years and infinity are the same to us
        return SQ_FOREVER
    return now + <uint64_t>(seconds * 1e9)


cdef inline const void *payload_of(PyObject *item, uint8_t tag) noexcept:
    """The bytes of an object that new_payload() or get() made for a record with that tag."""
    return PyByteArray_AS_STRING(<object>item) if tag & TAG_WRITABLE else PyBytes_AS_STRING(<object>item)


cdef tuple described(const sq_fault *fault):
    return (<bytes>fault.field).decode() if fault.field != NULL else "", fault.offset, fault.value, fault.wanted


cdef object damage(const sq_fault *fault):
    field, offset, value, wanted = described(fault)
    if field == "poisoned":
        return errors.CorruptQueueError(field="a field found damaged earlier", offset=offset, poisoned_by=value)
    return errors.CorruptQueueError(field=field, offset=offset, value=value, wanted=wanted)


cdef object system_failure(const sq_fault *fault):
    field, _, value, _ = described(fault)
    return OSError(fault.error, f"{os.strerror(fault.error)} ({field} of {value:,})")


cdef object setup_failure(int status, const sq_fault *fault):
    """The exception for what format() and attach() can answer."""
    field, _, value, wanted = described(fault)
    if status == SQ_CORRUPT:
        return damage(fault)
    if status == SQ_INCOMPATIBLE:
        return errors.IncompatibleQueueError(field=field, wanted=wanted, found=value)
    if status == SQ_NAMESPACE:
        return errors.NamespaceMismatchError(ours=wanted, theirs=value)
    if status == SQ_INVALID:
        return ValueError(f"{field} is {value:,}; the limit is {wanted:,}")
    assert status == SQ_SYSTEM, f"no exception for status {status}"
    return system_failure(fault)


cdef object seconds_until(uint64_t deadline_ns):
    """The timeout that is left until a deadline."""
    cdef uint64_t now
    if deadline_ns == SQ_FOREVER:
        return None
    now = sq_now_ns()
    return (deadline_ns - now) / 1e9 if deadline_ns > now else 0


def format_segment(
    int fd, *, uint64_t capacity_bytes, uint64_t max_items, uint64_t spill_threshold, uint32_t mode, uint32_t codec,
    uint64_t start_units=0, uint64_t start_items=0,
) -> None:
    """
    Make an empty file into a ring; see segment.py for who calls this.

    Args:
        fd: An empty file that nobody else can see yet.
        capacity_bytes: Rounded up to a power of two and to a page.
        max_items: 0 for "bounded by bytes alone".
        spill_threshold: Payload bytes above which a record goes to a spill file; 0 for the default.
        mode: The ``MODE_`` bits.
        codec: A number for the layer above.
        start_units: Where the positions start; only tests use another value than 0.
        start_items: Where the item counters start.

    Raises:
        OSError: The space cannot be reserved, or the file cannot be mapped.
        ValueError: A number is out of its range.
    """
    cdef sq_settings settings
    cdef sq_fault fault
    cdef int status
    settings.capacity_bytes = capacity_bytes
    settings.max_items = max_items
    settings.spill_threshold = spill_threshold
    settings.mode = mode
    settings.codec = codec
    settings.start_units = start_units
    settings.start_items = start_items
    with nogil:
        status = sq_format(fd, &settings, &fault)
    if status:
        raise setup_failure(status, &fault)


def segment_mode(int fd) -> int:
    """
    The mode bits of the segment in an open file, which is neither mapped nor attached to.

    Raises:
        CorruptQueueError: It is no segment, or a damaged one.
        IncompatibleQueueError: Another version made it.
    """
    cdef sq_identity identity
    cdef sq_fault fault
    cdef int status = sq_look_identity(fd, &identity, &fault)
    if status:
        raise setup_failure(status, &fault)
    return identity.mode


def look(int fd) -> dict:
    """
    Everything that can be seen of the segment in an open file, from a read-only mapping that is gone afterwards.

    Takes no lock and no slot and stores nothing, so nobody notices; `sage_qd.ring.sight` gives it a shape.

    Args:
        fd: Open for reading; stays the caller's.

    Raises:
        CorruptQueueError: It is no segment, or a damaged one.
        IncompatibleQueueError: Another version made it.
    """
    cdef sq_ring ring
    cdef sq_sight sight
    cdef int status
    cdef uint32_t slot
    with nogil:
        status = sq_open(&ring, fd, False)
    if status:
        raise setup_failure(status, &ring.fault)
    try:
        with nogil:
            sq_look(&ring, &sight)
        seen = {
            "figures": <dict>sight.stats,
            "instance": (<bytes>ring.instance[:16]).hex(),
            "created_ns": ring.created_ns,
            "mode": sight.mode,
            "codec": sight.codec,
            "max_items": 0 if ring.max_items == SQ_ITEMS_MAX else ring.max_items,
            "spill_threshold": ring.spill_threshold or sq_max_length(&ring) // 4,
            "pid_namespace": sight.pid_namespace,
            "this_boot": sight.this_boot,
            "moved": sq_state(&ring) & SQ_STATE_MOVED != 0,
            "damaged_at": sight.poison - 1 if sight.poison else None,
            "damage_found_by": sight.poisoned_by,
            "resizes": sight.generation,
            "producer_role": sight.producer_role,
            "consumer_role": sight.consumer_role,
            "leases_counted": sight.walked,
            "participants": [
                (slot, sight.pids[slot], sight.start_ticks[slot], sight.epochs[slot], sight.leases[slot])
                for slot in range(<uint32_t>SQ_PARTICIPANTS) if sight.pids[slot]
            ],
        }
        seen["figures"]["histogram"] = [sq_histogram_count(&ring, bucket) for bucket in range(SQ_HISTOGRAM_BUCKETS)]
        if sq_is_broken(&ring):
            raise errors.CorruptQueueError(field="file size", value="it shrank", wanted="a whole segment")
    finally:
        sq_unmap(&ring)
    return seen


def wait_any(list rings, timeout=None) -> list:
    """
    Wait until a get() on at least one of the rings has an answer; `sage_qd.ring.wait` is the public form.

    Like get(), it claims the role of a single consumer.
    """
    cdef sq_ring *handles[128]
    cdef uint32_t count = 0
    cdef int status
    cdef Ring ring
    cdef list ready
    cdef uint64_t deadline_ns = deadline_of(True, timeout)
    if not 0 < len(rings) <= 128:
        raise ValueError(f"wait takes 1 to 128 rings, not {len(rings)}")
    for item in rings:
        if not isinstance(item, Ring):
            raise TypeError(f"wait takes rings, not {item!r}")
        ring = item
        handles[count] = &ring.ring
        count += 1
    while True:
        ready = []
        for ring in rings:
            ring.check()
            if ring.pending is not None:
                ready.append(ring)
            if ring.ring.mode & SQ_MODE_SINGLE_CONSUMER:
                ring.claim_consumer()
        if ready:
            return ready
        for ring in rings:
            ring.calls += 1
        with nogil:
            status = sq_wait_any(handles, count, deadline_ns)
        for ring in rings:
            ring.calls -= 1
        for ring in rings:
            ring.finish()
        if status == SQ_SYSTEM:
            raise system_failure(&handles[0].fault)
        for ring in rings:
            if ring.usable and sq_ready_indeed(&ring.ring):
                ready.append(ring)
        if ready or status == SQ_EMPTY:
            return ready
        PyErr_CheckSignals()  # a slice ended, or somebody else was faster


cdef class Ring:
    """
    One handle of a ring: bytes between threads and processes of this host, first in, first out.

    Made by `create`, `attach` and `attach_or_create`. Safe in every thread that holds it and in forked children;
    other processes attach by name, path or descriptor. Used as a context manager it closes itself.

    Blocking operations take ``block`` and ``timeout`` as `queue.Queue` does: ``timeout`` in seconds, ``None`` for "as
    long as it takes", zero or less for "try once". They return at most 50 ms after their timeout, notice signals
    within 50 ms, and let other threads run while they wait.

    Every operation may raise `QueueClosedError` (this handle was closed) and `CorruptQueueError` (the shared bytes
    break a rule, or the file shrank).
    """

    # -- Lifecycle ----------------------------------------------------------------------------------------------------

    def __cinit__(self):
        self.usable = False
        self.mapped = False
        self.calls = 0
        self.views = 0

    def __init__(self):
        if not self.usable:
            raise TypeError("make a Ring with sage_qd.ring.create(), attach() or attach_or_create()")

    @staticmethod
    def _from_fd(int fd, segment, spills) -> Ring:
        """Attach to the ring in an open file; the handle owns the descriptor from then on, not when this raises."""
        cdef Ring self = Ring.__new__(Ring)
        cdef int status
        with nogil:
            status = sq_attach(&self.ring, fd)
        if status:
            raise setup_failure(status, &self.ring.fault)
        self.usable = True
        self.mapped = True
        self.is_checked = self.ring.mode & SQ_MODE_CHECKSUM != 0
        self.alone = self.ring.mode & (SQ_MODE_SINGLE_PRODUCER | SQ_MODE_SINGLE_CONSUMER) != 0
        self.segment = segment
        self.spills = spills
        self.spill_above = sq_max_length(&self.ring)
        if spills is not None:
            threshold = self.ring.spill_threshold or sq_max_length(&self.ring) // 4
            self.spill_above = min(threshold, sq_max_length(&self.ring))
        self.copy_up_to = <Py_ssize_t>min(self.spill_above, <uint64_t>COPY_WITH_GIL)
        return self

    def close(self) -> None:
        """
        Give this handle up. The ring lives on for others; of a named ring, the last one who leaves removes the file.

        Leases and roles of this handle are given back. Calls of other threads that wait on it raise
        `QueueClosedError` within 50 ms. Views of leased records stay readable; the memory is unmapped once they are
        gone. Closing twice does nothing.
        """
        if not self.usable:
            return
        self.usable = False
        # As long as this counts as a call, no other thread that leaves its own call unmaps, and closes the descriptor
        # that is still needed to leave the file.
        self.calls += 1
        try:
            with nogil:
                sq_detach(&self.ring)
            self.segment.leave(self.ring.fd)
        finally:
            self.calls -= 1
            self.finish()

    cdef int finish(self) except -1:
        """Unmap a closed handle once nobody is inside or looks at its memory."""
        if self.usable or not self.mapped or self.calls:
            return 0
        if self.ring.slot:  # who was inside while it was closed took a lease or a role
            self.calls += 1
            with nogil:
                sq_detach(&self.ring)
            self.calls -= 1
        if self.mapped and not self.calls and not self.views:
            self.unmap()
        return 0

    cdef void unmap(self) noexcept:
        """Free memory and descriptor; runs in collected objects too, so it calls no Python code."""
        cdef struct_stat found
        self.mapped = False
        sq_unmap(&self.ring)
        # Unless somebody closed the descriptor, and its number names another file by now.
        if fstat(self.ring.fd, &found) == 0 and found.st_dev == self.ring.device and found.st_ino == self.ring.inode:
            close(self.ring.fd)

    def __del__(self):
        self.close()

    def __dealloc__(self):
        if self.mapped:
            self.unmap()

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __reduce__(self):
        raise errors.NotShareableError(what="a Ring", instead="send its name and attach to it on the other side")

    def __repr__(self) -> str:
        if not self.usable:
            return f"<Ring {self.name!r}, closed>"
        return f"<Ring {self.name!r}, {self.qsize()} items, {self.capacity_bytes:,} bytes>"

    def _after_fork(self, int fd) -> None:
        """
        Use `fd`, a description of our own of the same file, in place of the one shared with the parent. -1: there was
        none to be had, and the lock stays the parent's.
        """
        self.calls = 0  # those under way were of threads that the child does not have
        if self.mapped:
            sq_after_fork(&self.ring)
        if fd < 0:
            self.segment.lock_is_shared = True
            return
        if self.mapped:
            os.dup2(fd, self.ring.fd, inheritable=False)
            sq_map_own(&self.ring)
        os.close(fd)

    cdef int check(self) except -1:
        if not self.usable:
            raise errors.QueueClosedError(name=None if self.segment is None else self.name)
        return 0

    cdef object failure(self, int status):
        """The exception for an answer of ring.h that is not SQ_OK."""
        cdef sq_fault *fault = &self.ring.fault
        cdef uint32_t slot
        if status == SQ_EMPTY:
            return errors.Empty()
        if status == SQ_FULL:
            return errors.Full()
        if status == SQ_SHUTDOWN:
            if self.mapped and sq_state(&self.ring) & SQ_STATE_MOVED:
                return errors.QueueMovedError(name=self.name, successor=self.segment.successor())
            return errors.ShutDown()
        if not self.mapped:  # closed by another thread meanwhile: what follows would look into the mapping
            return errors.QueueClosedError(name=self.name)
        if status == SQ_TOO_LARGE:
            return errors.MessageTooLargeError(size=fault.value, limit=sq_max_length(&self.ring))
        if status == SQ_CORRUPT:
            return damage(fault)
        if status == SQ_CHECKSUM:
            return errors.CorruptQueueError(field="checksum of one item; it was taken out, the others are untouched")
        if status == SQ_NO_SLOT:
            pids = [sq_party_pid(&self.ring, slot) for slot in range(<uint32_t>SQ_PARTICIPANTS)]
            return errors.TooManyParticipantsError(limit=SQ_PARTICIPANTS, live_pids=sorted(set(filter(None, pids))))
        if status == SQ_ROLE_TAKEN:
            return errors.RoleClaimedError(role=(<bytes>fault.field).decode(), pid=fault.value)
        if status == SQ_INVALID:
            field, _, value, wanted = described(fault)
            return ValueError(f"not possible: {field} is {value:,} (limit {wanted:,})")
        assert status == SQ_SYSTEM, f"no exception for status {status}"
        return system_failure(fault)

    def set_codec(self, encoder, decoder, *, plain_encoder=None, plain_decoder=None, uint8_t plain_tag=1) -> None:
        """
        Let put and get speak objects instead of bytes.

        Exact ``bytes`` objects never meet the codec: they travel as they are, with tag 0.

        Args:
            encoder: ``encoder(object)`` returns ``bytes``, which get ``plain_tag``, or ``(tag, parts)``: a tag of 1 to
                255 and a sequence of C-contiguous buffers, which become one record without being joined first.
                ``None``: only bytes-like objects can be put.
            decoder: ``decoder(tag, payload) -> object``; called after the item left the ring. ``payload`` is
                ``bytes``, or a ``bytearray`` of its own for tags from 128 on. ``None``: payloads are handed out as
                they are.
            plain_encoder: ``plain_encoder(object) -> bytes`` is asked first, if given; a TypeError sends the object
                to ``encoder``. A function written in C saves the cost of a Python call here. A ``functools.partial``
                with keywords is taken apart: called as it is, it costs as much as pickling a small object.
            plain_decoder: ``plain_decoder(payload) -> object`` is called for ``plain_tag`` in place of ``decoder``.
            plain_tag: The tag of what is plain, below 128.
        """
        self.encoder = encoder
        self.decoder = decoder
        self.plain_encoder = plain_encoder
        self.plain_values = self.plain_names = ()
        if type(plain_encoder) is partial and not plain_encoder.args and len(plain_encoder.keywords) <= KEYWORDS:
            self.plain_encoder = plain_encoder.func
            self.plain_values = tuple(plain_encoder.keywords.values())
            self.plain_names = tuple(plain_encoder.keywords)
        self.plain_decoder = plain_decoder
        self.plain_tag = plain_tag
        self.in_parts = False

    cdef object encoded(self, object item):
        """What the codec makes of an object: ``bytes`` for the plain tag, or tag and parts."""
        cdef PyObject *arguments[1 + KEYWORDS]
        cdef Py_ssize_t at
        if self.plain_encoder is not None and not self.in_parts:
            arguments[0] = <PyObject *>item
            for at in range(len(self.plain_values)):
                arguments[1 + at] = <PyObject *>self.plain_values[at]
            try:
                return PyObject_Vectorcall(self.plain_encoder, arguments, 1, <PyObject *>self.plain_names)
            except TypeError:
                pass  # the encoder knows
        self.in_parts = False
        found = self.encoder(item)
        # A guess about the next object: being wrong costs one more attempt.
        self.in_parts = not PyBytes_CheckExact(found) and found[0] != self.plain_tag
        return found

    cdef object after_move(self, object error, str verb, tuple arguments):
        """Do on the successor what could not be done here any more; where nobody said how to go over, raise."""
        if self.go_over is None or not isinstance(error, errors.QueueMovedError):
            raise error
        return getattr(self.go_over(error, verb), verb)(*arguments)

    # The hot methods are plain method descriptors (binding=False): 7 ns less a call.
    # -- Write side ---------------------------------------------------------------------------------------------------

    @cython.binding(False)
    def put(self, item, bint block=True, timeout=None) -> None:
        """
        Append one item, waiting while the ring is full.

        When this returns the item is in the ring and every process can see it. When it raises, the ring is unchanged.

        Args:
            item: Any C-contiguous buffer, or any object the codec takes; copied.
            block: Whether to wait for room at all.
            timeout: Seconds to wait; ``None`` waits without end.

        Raises:
            Full: No room within ``timeout``.
            ShutDown: The ring was shut down.
            MessageTooLargeError: It can never fit.
            TypeError: ``item`` is no buffer, or ``timeout`` no number.
        """
        if timeout is None and self.usable and PyBytes_CheckExact(item) and PyBytes_GET_SIZE(item) <= self.copy_up_to:
            if sq_put(&self.ring, PyBytes_AS_STRING(item), PyBytes_GET_SIZE(item), 0) == SQ_OK:
                return
        self.put_in_full(item, block, timeout)

    cdef int put_in_full(self, object item, bint block, object timeout) except -1:
        """As `put`, with all that may be needed; apart, so that the usual case needs few registers."""
        cdef int status
        cdef sq_part part
        cdef uint64_t length
        cdef uint8_t tag = 0
        cdef uint64_t deadline_ns
        original = item
        if timeout is not None:
            deadline_of(block, timeout)  # refuse what is no timeout, also when there is no need to wait
        if not self.usable:
            self.check()
        if not PyBytes_CheckExact(item) and self.encoder is not None:
            item = self.encoded(item)
            if PyBytes_CheckExact(item):
                tag = self.plain_tag
            else:
                mark, parts = item
                deadline_ns = deadline_of(block, timeout)
                try:
                    self.put_parts(parts, mark, deadline_ns)
                except errors.QueueMovedError as error:
                    self.after_move(error, "put", (original, block, seconds_until(deadline_ns)))
                return 0
        if PyBytes_CheckExact(item):
            part.length = length = PyBytes_GET_SIZE(item)
            part.data = PyBytes_AS_STRING(item)
            if length <= <uint64_t>self.copy_up_to:
                status = sq_put(&self.ring, part.data, part.length, tag)
                if status == SQ_FULL and block and sq_spin(&self.ring, SQ_PRODUCERS, sq_record_units(length, False)):
                    status = sq_put(&self.ring, part.data, part.length, tag)
                if status == SQ_OK:
                    return 0
                if status == SQ_SHUTDOWN and self.go_over is not None:
                    self.after_move(self.failure(status), "put", (original, block, timeout))
                    return 0
                if status != SQ_BUSY and (status != SQ_FULL or not block):
                    raise self.failure(status)
                deadline_ns = deadline_of(block, timeout)
                try:
                    self.put_waiting(&part, 1, tag, 0, deadline_ns)
                except errors.QueueMovedError as error:
                    self.after_move(error, "put", (original, block, seconds_until(deadline_ns)))
                return 0
        deadline_ns = deadline_of(block, timeout)
        try:
            self.put_parts((item,), tag, deadline_ns)
        except errors.QueueMovedError as error:
            self.after_move(error, "put", (original, block, seconds_until(deadline_ns)))
        return 0

    @cython.binding(False)
    def put_nowait(self, item) -> None:
        """Put without waiting: ``put(item, block=False)``."""
        self.put(item, False)

    def put_vectored(self, parts, uint8_t tag=0, bint block=True, timeout=None) -> None:
        """
        Append one item made of several buffers, without joining them first.

        Args:
            parts: At most 4 096 C-contiguous buffers.
            tag: A mark that get and the decoder see.
            block: Whether to wait for room at all.
            timeout: Seconds to wait; ``None`` waits without end.

        Raises:
            Full: No room within ``timeout``.
            ShutDown: The ring was shut down.
            MessageTooLargeError: It can never fit.
        """
        self.put_parts(parts, tag, deadline_of(block, timeout))

    cdef int put_parts(self, object parts, uint8_t tag, uint64_t deadline_ns) except -1:
        cdef Py_buffer buffers[8]
        cdef sq_part views[8]
        cdef Py_buffer *buffer = buffers
        cdef sq_part *view = views
        cdef Py_ssize_t count, held = 0, at
        cdef uint64_t length = 0
        self.check()
        if type(parts) is not tuple:  # nothing may change it while the buffers are asked for
            parts = tuple(parts)
        count = len(parts)
        if count > 4096:
            raise ValueError(f"an item can have at most 4096 parts, not {count}")
        if count > 8:
            buffer = <Py_buffer *>PyMem_Malloc(count * sizeof(Py_buffer))
            view = <sq_part *>PyMem_Malloc(count * sizeof(sq_part))
        try:
            if buffer == NULL or view == NULL:
                raise MemoryError()
            for at in range(count):
                PyObject_GetBuffer(parts[at], &buffer[at], PyBUF_SIMPLE)
                held += 1
                view[at].data = buffer[at].buf
                view[at].length = buffer[at].len
                length += buffer[at].len
            if length > self.spill_above:
                if self.spills is None:
                    raise errors.MessageTooLargeError(size=length, limit=sq_max_length(&self.ring))
                self.put_spilled(parts, length, tag, deadline_ns)
            else:
                self.put_waiting(view, count, tag, 0, deadline_ns)
        finally:
            for at in range(held):
                PyBuffer_Release(&buffer[at])
            if count > 8:
                PyMem_Free(buffer)
                PyMem_Free(view)
        return 0

    cdef int put_waiting(
        self, const sq_part *parts, size_t count, uint8_t tag, uint8_t flags, uint64_t deadline_ns
    ) except -1:
        """Put, waiting for room until the deadline. The buffers are held by the caller."""
        cdef int status
        cdef uint32_t units = sq_record_units(sq_parts_length(parts, count), False)
        self.check()  # what was asked for the arguments may have closed the ring
        while True:
            if self.alone:
                status = sq_put_parts(&self.ring, parts, count, tag, flags)
                if status == SQ_FULL or status == SQ_BUSY:
                    self.calls += 1
                    with nogil:
                        if status == SQ_BUSY:
                            status = sq_wait_lock(&self.ring, SQ_PRODUCERS)
                            if status == SQ_AGAIN and sq_now_ns() >= deadline_ns:
                                status = SQ_FULL
                        else:
                            status = sq_wait_turn(&self.ring, SQ_PRODUCERS, units, deadline_ns)
                    self.calls -= 1
                    if status == SQ_OK:
                        status = SQ_AGAIN
            else:
                self.calls += 1
                with nogil:
                    status = sq_put_parts_wait(&self.ring, parts, count, tag, flags, deadline_ns)
                self.calls -= 1
            if status == SQ_OK:
                self.finish()
                return 0
            if status != SQ_AGAIN:
                self.finish()
                raise self.failure(status)
            if not self.usable:
                self.finish()
                self.check()
            PyErr_CheckSignals()

    def put_spilled(self, parts, uint64_t length, uint8_t tag, uint64_t deadline_ns) -> None:
        """Put a payload into a spill file and its reference into the ring. Internal."""
        cdef sq_part part
        # No byte code runs between the put and the end: Ctrl-C there would tell of a put that was done as of none.
        file, reference = self.spills.write(parts, length)
        part.data = PyBytes_AS_STRING(reference)
        part.length = PyBytes_GET_SIZE(reference)
        try:
            self.put_waiting(&part, 1, tag, SQ_RECORD_SPILLED, deadline_ns)
        except BaseException:
            self.spills.remove(reference)  # closing the last handle may have done so
            raise
        finally:
            file.close()

    def put_many(self, items, timeout=None) -> int:
        """
        Append many items in order, waiting while the ring is full; many become visible at once.

        Args:
            items: Any iterable of what put() takes; read to its end before the first is put.
            timeout: Seconds to wait for all of them; ``None`` waits without end.

        Returns:
            How many were put: all, or those before the timeout, always a prefix.

        Raises:
            Full: Not even the first found room within ``timeout``.
            ShutDown: The ring was shut down before the first was put; when some were put, their number is returned, and
                the next call raises.
            MessageTooLargeError: One of them can never fit; none was put.
        """
        cdef list originals = list(items), queued = originals
        cdef list tags = None
        cdef Py_ssize_t at, count = len(queued)
        cdef uint64_t deadline_ns = deadline_of(True, timeout), length
        cdef uint8_t tag
        self.check()
        for at in range(count):
            item = queued[at]
            if PyBytes_CheckExact(item):
                length = PyBytes_GET_SIZE(item)
            else:
                if tags is None:
                    tags = [0] * count
                    queued = list(originals)
                if self.encoder is None:
                    tag, parts = 0, (item,)
                else:
                    item = self.encoded(item)
                    if PyBytes_CheckExact(item):
                        tag, parts = self.plain_tag, None
                    else:
                        tag, parts = item
                tags[at] = tag  # a plain number from here on: it is read under the lock
                if parts is None:
                    length = PyBytes_GET_SIZE(item)
                    queued[at] = item
                else:
                    length = 0
                    for part in parts:
                        if PyBytes_CheckExact(part):
                            length += len(part)
                            continue
                        view = memoryview(part)
                        if not view.c_contiguous:
                            raise BufferError(f"item {at} is not C-contiguous")
                        length += view.nbytes
                    queued[at] = parts[0] if len(parts) == 1 and PyBytes_CheckExact(parts[0]) else tuple(parts)
            if length > self.spill_above and self.spills is None:
                raise errors.MessageTooLargeError(size=length, limit=sq_max_length(&self.ring))
        return self.put_all(originals, queued, tags, deadline_ns)

    def put_payloads(self, payloads, tags=None, timeout=None) -> int:
        """
        As `put_many`, of what a codec has made already.

        Args:
            payloads: ``bytes`` each.
            tags: A tag for each, as ``bytes``; ``None`` for 0.
            timeout: Seconds to wait for all of them; ``None`` waits without end.

        Raises:
            TypeError: One is not ``bytes``; none was put.
            ValueError: There are more or fewer tags; none was put.
        """
        cdef list queued = list(payloads), marks = list(tags) if tags and any(tags) else None
        cdef uint64_t deadline_ns = deadline_of(True, timeout)
        self.check()
        if tags is not None and len(tags) != len(queued):
            raise ValueError(f"{len(queued)} payloads have {len(tags)} tags")
        for payload in queued:
            if not PyBytes_CheckExact(payload):
                raise TypeError(f"a payload must be bytes, not {type(payload).__name__}")
            if <uint64_t>PyBytes_GET_SIZE(payload) > self.spill_above and self.spills is None:
                raise errors.MessageTooLargeError(size=len(payload), limit=sq_max_length(&self.ring))
        return self.put_all(None, queued, marks, deadline_ns)

    cdef Py_ssize_t put_all(self, list originals, list queued, list tags, uint64_t deadline_ns) except -1:
        """Put encoded items, waiting for room; `originals` are put elsewhere when the ring was moved."""
        cdef Py_ssize_t count = len(queued), done = 0
        while done < count:
            status = self.put_run(queued, tags, &done)
            if status == SQ_OK:
                continue
            try:
                # The one that found no room, is large or comes in parts: put() knows how to wait for it.
                item = queued[done]
                parts = (item,) if PyBytes_CheckExact(item) else item
                self.put_parts(parts, 0 if tags is None else tags[done], deadline_ns)
            except (errors.Full, errors.ShutDown):
                if done:
                    return done
                raise
            except errors.QueueMovedError as error:
                try:
                    if originals is None:
                        raise
                    return done + self.after_move(error, "put_many", (originals[done:], seconds_until(deadline_ns)))
                except (errors.Full, errors.ShutDown, errors.QueueMovedError, errors.MessageTooLargeError):
                    if done:
                        return done
                    raise
            done += 1
        return done

    cdef int put_run(self, list items, list tags, Py_ssize_t *done) except -1:
        """Put the next small ones in one turn, as far as they fit. SQ_OK: the turn was used up, go on."""
        cdef sq_writer writer
        cdef Py_ssize_t at = done[0], count = len(items), limit = at + TURN
        cdef uint64_t length
        cdef int status, ended
        self.check()
        status = sq_write_begin(&self.ring, &writer, False)
        if status:
            if status == SQ_BUSY or status == SQ_SHUTDOWN:
                return status
            raise self.failure(status)
        while at < count and at < limit:
            item = <object>items[at]
            if not PyBytes_CheckExact(item):
                status = SQ_AGAIN
                break
            length = PyBytes_GET_SIZE(item)
            if length > COPY_WITH_GIL or length > self.spill_above:
                status = SQ_AGAIN
                break
            status = sq_write_reserve(&writer, length, 0 if tags is None else <uint8_t>tags[at], 0)
            if status:
                break
            memcpy(writer.payload, PyBytes_AS_STRING(item), length)
            sq_write_next(&writer)
            at += 1
        ended = sq_write_end(&writer)
        if ended:
            raise self.failure(ended)
        done[0] = at
        return status

    # -- Read side ----------------------------------------------------------------------------------------------------

    @cython.binding(False)
    def get(self, bint block=True, timeout=None):
        """
        Take the oldest item out, waiting while there is none.

        Args:
            block: Whether to wait at all.
            timeout: Seconds to wait; ``None`` waits without end.

        Returns:
            ``bytes``, or what the decoder makes of them.

        Raises:
            Empty: Nothing came within ``timeout``.
            ShutDown: The ring was shut down, and nothing is left (or it was shut down immediately).
            PayloadError: The decoder failed; the bytes are on the exception, and the item is gone.
        """
        cdef sq_reader reader
        cdef sq_record record
        cdef PyObject *item = NULL
        if timeout is None and self.usable and self.pending is None and sq_read_begin(&self.ring, &reader, False) == 0:
            if (
                sq_read_next(&reader, &record) == SQ_OK
                and record.length <= <uint32_t>self.copy_up_to
                and not (record.flags & SQ_RECORD_SPILLED or record.tag & TAG_WRITABLE or self.is_checked)
            ):
                item = bytes_new(<const char *>record.data, record.length)
                if item != NULL:
                    sq_read_take(&reader, &record)
            if sq_read_end(&reader) == SQ_OK and item != NULL:
                payload = <object>item
                Py_DECREF(item)
                return payload if record.tag == 0 else self.decoded(record.tag, payload)
            Py_XDECREF(item)  # the ring is damaged, and nothing was taken
        return self.get_in_full(block, timeout)

    cdef object get_in_full(self, bint block, object timeout):
        """As `get`, with all that may be needed; apart, so that the usual case needs few registers."""
        cdef sq_reader reader
        cdef sq_record record
        cdef PyObject *item = NULL
        cdef int status, ended
        cdef uint8_t tag
        cdef uint64_t deadline_ns
        cdef bint spun = False
        if timeout is not None:
            deadline_of(block, timeout)  # refuse what is no timeout, also when there is no need to wait
        if not self.usable:
            self.check()
        if self.pending is not None:
            return self.decoded(0, None)
        while True:
            status = sq_read_begin(&self.ring, &reader, False)
            if status:
                break
            status = sq_read_next(&reader, &record)
            if status == SQ_OK and (record.length > COPY_WITH_GIL or record.flags & SQ_RECORD_SPILLED):
                status = SQ_BUSY  # too much to copy here
            if status == SQ_OK:
                if record.tag & TAG_WRITABLE:
                    item = bytearray_new(<const char *>record.data, record.length)
                else:
                    item = bytes_new(<const char *>record.data, record.length)
                if item != NULL:
                    if not sq_intact(&self.ring, &record, payload_of(item, record.tag)):
                        status = SQ_CHECKSUM
                    sq_read_take(&reader, &record)
            ended = sq_read_end(&reader)
            if item != NULL:
                payload = <object>item
                Py_DECREF(item)
                if status or ended:
                    raise self.failure(status or ended)
                return payload if record.tag == 0 else self.decoded(record.tag, payload)
            if status == SQ_OK:
                raise MemoryError()
            if status != SQ_EMPTY or spun or not block or not sq_spin(&self.ring, SQ_CONSUMERS, 0):
                break
            spun = True  # a busy partner answers within the spin; giving up the GIL would take longer
        if status == SQ_SHUTDOWN and self.go_over is not None:
            return self.after_move(self.failure(status), "get", (block, timeout))
        if status != SQ_BUSY and (status != SQ_EMPTY or not block and sq_reap(&self.ring, False) != SQ_OK):
            raise self.failure(status)
        deadline_ns = deadline_of(block, timeout)
        try:
            payload = self.get_waiting(deadline_ns, &tag)
        except errors.QueueMovedError as error:
            return self.after_move(error, "get", (block, seconds_until(deadline_ns)))
        return payload if tag == 0 else self.decoded(tag, payload)

    @cython.binding(False)
    def get_nowait(self):
        """Take the oldest item out without waiting: ``get(block=False)``."""
        return self.get(False)

    cdef object decoded(self, uint8_t tag, object payload):
        """
        Turn a payload that has left the ring into an object; a payload of None means the first pending one.

        When a signal handler (Ctrl-C) ends the decoder, the payload waits in `pending` for the next get.
        """
        if payload is None:
            tag, payload = self.pending.pop(0)
            if not self.pending:
                self.pending = None
        if tag == 0 or self.decoder is None:
            return payload
        try:
            if tag == self.plain_tag and self.plain_decoder is not None:
                return self.plain_decoder(payload)
            return self.decoder(tag, payload)
        except Exception as error:
            raise errors.PayloadError(tag=tag, payload=bytes(payload)) from error
        except BaseException:
            self.pending = [(tag, payload), *(self.pending or ())]
            raise

    cdef object decoded_view(self, uint8_t tag, object view):
        """Build an object on a payload that is still in the ring."""
        if self.decoder is None:
            return view
        try:
            return self.decoder(tag, view)
        except Exception as error:
            raise errors.PayloadError(tag=tag, payload=bytes(view)) from error

    cdef object get_waiting(self, uint64_t deadline_ns, uint8_t *tag):
        """
        Take the oldest item out, waiting until the deadline; the payload, with its tag in `tag`.

        The memory for it exists before it is taken, so that running out of memory loses nothing.
        """
        cdef sq_record record
        cdef size_t size = FIRST_GUESS
        cdef void *room = NULL
        cdef PyObject *raw
        cdef int status
        cdef bint writable = False
        memory = None
        self.check()  # what was asked for the arguments may have closed the ring
        while True:
            if memory is None:
                memory = self.new_payload(size, writable)
                room = PyByteArray_AS_STRING(memory) if writable else <void *>PyBytes_AS_STRING(memory)
            record.length = 0
            record.tag = 0
            self.calls += 1
            if self.alone:
                status = sq_get_once(&self.ring, room, size, &record, False, True)
                if status == SQ_EMPTY or status == SQ_BUSY:
                    status = self.wait_alone(status, deadline_ns)
            else:
                with nogil:
                    status = sq_get_wait(&self.ring, room, size, &record, deadline_ns)
            self.calls -= 1
            if not self.usable:
                self.finish()
                if status != SQ_OK:
                    self.check()
            if status == SQ_OK:
                break
            if status == SQ_TOO_SMALL:
                size = record.length
                writable = record.tag & TAG_WRITABLE != 0
                memory = None
            elif status == SQ_SPILLED_RECORD:
                taken = self.get_spilled()
                if taken is not None:
                    tag[0] = taken[0]
                    return taken[1]
            elif status != SQ_AGAIN:
                raise self.failure(status)
            PyErr_CheckSignals()
        tag[0] = record.tag
        if bool(record.tag & TAG_WRITABLE) != writable:  # not what the one before it was
            return bytearray(memory[:record.length]) if not writable else bytes(memory[:record.length])
        if record.length == size:
            return memory
        if writable:
            PyByteArray_Resize(memory, record.length)
            return memory
        raw = <PyObject *>memory
        Py_XINCREF(raw)
        memory = None  # ours is the only reference now, as resizing demands
        if _PyBytes_Resize(&raw, record.length) < 0:
            raise MemoryError()
        memory = <object>raw
        Py_DECREF(raw)
        return memory

    cdef int wait_alone(self, int status, uint64_t deadline_ns) noexcept:
        """Wait after SQ_EMPTY or SQ_BUSY where a role replaces the lock; SQ_AGAIN: try again. The caller is inside."""
        # With the GIL, which is what keeps other threads away from a side that has a role in place of its lock.
        if status == SQ_EMPTY and sq_reap(&self.ring, False) == SQ_OK:
            return SQ_AGAIN
        with nogil:
            if status == SQ_BUSY:
                status = sq_wait_lock(&self.ring, SQ_CONSUMERS)
                if status == SQ_AGAIN and sq_now_ns() >= deadline_ns:
                    status = SQ_EMPTY
            else:
                status = sq_wait_turn(&self.ring, SQ_CONSUMERS, 0, deadline_ns)
        return SQ_AGAIN if status == SQ_OK else status

    cdef int await_lock(self) except -1:
        """Wait for the consumers' lock, at most a slice; SQ_AGAIN: try again."""
        cdef int status
        self.calls += 1
        with nogil:
            status = sq_wait_lock(&self.ring, SQ_CONSUMERS)
        self.calls -= 1
        self.finish()
        return SQ_AGAIN if status == SQ_OK else status

    cdef int claim_consumer(self) except -1:
        """Claim the role of the single consumer as get() does: what a dead one left can only be found with it."""
        cdef sq_reader reader
        cdef int status = SQ_AGAIN
        while status == SQ_AGAIN:
            self.check()
            status = sq_read_begin(&self.ring, &reader, False)
            if status == SQ_OK:
                sq_read_end(&reader)
            elif status == SQ_BUSY:
                status = self.await_lock()
                PyErr_CheckSignals()
        if status == SQ_OK or status == SQ_SHUTDOWN or status == SQ_CORRUPT:  # get() will say so
            return 0
        raise self.failure(status)

    cdef object next_reference(self, uint8_t *tag):
        """What the next record holds when its payload is in a spill file, else None; the record stays."""
        cdef sq_reader reader
        cdef sq_record record
        cdef PyObject *raw = NULL
        cdef int status
        self.check()
        status = sq_read_begin(&self.ring, &reader, False)
        if status:
            return None
        status = sq_read_next(&reader, &record)
        if status == SQ_OK and record.flags & SQ_RECORD_SPILLED:
            tag[0] = record.tag
            raw = bytes_new(<const char *>record.data, record.length)
            status = SQ_OK if raw != NULL else SQ_TOO_SMALL
        sq_read_end(&reader)
        if raw == NULL:
            if status == SQ_TOO_SMALL:
                raise MemoryError()
            return None
        reference = <object>raw
        Py_DECREF(raw)
        return reference

    cdef object new_payload(self, size_t size, bint writable):
        cdef PyObject *raw = bytearray_new(NULL, size) if writable else bytes_new(NULL, size)
        if raw == NULL:
            raise MemoryError()
        memory = <object>raw
        Py_DECREF(raw)
        return memory

    cdef object read_spilled(self, object reference):
        if self.spills is None:
            raise errors.CorruptQueueError(field="spill reference in a ring without spill files")
        return self.spills.read(reference)

    cdef object get_spilled(self):
        """Take out a record whose payload is in a spill file; None when somebody else was faster."""
        cdef Lease lease
        try:
            lease = self.lease_here(0)
        except errors.Empty:
            return None
        with lease:
            if lease.spilled is None:
                payload = bytes(lease)
            else:
                payload = lease.spilled
            return lease.record.tag, bytearray(payload) if lease.record.tag & TAG_WRITABLE else bytes(payload)

    def get_into(self, buffer, bint block=True, timeout=None) -> int:
        """
        Take the oldest item out, straight into memory of the caller; no codec is asked.

        Args:
            buffer: Writable, C-contiguous; its start receives the payload.
            block: Whether to wait at all.
            timeout: Seconds to wait; ``None`` waits without end.

        Returns:
            Payload bytes written.

        Raises:
            Empty: Nothing came within ``timeout``.
            ShutDown: The ring was shut down, and nothing is left.
            MessageTooLargeError: The item is longer than ``buffer``, or lies in a spill file; it stays in the ring.
        """
        cdef Py_buffer view
        cdef sq_record record
        cdef int status
        cdef uint64_t deadline_ns = deadline_of(block, timeout)
        self.check()
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        if deadline_ns:
            sq_spin(&self.ring, SQ_CONSUMERS, 0)
        try:
            while True:
                record.length = 0
                self.calls += 1
                if self.alone:
                    status = sq_get_once(&self.ring, view.buf, view.len, &record, False, True)
                    if status == SQ_EMPTY or status == SQ_BUSY:
                        status = self.wait_alone(status, deadline_ns)
                else:
                    with nogil:
                        status = sq_get_wait(&self.ring, view.buf, view.len, &record, deadline_ns)
                self.calls -= 1
                if status == SQ_OK:
                    self.finish()
                    return record.length
                if not self.usable:
                    self.finish()
                    self.check()
                if status == SQ_TOO_SMALL or status == SQ_SPILLED_RECORD:
                    raise errors.MessageTooLargeError(size=record.length, limit=view.len)
                if status != SQ_AGAIN:
                    raise self.failure(status)
                PyErr_CheckSignals()
        finally:
            PyBuffer_Release(&view)

    def get_many(self, Py_ssize_t max_items, max_bytes=None, timeout=None, linger=0) -> list:
        """
        Take out what is there, in order: at least one item (waiting for it), at most ``max_items``.

        Args:
            max_items: Upper bound of the list's length, at least 1.
            max_bytes: Stop before the payloads exceed this sum (the first item always comes); None or 0 for no bound.
            timeout: Seconds to wait for the first item; ``None`` waits without end, 0 does not wait.
            linger: Seconds to go on collecting after the first item, until there are ``max_items``; with ``max_bytes``
                at most up to an item of more than 32 KiB.

        Raises:
            Empty: Nothing came within ``timeout``.
            ShutDown: The ring was shut down, and nothing is left.
            PayloadError: The decoder failed on one; the other objects are on the exception.
        """
        cdef list items = [], tags = None
        cdef uint8_t tag
        cdef uint64_t deadline_ns = deadline_of(True, timeout)
        cdef uint64_t lingering_ns = deadline_of(True, linger)
        cdef Py_ssize_t bytes_limit = 0 if max_bytes is None else max_bytes
        if max_items < 1:
            raise ValueError(f"max_items must be at least 1, not {max_items}")
        if bytes_limit < 0:
            raise ValueError(f"max_bytes must be at least 0, not {max_bytes}")
        self.check()
        if self.pending is not None:
            return [self.decoded(0, None)]
        tags = self.get_run(items, tags, max_items, bytes_limit)
        if not items and deadline_ns and sq_spin(&self.ring, SQ_CONSUMERS, 0):
            tags = self.get_run(items, tags, max_items, bytes_limit)
        if not items:
            try:
                payload = self.get_waiting(deadline_ns, &tag)
            except errors.QueueMovedError as error:
                arguments = (max_items, max_bytes, seconds_until(deadline_ns), linger)
                return self.after_move(error, "get_many", arguments)
            items.append(payload)
            if tag:
                tags = [tag]
            if max_items > 1 and (bytes_limit == 0 or len(payload) < bytes_limit):
                tags = self.get_run(items, tags, max_items, bytes_limit)
        if lingering_ns and len(items) < max_items:
            tags = self.linger(items, tags, max_items, bytes_limit, lingering_ns)
        if tags is None or self.decoder is None:
            return items
        return self.decode_all(items, tags)

    def get_payloads(self, Py_ssize_t max_items, max_bytes=None) -> tuple:
        """
        As `get_many`, without waiting and without the codec: the payloads, and their tags as ``bytes``.

        Args:
            max_items: Upper bound of the list's length, at least 1.
            max_bytes: Stop before the payloads exceed this sum (the first always comes); None or 0 for no bound.

        Raises:
            Empty: There is none.
            ShutDown: The ring was shut down, and nothing is left.
        """
        cdef list items = [], tags
        cdef uint8_t tag
        self.check()
        tags = self.get_run(items, None, max(max_items, 1), 0 if max_bytes is None else max_bytes)
        if not items:
            items.append(self.get_waiting(0, &tag))  # a large one, if any
            tags = [tag]
        return items, bytes(len(items)) if tags is None else bytes(tags)

    cdef list linger(self, list items, list tags, Py_ssize_t max_items, Py_ssize_t max_bytes, uint64_t until_ns):
        """Go on collecting; what was taken waits in `pending` when a signal handler or a damaged item ends this."""
        cdef Py_ssize_t before
        cdef uint8_t tag
        cdef uint64_t now = sq_now_ns()
        try:
            while len(items) < max_items and now < until_ns:
                before = len(items)
                try:
                    if not wait_any([self], (until_ns - now) / 1e9):
                        break
                    tags = self.get_run(items, tags, max_items, max_bytes)
                except (errors.SageQueueError, OSError):
                    break  # closed or damaged meanwhile: the next call says so, what was taken is the caller's
                if len(items) == before:
                    if max_bytes:
                        break
                    try:
                        payload = self.get_waiting(0, &tag)  # a large one: get_run() leaves it alone
                    except errors.Empty:
                        pass  # somebody else was faster
                    except (errors.ShutDown, errors.QueueMovedError, errors.QueueClosedError):
                        break
                    else:
                        if tag and tags is None:
                            tags = [0] * before
                        items.append(payload)
                        if tags is not None:
                            tags.append(tag)
                now = sq_now_ns()
        except BaseException:
            self.pending = list(zip([0] * len(items) if tags is None else tags, items))
            raise
        return tags

    cdef list get_run(self, list items, list tags, Py_ssize_t max_items, Py_ssize_t max_bytes):
        """
        Append to `items` what can be had without waiting; their tags (for all of `items`), or None when all are 0.

        All of it happens under the lock with the GIL held, hence the size of a turn; what it allocates cannot run
        Python code.
        """
        cdef sq_reader reader
        cdef sq_record record
        cdef PyObject *raw
        cdef int status, ended
        cdef Py_ssize_t total = 0, before = len(items), index
        cdef PyObject *taken[TURN]
        cdef uint8_t marks[TURN]
        cdef Py_ssize_t count
        cdef bint again = True
        if max_bytes:
            for index in range(before):
                total += len(items[index])
        while again and len(items) < max_items:
            status = sq_read_begin(&self.ring, &reader, False)
            if status:
                if len(items) or status == SQ_BUSY or status == SQ_SHUTDOWN:
                    return tags
                raise self.failure(status)
            count = 0
            while count < TURN and len(items) + count < max_items:
                status = sq_read_next(&reader, &record)
                if status or record.length > COPY_WITH_GIL or record.flags & SQ_RECORD_SPILLED:
                    break
                if max_bytes and total + record.length > max_bytes and (count or len(items)):
                    break
                if not sq_intact(&self.ring, &record, record.data):
                    break  # get() will say so
                if record.tag & TAG_WRITABLE:
                    raw = bytearray_new(<const char *>record.data, record.length)
                else:
                    raw = bytes_new(<const char *>record.data, record.length)
                if raw == NULL:
                    break
                taken[count] = raw
                marks[count] = record.tag
                total += record.length
                count += 1
                sq_read_take(&reader, &record)
            ended = sq_read_end(&reader)
            again = count == TURN
            for index in range(count):
                if marks[index] and tags is None:
                    tags = [0] * len(items)
                items.append(<object>taken[index])
                Py_DECREF(taken[index])
                if tags is not None:
                    tags.append(marks[index])
            if not items and (ended or status == SQ_CORRUPT):
                raise self.failure(ended or status)
        return tags

    cdef list decode_all(self, list items, list tags):
        """Decode a batch that has left the ring; one that fails keeps none of the others back."""
        cdef Py_ssize_t at
        cdef list objects = []
        cdef uint8_t tag
        failed = None
        for at in range(len(items)):
            tag = tags[at]
            try:
                objects.append(items[at] if tag == 0 else self.decoded(tag, items[at]))
            except errors.PayloadError as error:
                if failed is None:
                    failed = error
                else:
                    objects.append(error)
            except BaseException:  # the one under way is pending already
                self.pending = [*zip(tags[:at], items[:at]), *self.pending, *zip(tags[at + 1 :], items[at + 1 :])]
                raise
        if failed is not None:
            raise errors.PayloadError(tag=failed.tag, payload=failed.payload, items=objects) from failed.__cause__
        return objects

    def peek(self):
        """
        Look at the oldest item without taking it; the answer may be outdated when it arrives.

        Raises:
            Empty: There is none.
            ShutDown: The ring was shut down, and nothing is left.
        """
        cdef sq_record record
        cdef size_t size = FIRST_GUESS
        cdef int status
        cdef uint8_t tag = 0
        while True:
            self.check()
            memory = bytearray(size)
            room = <char *>PyByteArray_AS_STRING(memory)
            record.length = 0
            if self.alone:
                status = sq_get_once(&self.ring, room, size, &record, False, False)
                if status == SQ_BUSY:
                    status = self.await_lock()
            else:
                self.calls += 1
                with nogil:
                    status = sq_get_once(&self.ring, room, size, &record, True, False)
                self.calls -= 1
                self.finish()
            if status == SQ_OK:
                payload = memory[:record.length] if record.tag & TAG_WRITABLE else bytes(memory[:record.length])
                return payload if record.tag == 0 else self.decoded_view(record.tag, payload)
            if status == SQ_SPILLED_RECORD:
                reference = self.next_reference(&tag)
                if reference is not None:
                    try:
                        payload = self.read_spilled(reference)
                        payload = bytearray(payload) if tag & TAG_WRITABLE else payload
                        return payload if tag == 0 else self.decoded_view(tag, payload)
                    except errors.CorruptQueueError:
                        if self.next_reference(&tag) == reference:
                            raise  # its file is not gone because the item is
            elif status == SQ_TOO_SMALL:
                size = record.length
            elif status != SQ_AGAIN:
                return self.after_move(self.failure(status), "peek", ())
            PyErr_CheckSignals()

    def lease(self, bint block=True, timeout=None):
        """
        Take the oldest item on trial: it stays in the ring, hidden from others, until the lease is settled.

        ``ack()`` takes it out, ``nack()`` gives it back, as does the death of this process: then it comes before
        everything younger, marked as redelivered. A lease shows the payload in place, without a copy.

        Args:
            block: Whether to wait at all.
            timeout: Seconds to wait; ``None`` waits without end.

        Raises:
            Empty: Nothing came within ``timeout``.
            ShutDown: The ring was shut down, and nothing is left.
            TooManyParticipantsError: 512 handles hold leases already.
        """
        cdef uint64_t deadline_ns = deadline_of(block, timeout)
        try:
            return self.lease_here(deadline_ns)
        except errors.QueueMovedError as error:
            return self.after_move(error, "lease", (block, seconds_until(deadline_ns)))

    cdef Lease lease_here(self, uint64_t deadline_ns):
        """As `lease`, of this ring itself."""
        cdef Lease lease = Lease.__new__(Lease)
        cdef int status
        self.check()
        lease.owner = self
        if deadline_ns:
            sq_spin(&self.ring, SQ_CONSUMERS, 0)
        while True:
            self.calls += 1
            if self.alone:
                status = sq_lease(&self.ring, False, &lease.record)
                if status == SQ_EMPTY or status == SQ_BUSY:
                    status = self.wait_alone(status, deadline_ns)
            else:
                with nogil:
                    status = sq_lease_wait(&self.ring, &lease.record, deadline_ns)
            self.calls -= 1
            if not self.usable:  # also when it has a record, which is given back
                self.finish()
                self.check()
            if status == SQ_OK:
                break
            if status != SQ_AGAIN:
                raise self.failure(status)
            PyErr_CheckSignals()
        lease.held = True
        if lease.record.flags & SQ_RECORD_SPILLED:
            try:
                lease.reference = lease.record.data[:lease.record.length]
                lease.spilled = self.read_spilled(lease.reference)
            except errors.CorruptQueueError:
                lease.ack()  # what it refers to is gone: giving it back would stop everybody behind it
                raise
        return lease

    def lease_many(self, Py_ssize_t max_items, max_bytes=None) -> Leases:
        """
        Take the oldest items on trial, at most 256 and without waiting; they are settled together.

        None at all when `lease` has more to say about the next one, or to do: there is none, it is large, its payload
        lies in a file. Payloads are copied, and handed out without the codec.

        Args:
            max_items: At most that many.
            max_bytes: Bytes of all payloads together.
        """
        cdef Leases leases = Leases.__new__(Leases)
        cdef uint32_t room = <uint32_t>max(min(max_items, TURN), 1), at
        cdef uint64_t bytes_limit = SQ_FOREVER if max_bytes is None else max_bytes
        cdef sq_record *record
        cdef int status
        self.check()
        leases.owner = self
        leases.payloads = []
        leases.records = <sq_record *>PyMem_Malloc(room * sizeof(sq_record))
        if leases.records == NULL:
            raise MemoryError()
        status = sq_lease_many(&self.ring, leases.records, room, bytes_limit, &leases.count)
        leases.held = leases.count > 0
        if status and status not in (SQ_EMPTY, SQ_SHUTDOWN, SQ_BUSY, SQ_AGAIN):
            raise self.failure(status)
        leases.records = <sq_record *>PyMem_Realloc(leases.records, max(leases.count, 1) * sizeof(sq_record))
        for at in range(leases.count):
            record = &leases.records[at]
            payload = record.data[:record.length]
            leases.payloads.append((record.tag, payload) if record.tag else payload)
        return leases

    def view(self, bint block=True, timeout=None):
        """As `lease`, but the ``value`` of an item put as bytes is a read-only memoryview of the ring, not a copy."""
        cdef Lease lease
        cdef uint64_t deadline_ns = deadline_of(block, timeout)
        try:
            lease = self.lease_here(deadline_ns)
        except errors.QueueMovedError as error:
            return self.after_move(error, "view", (block, seconds_until(deadline_ns)))
        lease.in_place = True
        return lease

    def wait_message(self, timeout=None) -> bool:
        """
        Wait until a get has an answer: an item, or `ShutDown`. Somebody else may be faster then.

        Args:
            timeout: Seconds to wait; ``None`` waits without end.

        Returns:
            Whether there is one; False when the time ran out.
        """
        cdef uint64_t deadline_ns = deadline_of(True, timeout)
        if not wait_any([self], timeout):
            return False
        if self.is_over():
            return self.after_move(self.failure(SQ_SHUTDOWN), "wait_message", (seconds_until(deadline_ns),))
        return True

    def wait_room(self, timeout=None) -> bool:
        """
        Wait until a put of a small item has an answer: room, or `ShutDown`. Somebody else may be faster then.

        Args:
            timeout: Seconds to wait; ``None`` waits without end.

        Returns:
            Whether there is one; False when the time ran out.
        """
        cdef int status
        cdef uint64_t deadline_ns = deadline_of(True, timeout)
        while True:
            self.check()
            if self.go_over is not None and sq_state(&self.ring) & SQ_STATE_MOVED:
                return self.after_move(self.failure(SQ_SHUTDOWN), "wait_room", (seconds_until(deadline_ns),))
            self.calls += 1
            with nogil:
                status = sq_wait_turn(&self.ring, SQ_PRODUCERS, 2, deadline_ns)
            self.calls -= 1
            self.finish()
            if status != SQ_AGAIN:
                return status == SQ_OK
            PyErr_CheckSignals()

    def clear(self) -> int:
        """Drop every item that nobody holds by lease, and return how many."""
        cdef uint32_t dropped = 0
        cdef int status
        self.check()
        if self.go_over is not None and sq_state(&self.ring) & SQ_STATE_MOVED:
            return self.clear_one_by_one() + self.after_move(self.failure(SQ_SHUTDOWN), "clear", ())
        if self.spills is not None and self.stats().spills:
            return self.clear_one_by_one()
        while True:
            if self.alone:
                status = sq_clear(&self.ring, False, &dropped)
                if status == SQ_BUSY:
                    status = self.await_lock()
            else:
                self.calls += 1
                with nogil:
                    status = sq_clear(&self.ring, True, &dropped)
                self.calls -= 1
                self.finish()
            if status == SQ_OK:
                return dropped
            if status != SQ_AGAIN:
                raise self.failure(status)
            self.check()
            PyErr_CheckSignals()

    def clear_one_by_one(self) -> int:
        """Clear a ring that has spill files, which go with their items. Internal."""
        cdef uint64_t dropped = 0, bound = self.qsize()
        cdef int status = SQ_AGAIN
        while dropped < bound:
            try:
                self.lease_here(0).ack()
            except (errors.Empty, errors.ShutDown, errors.QueueMovedError):
                break
            except errors.CorruptQueueError:
                if sq_state(&self.ring) & SQ_STATE_POISONED:
                    raise
                # Its spill file is gone, and the lease has dropped it.
            dropped += 1
        while status == SQ_AGAIN or status == SQ_BUSY:
            self.check()
            status = sq_note_dropped(&self.ring, not self.alone, dropped)
        return dropped

    def seal(self, str successor) -> int:
        """
        End this ring in favour of another one: put raises `QueueMovedError` from now on, get once everything was taken.

        The error carries ``successor``. All waiting calls in all processes notice at once. It is one step: whoever is
        killed in it leaves the ring as it was, or sealed.

        Args:
            successor: What names the other one, for those who are told; at most 16 KiB.

        Returns:
            How many items are still to be taken here, those out on lease included.

        Raises:
            ShutDown: The ring was shut down.
            QueueMovedError: It is sealed already.
            NotShareableError: It has no name.
            ValueError: It has a single producer, which puts without a lock.
        """
        cdef uint32_t left = 0
        cdef int status
        self.check()
        if self.single_producer:
            raise ValueError("a ring with a single producer cannot be moved: it puts without a lock")
        if sq_state(&self.ring) & SQ_STATE_SHUTDOWN:
            raise self.failure(SQ_SHUTDOWN)
        try:
            with self.segment.succession(successor, self.is_sealed):
                while True:
                    self.calls += 1
                    with nogil:
                        status = sq_seal(&self.ring, &left)
                    self.calls -= 1
                    if status != SQ_AGAIN:
                        break
                    PyErr_CheckSignals()
                    self.check()
                if status:
                    raise self.failure(status)
        except FileExistsError:
            raise self.failure(SQ_SHUTDOWN) from None
        return left

    def successor(self) -> str | None:
        """What the ring was sealed with; None while it is not sealed."""
        return self.segment.successor() if self.is_sealed() else None

    def is_sealed(self) -> bool:
        """Whether the ring was moved: see `seal`."""
        self.check()
        return sq_state(&self.ring) & SQ_STATE_MOVED != 0

    def set_go_over(self, go_over) -> None:
        """
        Say how calls find the successor once this ring is sealed and, for takes, drained.

        Args:
            go_over: ``go_over(error, verb)`` returns an object with this one's verbs, on which the call is repeated;
                ``error`` is the `QueueMovedError`.
        """
        self.go_over = go_over

    def is_shared(self) -> bool:
        """Whether anybody else is attached."""
        self.check()
        return self.segment.is_shared(self.ring.fd)

    def leave_behind(self) -> None:
        """Let the file stay when this handle is the last one: the name goes on to lead to the successor."""
        self.segment.stays = True

    def is_drained(self) -> bool:
        """Whether this very ring holds no item, leased ones included, wherever its calls are led."""
        self.check()
        return self.holds_nothing()

    cdef bint holds_nothing(self) noexcept:
        cdef sq_stats stats
        sq_stats_read(&self.ring, &stats)
        return stats.depth == 0 and stats.leased == 0

    cdef bint is_over(self) noexcept:
        """Whether calls go over to the successor, because nothing is left to take here."""
        return self.go_over is not None and sq_state(&self.ring) & SQ_STATE_MOVED and self.holds_nothing()

    def shutdown(self, bint immediate=False) -> int:
        """
        Shut the ring down for everybody: put raises `ShutDown` from now on, get once everything was taken.

        All waiting calls in all processes notice at once. Shutting down twice does nothing more.

        Args:
            immediate: Also drop what is queued; get raises at once.

        Returns:
            How many items were dropped.
        """
        cdef uint32_t dropped = 0
        cdef int status
        self.check()
        if self.go_over is not None and sq_state(&self.ring) & SQ_STATE_MOVED:
            if immediate:
                dropped = self.clear_one_by_one()
            return dropped + self.after_move(self.failure(SQ_SHUTDOWN), "shutdown", (immediate,))
        self.calls += 1
        with nogil:
            status = sq_shutdown(&self.ring, immediate, &dropped)
        self.calls -= 1
        self.finish()
        if status:
            raise self.failure(status)
        if dropped and self.spills is not None and not self.single_consumer:
            candidates = self.spills.unlocked()
            self.spills.remove_orphans(candidates, self.spilled_ids())
        return dropped

    # -- Inspection and administration --------------------------------------------------------------------------------

    def resize(self, capacity_bytes, timeout=None) -> None:
        """
        Grow the data region; what is queued stays, and other processes notice by themselves.

        Args:
            capacity_bytes: The new size, rounded up to a power of two. The size it has already does nothing.
            timeout: Seconds to wait for both locks of the ring.

        Raises:
            ValueError: Smaller than it is, beyond 16 GiB, or the ring has single roles.
            QueueNoSpaceError: The file system has no room; the ring is unchanged.
            TimeoutError: A lock could not be had in time.
            OSError: An anonymous ring is sealed against growing (EPERM).
        """
        cdef int status
        cdef uint64_t deadline_ns = deadline_of(True, timeout), until, wanted
        self.check()
        if isinstance(capacity_bytes, bool) or not isinstance(capacity_bytes, int):
            raise TypeError(f"capacity_bytes must be an integer, not {capacity_bytes!r}")
        if not 0 < capacity_bytes <= SQ_CAPACITY_MAX:
            raise ValueError(f"capacity_bytes must be from 1 to {SQ_CAPACITY_MAX:,}, not {capacity_bytes:,}")
        wanted = capacity_bytes
        while True:
            until = sq_now_ns() + SQ_SLICE_NS
            self.calls += 1
            with nogil:
                status = sq_resize(&self.ring, wanted, until if until < deadline_ns else deadline_ns)
            self.calls -= 1
            if status == SQ_OK and self.spills is None:
                self.spill_above = sq_max_length(&self.ring)
                self.copy_up_to = <Py_ssize_t>min(self.spill_above, <uint64_t>COPY_WITH_GIL)
            self.finish()
            if status == SQ_OK:
                return
            if status == SQ_SYSTEM and self.ring.fault.error == 28:  # ENOSPC
                raise errors.QueueNoSpaceError(wanted=capacity_bytes, free=self.segment.free_bytes())
            if status != SQ_AGAIN:
                raise self.failure(status)
            if sq_now_ns() >= deadline_ns:
                raise TimeoutError("the locks of the ring could not be had in time")
            self.check()
            PyErr_CheckSignals()

    def qsize(self) -> int:
        """Items that can be taken now: a moment's estimate while others are active, exact when nobody is."""
        self.check()
        if self.is_over():
            return self.after_move(self.failure(SQ_SHUTDOWN), "qsize", ())
        return sq_depth(&self.ring) + (0 if self.pending is None else len(self.pending))

    def empty(self) -> bool:
        """Whether nothing can be taken now: a moment's estimate."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether ``max_items`` are queued, or not even an empty item would fit: a moment's estimate."""
        cdef sq_stats stats
        self.check()
        if self.go_over is not None and sq_state(&self.ring) & SQ_STATE_MOVED:
            return self.after_move(self.failure(SQ_SHUTDOWN), "full", ())
        sq_stats_read(&self.ring, &stats)
        return stats.depth + stats.leased >= self.ring.max_items or stats.depth_bytes + 32 > stats.capacity_bytes

    def figures(self) -> dict:
        """The counters of the segment's header, as `stats` shows them, and the histogram."""
        cdef sq_stats stats
        self.check()
        sq_stats_read(&self.ring, &stats)
        cdef dict counters = stats
        counters["histogram"] = [sq_histogram_count(&self.ring, bucket) for bucket in range(SQ_HISTOGRAM_BUCKETS)]
        return counters

    def stats(self):
        """Counters since the ring was made, by all parties: see `RingStats`. Costs no lock."""
        self.check()
        if self.is_over():
            return self.after_move(self.failure(SQ_SHUTDOWN), "stats", ())
        return self.segment.stats(self.figures(), self.ring.fd)

    def spilled_ids(self) -> list:
        """
        Names of the spill files that items in the ring refer to, as numbers. Not for rings with a single consumer: that
        one moves on without the lock, and whoever walks the records would meet half-written ones. Internal.
        """
        cdef uint64_t ids[1024]
        cdef uint64_t *room = ids
        cdef size_t found = 0, capacity = 1024, at
        cdef int status
        while True:
            self.check()
            self.calls += 1
            with nogil:
                status = sq_spilled(&self.ring, True, room, capacity, &found)
            self.calls -= 1
            self.finish()
            try:
                if status == SQ_OK and found <= capacity:
                    return [room[at] for at in range(found)]
            finally:
                if room != ids:
                    PyMem_Free(room)
                    room = ids
                    capacity = 1024
            if status == SQ_OK:
                capacity = 2 * found
                room = <uint64_t *>PyMem_Malloc(capacity * sizeof(uint64_t))
                if room == NULL:
                    raise MemoryError()
            elif status != SQ_AGAIN:
                raise self.failure(status)
            PyErr_CheckSignals()

    def unlink(self) -> None:
        """Remove the name: nobody can attach any more, and who is attached goes on. Removing it twice does nothing."""
        self.check()
        self.segment.unlink(self.ring.fd)

    def fileno(self) -> int:
        """The descriptor of the segment, which is close-on-exec; never read or write it."""
        self.check()
        return self.ring.fd

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return not self.usable

    @property
    def name(self) -> str | None:
        """The name it was created under; None for anonymous rings and rings in a file of their own."""
        return self.segment.name

    @property
    def namespace(self) -> str | None:
        """The folder of its name."""
        return self.segment.namespace

    @property
    def path(self) -> str | None:
        """Where the segment lies; None for anonymous rings."""
        return self.segment.path

    @property
    def instance(self) -> str:
        """32 hexadecimal digits that no other ring has, not even a later one of the same name."""
        return (<bytes>self.ring.instance[:16]).hex()

    @property
    def codec(self) -> int:
        """The number given at creation, for the layer above."""
        return self.ring.codec

    @property
    def created_ns(self) -> int:
        """When it was created: nanoseconds since the epoch, wall clock."""
        return self.ring.created_ns

    @property
    def capacity_bytes(self) -> int:
        """Size of the data region. Each record takes 16 bytes more than its payload, rounded up to 16; some take 32."""
        cdef sq_stats stats
        self.check()
        sq_stats_read(&self.ring, &stats)
        return stats.capacity_bytes

    @property
    def max_items(self) -> int:
        """The bound in items; 0 when bounded by bytes alone."""
        return 0 if self.ring.max_items == SQ_ITEMS_MAX else self.ring.max_items

    @property
    def max_message_bytes(self) -> int:
        """The longest payload that a record can hold; longer ones spill, where the ring can."""
        self.check()
        return sq_max_length(&self.ring)

    @property
    def spill_threshold(self) -> int | None:
        """Payloads longer than this go to a spill file; None when there are none and they are refused."""
        return None if self.spills is None else self.spill_above

    @property
    def single_producer(self) -> bool:
        """Whether only one handle may put."""
        return self.ring.mode & SQ_MODE_SINGLE_PRODUCER != 0

    @property
    def single_consumer(self) -> bool:
        """Whether only one handle may get."""
        return self.ring.mode & SQ_MODE_SINGLE_CONSUMER != 0

    @property
    def kept(self) -> bool:
        """Whether it was made to outlive its users: only unlink, and clean when it is told to, remove it."""
        return self.ring.mode & SQ_MODE_KEPT != 0

    @property
    def checksum(self) -> bool:
        """Whether each payload carries a CRC-32C that get verifies."""
        return self.ring.mode & SQ_MODE_CHECKSUM != 0


@cython.no_gc_clear  # giving it back needs the ring
cdef class Lease:
    """
    One item on trial: see `Ring.lease`. As a context manager it is acked at the end, or given back on an exception.

    Supports the buffer protocol: ``memoryview(lease)`` is the payload in the ring itself, read-only and without a
    copy. The memory is good until the lease is settled; after that others may overwrite it, and a view shows what
    they wrote. A lease that is dropped unsettled is given back: at once, or, when that would have to wait for a
    stopped process, together with the handle.
    """

    def __init__(self):
        if not self.held:
            raise TypeError("make a Lease with Ring.lease()")

    def __dealloc__(self):
        cdef int status = SQ_AGAIN, slices = 0
        cdef Ring owner = self.owner
        if not self.held or owner is None:
            return
        while owner.usable and status == SQ_AGAIN and slices < 20:
            slices += 1
            if owner.alone:
                status = sq_nack(&owner.ring, True, &self.record)
                continue
            owner.calls += 1
            with nogil:
                status = sq_nack(&owner.ring, True, &self.record)
            owner.calls -= 1
            owner.finish()

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.spilled is not None:
            PyObject_GetBuffer(self.spilled, buffer, flags)
            return
        if not self.held:
            raise ValueError("the lease is settled: its memory belongs to others now")
        self.owner.check()  # closing gave the item back, and its memory may be gone
        PyBuffer_FillInfo(buffer, self, <void *>self.record.data, self.record.length, 1, flags)
        self.owner.views += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.owner.views -= 1
        self.owner.finish()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind, value, traceback) -> None:
        if self.held:
            self.settle(kind is None)

    def __reduce__(self):
        raise errors.NotShareableError(what="a Lease", instead="send a copy of its data")

    def __repr__(self) -> str:
        state = "held" if self.held else "settled"
        return f"<Lease of {self.record.length:,} bytes, attempt {self.attempt}, {state}>"

    cdef int settle(self, bint accept) except -1:
        cdef int status
        cdef Ring owner = self.owner
        if not self.held:
            raise ValueError("the lease is settled already")
        while True:
            owner.check()
            owner.calls += 1
            if owner.alone:
                if accept:
                    status = sq_ack(&owner.ring, False, &self.record)
                else:
                    status = sq_nack(&owner.ring, False, &self.record)
                if status == SQ_BUSY:
                    status = owner.await_lock()
            else:
                with nogil:
                    if accept:
                        status = sq_ack(&owner.ring, True, &self.record)
                    else:
                        status = sq_nack(&owner.ring, True, &self.record)
            owner.calls -= 1
            owner.finish()
            if status == SQ_OK:
                break
            if status == SQ_FENCED:
                self.held = False
                epoch = sq_party_epoch(&owner.ring, SQ_LEASE_SLOT(self.record.lease))
                raise errors.FencedError(pid=os.getpid(), epoch=epoch)
            if status != SQ_AGAIN:
                raise owner.failure(status)
            PyErr_CheckSignals()
        if accept and self.reference is not None:
            owner.spills.remove(self.reference)
        self.held = False
        return 0

    def ack(self) -> None:
        """
        The item is done with: it leaves the ring.

        Raises:
            FencedError: The item was given to somebody else meanwhile (this process is a fork of the holder).
            ValueError: The lease is settled already.
        """
        self.settle(True)

    def nack(self) -> None:
        """
        Give the item back: the next get or lease receives it, marked as redelivered.

        Raises:
            FencedError: The item was given to somebody else meanwhile.
            ValueError: The lease is settled already.
        """
        self.settle(False)

    @property
    def data(self) -> memoryview:
        """The payload: a read-only view on the ring itself."""
        return memoryview(self)

    @property
    def value(self):
        """The object that the decoder builds on `data` without a copy; a copy for bytes, except of `Ring.view`."""
        if self.record.tag == 0:
            return memoryview(self) if self.in_place else bytes(memoryview(self))
        return self.owner.decoded_view(self.record.tag, memoryview(self))

    @property
    def tag(self) -> int:
        """The mark it was put with; 0 for plain bytes."""
        return self.record.tag

    @property
    def attempt(self) -> int:
        """How many times it was leased before and came back; stops counting at 255."""
        return SQ_LEASE_ATTEMPT(self.record.lease)

    @property
    def redelivered(self) -> bool:
        """Whether somebody held it before."""
        return self.attempt > 0

    @property
    def settled(self) -> bool:
        """Whether it was acked or given back."""
        return not self.held


@cython.no_gc_clear  # giving them back needs the ring
cdef class Leases:
    """
    Several items on trial, in their order: see `Ring.lease_many`. Those that are dropped unsettled are given back, as a
    `Lease` is.
    """

    def __init__(self):
        if self.owner is None:
            raise TypeError("make Leases with Ring.lease_many()")

    def __dealloc__(self):
        cdef int status = SQ_AGAIN, slices = 0
        cdef uint32_t fenced
        while self.held and self.owner.usable and status == SQ_AGAIN and slices < 20:
            slices += 1
            status = self.turn(True, 0, &fenced)
        PyMem_Free(self.records)

    cdef int turn(self, bint wait, uint32_t acked, uint32_t *fenced) noexcept:
        """Try to settle all; `wait`: for the lock, at most one slice."""
        cdef int status
        cdef Ring owner = self.owner
        if owner.alone:
            return sq_settle_many(&owner.ring, wait, self.records, self.count, acked, fenced)
        owner.calls += 1
        with nogil:
            status = sq_settle_many(&owner.ring, True, self.records, self.count, acked, fenced)
        owner.calls -= 1
        owner.finish()
        return status

    def settle(self, acked=None) -> None:
        """
        Ack the first ones, give back the others.

        Args:
            acked: How many; ``None`` for all.

        Raises:
            FencedError: Some were given to somebody else meanwhile (this process is a fork of the holder); all others
                are settled.
            ValueError: They are settled already.
        """
        cdef uint32_t fenced = 0, done = self.count if acked is None else min(acked, self.count)
        cdef int status = SQ_AGAIN
        if not self.held and self.count:
            raise ValueError("the leases are settled already")
        while self.held and status != SQ_OK:
            self.owner.check()
            status = self.turn(False, done, &fenced)
            if status == SQ_BUSY:
                status = self.owner.await_lock()
            if status == SQ_OK:
                break
            if status != SQ_AGAIN:
                raise self.owner.failure(status)
            PyErr_CheckSignals()
        self.held = False
        if fenced:
            epoch = sq_party_epoch(&self.owner.ring, SQ_LEASE_SLOT(self.records[0].lease))
            raise errors.FencedError(pid=os.getpid(), epoch=epoch)

    def __len__(self) -> int:
        return self.count

    def __reduce__(self):
        raise errors.NotShareableError(what="Leases", instead="send copies of their items")

    @property
    def items(self) -> list:
        """The payloads, those with another tag than 0 as ``(tag, payload)``."""
        return self.payloads

    @property
    def nbytes(self) -> int:
        """Bytes of all payloads."""
        cdef uint64_t size = 0
        cdef uint32_t at
        for at in range(self.count):
            size += self.records[at].length
        return size

    @property
    def attempts(self) -> list:
        """How many times each was leased before and came back; empty when nobody had one of them before."""
        cdef uint32_t at
        for at in range(self.count):
            if SQ_LEASE_ATTEMPT(self.records[at].lease):
                return [SQ_LEASE_ATTEMPT(self.records[at].lease) for at in range(self.count)]
        return []
