/* From a file to a handle: format, validate, map, remap.
 *
 * Everything that decides where memory is touched is copied into the private handle here, after it was checked
 * against the size of the file, and is not read from the segment again. The one exception is the geometry word, which resize
 * may change: it is re-read under a lock, and checked again before it is used.
 */
#ifndef SAGE_RING_MAP_H
#define SAGE_RING_MAP_H

#include <sys/file.h>
#include <sys/random.h>

#include "ring_guard.h"
#include "ring_wait.h"

/* One mapping of a data region: twice in a row, so that a record never wraps. Immutable; old ones stay until the
 * handle is closed, because views may still point into them. */
typedef struct sq_map {
    uint8_t *data;
    uint64_t word;     /* the geometry word it belongs to */
    uint32_t mask;     /* units - 1 */
    uint32_t capacity; /* units */
    sq_guard *guard;
    struct sq_map *next;
} sq_map;

#define SQ_YIELDS 60u /* about 30 us alone on a core: longer than waking a sleeper takes */

/* A handle: private memory of one process. */
typedef struct sq_ring {
    sq_header *header;
    sq_map *_Atomic map;
    uint32_t mode;
    uint32_t max_items;
    sq_word32 broken; /* set by the SIGBUS guard */
    uint32_t forks;   /* sq_forks when slot and roles below were obtained */
    uint32_t slot;    /* participant slot + 1; 0: none */
    uint32_t roles;   /* SQ_MODE_SINGLE_* that this handle holds */
    sq_word32 yields[2]; /* before sleeping, producers' and consumers' side; adapts */
    sq_word64 next_sweep_ns;
    uint64_t spill_threshold;
    uint64_t first_item;
    uint32_t codec;
    int fd;
    int protection; /* of the mappings; without PROT_WRITE only ring_look.h may be used */
    dev_t device;
    ino_t inode;
    size_t header_bytes;
    uint8_t instance[16];
    uint64_t created_ns;
    sq_guard *header_guard;
    pthread_mutex_t remapping;
    sq_fault fault;
} sq_ring;

typedef struct {
    uint64_t capacity_bytes; /* rounded up to a power of two and a page */
    uint64_t max_items;      /* 0: bounded by bytes alone */
    uint64_t spill_threshold;
    uint32_t mode;
    uint32_t codec;
    uint64_t start_units, start_items; /* tests start counters near their wrap */
} sq_settings;

/* CRC-32C (Castagnoli polynomial, reflected 0x82F63B78), as in RFC 3720. */
static uint32_t sq_crc_table[256];
__attribute__((constructor)) static void sq_crc_fill(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
        sq_crc_table[byte] = crc;
    }
}
static inline uint32_t sq_crc_plain(uint32_t crc, const uint8_t *data, size_t length) {
    while (length--) crc = (crc >> 8) ^ sq_crc_table[(crc ^ *data++) & 0xff];
    return crc;
}
#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t sq_crc_sse42(uint32_t crc, const uint8_t *data, size_t length) {
    uint64_t wide = crc;
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    return sq_crc_plain((uint32_t)wide, data, length);
}
#endif
static inline uint32_t sq_crc32c(const void *data, size_t length) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return ~sq_crc_sse42(~0u, data, length);
#endif
    return ~sq_crc_plain(~0u, data, length);
}

static __attribute__((noinline, cold)) void sq_note_fault(sq_fault *fault, const char *field, uint64_t offset, uint64_t value,
                                                          uint64_t wanted) {
    *fault = (sq_fault){.field = field, .offset = offset, .value = value, .wanted = wanted, .error = errno};
}
/* Notes why, and returns `status`. Two functions, so that the compiler sees that it is never SQ_OK. */
SQ_HOT int sq_fail(sq_fault *fault, int status, const char *field, uint64_t offset, uint64_t value, uint64_t wanted) {
    sq_note_fault(fault, field, offset, value, wanted);
    return status;
}

static inline uint64_t sq_page(void) { return (uint64_t)sysconf(_SC_PAGESIZE); }

static inline uint64_t sq_round_capacity(uint64_t bytes) {
    uint64_t capacity = sq_page() > SQ_CAPACITY_MIN ? sq_page() : SQ_CAPACITY_MIN;
    while (capacity < bytes) capacity *= 2;
    return capacity;
}

#define SQ_PIECE (4ull << 20)

/* Reserves pages, piece by piece: at a signal tmpfs gives a piece up, and a timer must not keep a large one from ever coming
 * about. -1 and errno: nothing is reserved, although the file may be longer. */
static inline int sq_reserve_pages(int fd, uint64_t at, uint64_t bytes) {
    for (uint64_t done = 0, piece; done < bytes; done += piece) {
        piece = bytes - done < SQ_PIECE ? bytes - done : SQ_PIECE;
        int error;
        do error = posix_fallocate(fd, (off_t)(at + done), (off_t)piece);
        while (error == EINTR);
        if (error) {
            if (done) (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)done);
            errno = error;
            return -1;
        }
    }
    return 0;
}

/* Makes an empty file (or memfd) into a ring. Nobody else may see the file yet: a crash in here leaves a nameless file,
 * which the kernel frees. */
static inline int sq_format(int fd, const sq_settings *wanted, sq_fault *fault) {
    if (wanted->capacity_bytes == 0 || wanted->capacity_bytes > SQ_CAPACITY_MAX)
        return sq_fail(fault, SQ_INVALID, "capacity_bytes", 0, wanted->capacity_bytes, SQ_CAPACITY_MAX);
    if (wanted->max_items > SQ_ITEMS_MAX) return sq_fail(fault, SQ_INVALID, "max_items", 0, wanted->max_items, SQ_ITEMS_MAX);
    if (wanted->mode & ~SQ_MODE_ALL) return sq_fail(fault, SQ_INVALID, "mode", 0, wanted->mode, SQ_MODE_ALL);
    uint64_t page = sq_page(), capacity = sq_round_capacity(wanted->capacity_bytes);
    uint64_t header_bytes = (sizeof(sq_header) + page - 1) / page * page, total = header_bytes + capacity;
    /* Reserves every page now: ftruncate alone would succeed on a full tmpfs and the first touch would be SIGBUS. */
    if (sq_reserve_pages(fd, 0, total)) return sq_fail(fault, SQ_SYSTEM, "posix_fallocate", 0, total, 0);
    SQ_POINT(format_reserved);
    sq_header *header = mmap(NULL, header_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED) return sq_fail(fault, SQ_SYSTEM, "mmap", 0, header_bytes, 0);
    sq_identity identity = {
        .magic = SQ_MAGIC,
        .layout_version = SQ_LAYOUT_VERSION,
        .byte_order = SQ_BYTE_ORDER,
        .header_bytes = (uint32_t)header_bytes,
        .page_bytes = (uint32_t)page,
        .word_bits = 8 * sizeof(void *),
        .unit_bytes = SQ_UNIT,
        .pid_namespace = sq_pid_namespace(),
        .max_items = wanted->max_items,
        .spill_threshold = wanted->spill_threshold,
        .first_item = wanted->start_items,
        .first_unit = wanted->start_units,
        .mode = wanted->mode,
        .codec = wanted->codec,
    };
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    identity.created_ns = (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
    int status = SQ_OK;
    if (getrandom(identity.instance, sizeof identity.instance, 0) != (ssize_t)sizeof identity.instance)
        status = sq_fail(fault, SQ_SYSTEM, "getrandom", 0, 0, 0);
    if (!sq_boot_id(header->control.boot_id)) status = sq_fail(fault, SQ_SYSTEM, "boot_id", 0, 0, 0);
    identity.checksum = sq_crc32c(&identity, offsetof(sq_identity, checksum));
    uint64_t start = sq_position((uint32_t)wanted->start_units, (uint32_t)wanted->start_items);
    sq_store64(&header->control.geometry,
               sq_geometry(header_bytes / page, (uint32_t)__builtin_ctzll(capacity / SQ_UNIT), 0));
    sq_store64(&header->tail, start);
    sq_store64(&header->head, start);
    sq_store64(&header->producers.other_cache, start);
    sq_store64(&header->consumers.other_cache, start);
    sq_store64(&header->producers.count, wanted->start_items);
    sq_store64(&header->consumers.count, wanted->start_items);
    SQ_POINT(format_filled);
    header->identity = identity;
    munmap(header, header_bytes);
    return status;
}

/* Maps the data region that `word` names, after checking it against the file. NULL with ring->fault set. */
static inline sq_map *sq_map_region(sq_ring *ring, uint64_t word, int *status) {
    uint64_t page = sq_page(), offset = sq_geometry_offset_pages(word), log2_units = sq_geometry_log2_units(word);
    struct stat st;
    if (fstat(ring->fd, &st) != 0) {
        *status = sq_fail(&ring->fault, SQ_SYSTEM, "fstat", 0, 0, 0);
        return NULL;
    }
    uint64_t geometry_at = offsetof(sq_header, control.geometry), pages = (uint64_t)st.st_size / page;
    if (log2_units < 8 || log2_units > 30 || ((uint64_t)SQ_UNIT << log2_units) % page) {
        *status = sq_fail(&ring->fault, SQ_CORRUPT, "geometry.capacity", geometry_at, log2_units, 30);
        return NULL;
    }
    uint64_t bytes = (uint64_t)SQ_UNIT << log2_units;
#ifndef SQ_PLANT_GEOMETRY_UNCHECKED
    if (offset * page < ring->header_bytes || offset > pages || bytes / page > pages - offset) {
        *status = sq_fail(&ring->fault, SQ_CORRUPT, "geometry.offset", geometry_at, offset, pages);
        return NULL;
    }
#endif
    sq_map *map = calloc(1, sizeof *map);
    uint8_t *room = mmap(NULL, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int protection = ring->protection, flags = MAP_SHARED | MAP_FIXED;
    if (!map || room == MAP_FAILED ||
        mmap(room, bytes, protection, flags, ring->fd, (off_t)(offset * page)) == MAP_FAILED ||
        mmap(room + bytes, bytes, protection, flags, ring->fd, (off_t)(offset * page)) == MAP_FAILED ||
        !(map->guard = sq_guard_add(room, 2 * bytes, &ring->broken))) {
        *status = sq_fail(&ring->fault, SQ_SYSTEM, "mmap", 0, 2 * bytes, 0);
        if (room != MAP_FAILED) munmap(room, 2 * bytes);
        free(map);
        return NULL;
    }
    map->data = room;
    map->word = word;
    map->capacity = (uint32_t)(bytes / SQ_UNIT);
    map->mask = map->capacity - 1;
    return map;
}

/* Called under a lock of the ring when the geometry word is not the mapped one. Threads of this process that hold the
 * other side's lock may be here too, hence the private mutex. */
static __attribute__((noinline, cold)) int sq_remap(sq_ring *ring) {
    int status = SQ_OK;
    pthread_mutex_lock(&ring->remapping);
    uint64_t word = sq_load_acquire64(&ring->header->control.geometry); /* R3: pairs with W3 in sq_resize() */
    if (ring->map->word != word) {
        sq_map *map = sq_map_region(ring, word, &status);
        if (map) {
            map->next = ring->map;
            ring->map = map;
        }
    }
    pthread_mutex_unlock(&ring->remapping);
    return status;
}

static inline int sq_check_identity(sq_ring *ring, const sq_identity *id, uint64_t size) {
    sq_fault *fault = &ring->fault;
#define SQ_EXPECT(status, name, want)                                                                                  \
    if (id->name != (want)) return sq_fail(fault, status, #name, offsetof(sq_identity, name), id->name, want)
    SQ_EXPECT(SQ_CORRUPT, magic, SQ_MAGIC);
    SQ_EXPECT(SQ_INCOMPATIBLE, byte_order, SQ_BYTE_ORDER);
    SQ_EXPECT(SQ_INCOMPATIBLE, layout_version, SQ_LAYOUT_VERSION);
    SQ_EXPECT(SQ_INCOMPATIBLE, word_bits, 8 * sizeof(void *));
    SQ_EXPECT(SQ_INCOMPATIBLE, unit_bytes, SQ_UNIT);
    SQ_EXPECT(SQ_INCOMPATIBLE, page_bytes, sq_page());
    SQ_EXPECT(SQ_CORRUPT, checksum, sq_crc32c(id, offsetof(sq_identity, checksum)));
#undef SQ_EXPECT
    if (id->header_bytes < sizeof(sq_header) || id->header_bytes % sq_page() || id->header_bytes > size)
        return sq_fail(fault, SQ_CORRUPT, "header_bytes", offsetof(sq_identity, header_bytes), id->header_bytes, size);
    if (id->mode & ~SQ_MODE_ALL)
        return sq_fail(fault, SQ_INCOMPATIBLE, "mode", offsetof(sq_identity, mode), id->mode, SQ_MODE_ALL);
    if (id->max_items > SQ_ITEMS_MAX)
        return sq_fail(fault, SQ_CORRUPT, "max_items", offsetof(sq_identity, max_items), id->max_items, SQ_ITEMS_MAX);
    return SQ_OK;
}

/* The file outlived a reboot: nobody named in it is alive, and the kernel never marked their locks. One attacher does
 * so, alone; the others wait for it. */
static inline int sq_adopt_after_boot(sq_ring *ring) {
    uint8_t now[16];
    sq_header *header = ring->header;
    if (!sq_boot_id(now)) return sq_fail(&ring->fault, SQ_SYSTEM, "boot_id", 0, 0, 0);
#ifdef SQ_PLANT_BOOT_ID_IGNORED
    return SQ_OK;
#endif
    for (int attempt = 0; memcmp(header->control.boot_id, now, sizeof now) != 0; attempt++) {
        if (flock(ring->fd, LOCK_EX | LOCK_NB) == 0) {
            if (memcmp(header->control.boot_id, now, sizeof now) != 0) {
                sq_store32(&header->producers.lock, FUTEX_OWNER_DIED);
                sq_store32(&header->consumers.lock, FUTEX_OWNER_DIED);
                sq_store32(&header->control.producer_role, 0);
                sq_store32(&header->control.consumer_role, 0);
                sq_store32(&header->not_empty.sleepers, 0);
                sq_store32(&header->not_full.sleepers, 0);
                for (uint32_t slot = 0; slot < SQ_PARTICIPANTS; slot++) sq_store64(&header->participants[slot].start_ticks, 0);
                sq_crash_fence(); /* killed before the next line: the next attacher does it all again */
                memcpy(header->control.boot_id, now, sizeof now);
            }
            break;
        }
        if (attempt > 5000) return sq_fail(&ring->fault, SQ_SYSTEM, "flock", 0, 0, 0);
        usleep(1000);
    }
    if (flock(ring->fd, LOCK_SH) != 0) return sq_fail(&ring->fault, SQ_SYSTEM, "flock", 0, 0, 0);
    return SQ_OK;
}

static inline void sq_unmap(sq_ring *ring) {
    if (sq_load32(&ring->broken)) { /* pages were replaced under us: leave them; only the handle goes */
        static sq_word32 nobody;
        for (sq_map *map = ring->map; map; map = map->next) map->guard->broken = &nobody;
        ring->header_guard->broken = &nobody;
        return;
    }
    for (sq_map *map = ring->map, *next; map; map = next) {
        next = map->next;
        sq_guard_remove(map->guard);
        munmap(map->data, 2ull * map->capacity * SQ_UNIT);
        free(map);
    }
    ring->map = NULL;
    if (ring->header_guard) sq_guard_remove(ring->header_guard);
    if (ring->header) munmap(ring->header, ring->header_bytes);
    ring->header = NULL;
}

/* In a forked child: another thread of the parent may have held this at that moment. */
static inline void sq_after_fork(sq_ring *ring) { pthread_mutex_init(&ring->remapping, NULL); }

/* Maps a range anew, at the same place, from the description `fd`. The old mapping stays where that fails. */
static inline void sq_map_anew(void *at, size_t bytes, int protection, int fd, off_t offset) {
    void *made = mmap(NULL, bytes, protection, MAP_SHARED, fd, offset);
    if (made == MAP_FAILED) return;
    if (mremap(made, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED) munmap(made, bytes);
}

/* In a forked child that has a description of its own by now: a mapping holds on to the description it was made from, and
 * with it to the parent's lock. A parent that is killed would count as attached until its last child goes, and that child
 * would not find itself the last one. Nobody else runs in the child yet. */
static inline void sq_map_own(sq_ring *ring) {
    if (sq_load32(&ring->broken)) return; /* pages were replaced under us, and are to stay so */
    for (sq_map *map = ring->map; map; map = map->next) {
        size_t bytes = (size_t)map->capacity * SQ_UNIT;
        off_t offset = (off_t)(sq_geometry_offset_pages(map->word) * sq_page());
        sq_map_anew(map->data, bytes, ring->protection, ring->fd, offset);
        sq_map_anew(map->data + bytes, bytes, ring->protection, ring->fd, offset);
    }
    sq_map_anew(ring->header, ring->header_bytes, ring->protection, ring->fd, 0);
}

/* Fills `ring` from the file. Takes `fd` over when it succeeds. Without `writable` the mapping is for looking only, and
 * nothing is asked of its user: neither this boot nor this PID namespace. */
static inline int sq_open(sq_ring *ring, int fd, bool writable) {
    memset(ring, 0, sizeof *ring);
    ring->fd = fd;
    ring->protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    ring->forks = sq_forks;
    sq_store32(&ring->yields[0], SQ_YIELDS);
    sq_store32(&ring->yields[1], SQ_YIELDS);
    sq_fault *fault = &ring->fault;
    struct stat st;
    if (fstat(fd, &st) != 0) return sq_fail(fault, SQ_SYSTEM, "fstat", 0, 0, 0);
    if ((uint64_t)st.st_size < sizeof(sq_header))
        return sq_fail(fault, SQ_CORRUPT, "file size", 0, (uint64_t)st.st_size, sizeof(sq_header));
    ring->device = st.st_dev;
    ring->inode = st.st_ino;
    sq_identity identity;
    ssize_t length = pread(fd, &identity, sizeof identity, 0);
    if (length < 0) return sq_fail(fault, SQ_SYSTEM, "pread", 0, 0, 0);
    if (length != (ssize_t)sizeof identity) return sq_fail(fault, SQ_CORRUPT, "file size", 0, (uint64_t)length, sizeof identity);
    int status = sq_check_identity(ring, &identity, (uint64_t)st.st_size);
    if (status) return status;
    if (writable && identity.pid_namespace != sq_pid_namespace())
        return sq_fail(fault, SQ_NAMESPACE, "pid_namespace", offsetof(sq_identity, pid_namespace), identity.pid_namespace,
                       sq_pid_namespace());
    ring->header_bytes = identity.header_bytes;
    ring->mode = identity.mode;
    ring->codec = identity.codec;
    ring->max_items = identity.max_items ? (uint32_t)identity.max_items : (uint32_t)SQ_ITEMS_MAX;
    ring->spill_threshold = identity.spill_threshold;
    ring->first_item = identity.first_item;
    ring->created_ns = identity.created_ns;
    memcpy(ring->instance, identity.instance, sizeof ring->instance);
    pthread_mutex_init(&ring->remapping, NULL);
    void *header = mmap(NULL, ring->header_bytes, ring->protection, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED) return sq_fail(fault, SQ_SYSTEM, "mmap", 0, ring->header_bytes, 0);
    ring->header = header;
    SQ_POINT(attach_mapped);
    if (!(ring->header_guard = sq_guard_add(header, ring->header_bytes, &ring->broken)))
        status = sq_fail(fault, SQ_SYSTEM, "malloc", 0, 0, 0);
    if (!status && writable) status = sq_adopt_after_boot(ring);
    if (!status) {
        sq_map *map = sq_map_region(ring, sq_load_acquire64(&ring->header->control.geometry), &status);
        if (map) {
            ring->map = map;
            uint64_t tail = sq_load_acquire64(&ring->header->tail), head = sq_load_acquire64(&ring->header->head);
            uint32_t used = sq_units(tail) - sq_units(head);
            /* Others may be at work between the two loads: head is the later one, so `used` can only be too small. */
            if (used > map->capacity && (int32_t)used > 0)
                status = sq_fail(fault, SQ_CORRUPT, "tail", offsetof(sq_header, tail), used, map->capacity);
        }
    }
    if (!status && sq_load32(&ring->broken)) status = sq_fail(fault, SQ_CORRUPT, "file size", 0, 0, ring->header_bytes);
    if (status) sq_unmap(ring);
    return status;
}

static inline int sq_attach(sq_ring *ring, int fd) { return sq_open(ring, fd, true); }

#endif
