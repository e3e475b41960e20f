"""The C state of the ring as Cython sees it: the algorithm's functions (ring.h) and the two classes on them."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "ring.h" nogil:
    enum: SQ_OK, SQ_EMPTY, SQ_FULL, SQ_SHUTDOWN, SQ_BUSY, SQ_AGAIN, SQ_TOO_LARGE, SQ_TOO_SMALL, SQ_SPILLED_RECORD
    enum: SQ_CORRUPT, SQ_CHECKSUM, SQ_INCOMPATIBLE, SQ_NAMESPACE, SQ_SYSTEM, SQ_FENCED, SQ_NO_SLOT, SQ_ROLE_TAKEN
    enum: SQ_INVALID
    enum: SQ_MODE_SINGLE_PRODUCER, SQ_MODE_SINGLE_CONSUMER, SQ_MODE_CHECKSUM, SQ_MODE_KEPT
    enum: SQ_RECORD_SPILLED, SQ_PARTICIPANTS, SQ_HISTOGRAM_BUCKETS, SQ_LAYOUT_VERSION
    enum: SQ_STATE_SHUTDOWN, SQ_STATE_IMMEDIATE, SQ_STATE_POISONED, SQ_STATE_MOVED
    uint64_t SQ_FOREVER, SQ_CAPACITY_MAX, SQ_ITEMS_MAX, SQ_SLICE_NS

    enum sq_which:
        SQ_PRODUCERS
        SQ_CONSUMERS

    ctypedef struct sq_fault:
        const char *field
        uint64_t offset, value, wanted
        int error

    ctypedef struct sq_settings:
        uint64_t capacity_bytes, max_items, spill_threshold, start_units, start_items
        uint32_t mode, codec

    ctypedef struct sq_map:
        uint32_t capacity

    ctypedef struct sq_participant:
        uint32_t pid, epoch

    ctypedef struct sq_ring:
        sq_map *map
        uint32_t mode, max_items, codec, slot, forks
        uint64_t spill_threshold, created_ns
        uint64_t device, inode
        int fd
        uint8_t instance[16]
        sq_fault fault

    ctypedef struct sq_part:
        const void *data
        size_t length

    ctypedef struct sq_record:
        const uint8_t *data
        uint64_t position
        uint32_t length, lease
        uint8_t tag, flags

    ctypedef struct sq_writer:
        uint8_t *payload
        uint32_t items

    ctypedef struct sq_reader:
        uint32_t items

    ctypedef struct sq_stats:
        uint64_t puts, gets, bytes_put, bytes_taken, depth, depth_bytes, high_water, dropped, spills
        uint64_t redeliveries, leased, put_blocked_ns, put_blocked, get_blocked_ns, get_blocked
        uint64_t put_recoveries, get_recoveries, put_waiters, get_waiters, oldest_age_ns, capacity_bytes, state
        uint32_t put_lock_owner, get_lock_owner

    ctypedef struct sq_identity:
        uint32_t mode

    ctypedef struct sq_sight:
        sq_stats stats
        uint64_t pid_namespace, poison
        uint32_t mode, codec, poisoned_by, generation, producer_role, consumer_role
        bint this_boot, walked
        uint32_t pids[512]
        uint32_t epochs[512]
        uint32_t leases[512]
        uint64_t start_ticks[512]

    uint64_t sq_now_ns()
    uint32_t SQ_LEASE_ATTEMPT(uint32_t lease)
    uint32_t SQ_LEASE_SLOT(uint32_t lease)
    int sq_format(int fd, const sq_settings *settings, sq_fault *fault)
    int sq_open(sq_ring *ring, int fd, bint writable)
    int sq_attach(sq_ring *ring, int fd)
    void sq_detach(sq_ring *ring)
    void sq_after_fork(sq_ring *ring)
    void sq_map_own(sq_ring *ring)
    void sq_unmap(sq_ring *ring)
    uint64_t sq_max_length(sq_ring *ring)
    uint64_t sq_depth(sq_ring *ring)
    void sq_stats_read(sq_ring *ring, sq_stats *stats)
    uint64_t sq_histogram_count(sq_ring *ring, uint32_t bucket)
    uint32_t sq_state(sq_ring *ring)
    int sq_look_identity(int fd, sq_identity *identity, sq_fault *fault)
    void sq_look(sq_ring *ring, sq_sight *sight)
    bint sq_is_broken(sq_ring *ring)
    uint32_t sq_party_epoch(sq_ring *ring, uint32_t slot)
    uint32_t sq_party_pid(sq_ring *ring, uint32_t slot)

    uint32_t sq_record_units(uint64_t length, bint extended)
    uint64_t sq_parts_length(const sq_part *parts, size_t count)
    int sq_put(sq_ring *ring, const void *data, size_t length, uint8_t tag)
    int sq_put_parts(sq_ring *ring, const sq_part *parts, size_t count, uint8_t tag, uint8_t flags)
    int sq_put_parts_wait(
        sq_ring *ring, const sq_part *parts, size_t count, uint8_t tag, uint8_t flags, uint64_t deadline_ns)
    int sq_write_begin(sq_ring *ring, sq_writer *writer, bint wait)
    int sq_write_reserve(sq_writer *writer, uint64_t length, uint8_t tag, uint8_t flags)
    void sq_write_next(sq_writer *writer)
    int sq_write_end(sq_writer *writer)

    int sq_read_begin(sq_ring *ring, sq_reader *reader, bint wait)
    int sq_read_next(sq_reader *reader, sq_record *record)
    void sq_read_take(sq_reader *reader, const sq_record *record)
    int sq_read_end(sq_reader *reader)
    bint sq_intact(const sq_ring *ring, const sq_record *record, const void *copy)
    int sq_get_once(sq_ring *ring, void *buffer, size_t size, sq_record *record, bint wait, bint take)
    int sq_get_wait(sq_ring *ring, void *buffer, size_t size, sq_record *record, uint64_t deadline_ns)
    int sq_reap(sq_ring *ring, bint wait)

    int sq_lease(sq_ring *ring, bint wait, sq_record *record)
    int sq_lease_wait(sq_ring *ring, sq_record *record, uint64_t deadline_ns)
    int sq_lease_many(sq_ring *ring, sq_record *records, uint32_t room, uint64_t bytes, uint32_t *count)
    int sq_ack(sq_ring *ring, bint wait, const sq_record *record)
    int sq_nack(sq_ring *ring, bint wait, const sq_record *record)
    int sq_settle_many(
        sq_ring *ring, bint wait, const sq_record *records, uint32_t count, uint32_t acked, uint32_t *fenced)

    bint sq_spin(sq_ring *ring, sq_which which, uint32_t plain_units)
    int sq_wait_turn(sq_ring *ring, sq_which which, uint32_t plain_units, uint64_t deadline_ns)
    int sq_wait_lock(sq_ring *ring, sq_which which)
    int sq_wait_any(sq_ring **rings, uint32_t count, uint64_t deadline_ns)
    bint sq_ready_indeed(sq_ring *ring)

    int sq_note_dropped(sq_ring *ring, bint wait, uint64_t dropped)
    int sq_clear(sq_ring *ring, bint wait, uint32_t *dropped)
    int sq_shutdown(sq_ring *ring, bint immediate, uint32_t *dropped)
    int sq_seal(sq_ring *ring, uint32_t *left)
    int sq_resize(sq_ring *ring, uint64_t capacity_bytes, uint64_t deadline_ns)
    int sq_spilled(sq_ring *ring, bint wait, uint64_t *ids, size_t room, size_t *found)


cdef class Lease


cdef class Ring:
    cdef sq_ring ring             # the handle: mapping, geometry, claims
    cdef bint usable              # attached and not closed
    cdef bint mapped              # memory is still mapped; outlives `usable` while calls or views are under way
    cdef bint alone               # a single-producer or single-consumer ring: operations keep the GIL
    cdef int calls                # calls that run without the GIL
    cdef int views                # buffers of leases that somebody looks at
    cdef uint64_t spill_above     # payloads longer than this go to a spill file
    cdef bint is_checked          # records have checksums
    cdef Py_ssize_t copy_up_to    # payloads that long are copied with the GIL held
    cdef object encoder           # object -> (tag, parts), or None: bytes-like objects only
    cdef object decoder           # (tag, buffer) -> object, or None
    cdef object plain_encoder     # object -> bytes or TypeError, or None
    cdef tuple plain_values       # of its keywords
    cdef tuple plain_names
    cdef uint8_t plain_tag        # of what it makes
    cdef bint in_parts            # the last object came in parts, so the next one may
    cdef object plain_decoder     # buffer -> object for the plain tag, or None
    cdef list pending             # (tag, payload) taken out, but the decoder was interrupted; None when there are none
    cdef object go_over           # (QueueMovedError, verb) -> who takes over, or None: the error is raised
    cdef object segment           # where it lives: see segment.py
    cdef object spills            # the spill files beside it, or None: see spill.py
    cdef object __weakref__

    # lifecycle
    cdef int finish(self) except -1
    cdef void unmap(self) noexcept
    cdef int check(self) except -1
    cdef object failure(self, int status)
    cdef object after_move(self, object error, str verb, tuple arguments)
    cdef bint is_over(self) noexcept
    cdef bint holds_nothing(self) noexcept
    # write side
    cdef int put_in_full(self, object item, bint block, object timeout) except -1
    cdef object get_in_full(self, bint block, object timeout)
    cdef object encoded(self, object item)
    cdef int put_parts(self, object parts, uint8_t tag, uint64_t deadline_ns) except -1
    cdef int put_waiting(
        self, const sq_part *parts, size_t count, uint8_t tag, uint8_t flags, uint64_t deadline_ns) except -1
    cdef Py_ssize_t put_all(self, list originals, list queued, list tags, uint64_t deadline_ns) except -1
    cdef int put_run(self, list items, list tags, Py_ssize_t *done) except -1
    # read side
    cdef object get_waiting(self, uint64_t deadline_ns, uint8_t *tag)
    cdef int wait_alone(self, int status, uint64_t deadline_ns) noexcept
    cdef int await_lock(self) except -1
    cdef int claim_consumer(self) except -1
    cdef object next_reference(self, uint8_t *tag)
    cdef object read_spilled(self, object reference)
    cdef object get_spilled(self)
    cdef Lease lease_here(self, uint64_t deadline_ns)
    cdef object new_payload(self, size_t size, bint writable)
    cdef list get_run(self, list items, list tags, Py_ssize_t max_items, Py_ssize_t max_bytes)
    cdef list linger(self, list items, list tags, Py_ssize_t max_items, Py_ssize_t max_bytes, uint64_t until_ns)
    cdef list decode_all(self, list items, list tags)
    cdef object decoded(self, uint8_t tag, object payload)
    cdef object decoded_view(self, uint8_t tag, object view)


cdef class Lease:
    cdef Ring owner
    cdef sq_record record
    cdef bint held
    cdef bint in_place            # whether `value` of bytes is a view
    cdef object reference         # what the record holds, when it refers to a spill file
    cdef object spilled           # the payload that was in that file

    cdef int settle(self, bint accept) except -1


cdef class Leases:
    cdef Ring owner
    cdef sq_record *records
    cdef uint32_t count
    cdef bint held                # unsettled; all or none are
    cdef list payloads            # bytes with tag 0 as they are, others as (tag, bytes)

    cdef int turn(self, bint wait, uint32_t acked, uint32_t *fenced) noexcept
