/* Damaged segments, attached and used: every answer must be typed, nothing may crash, hang or read beyond its mapping.
 *
 *   fuzz images COUNT SEED SECONDS   random damage, each image attached, drained and refilled; ends early when time is up
 *   fuzz bits                        every single bit of the header flipped: the same answers, or a word about it
 *   fuzz hostile SECONDS SEED        a process without our library flips words while others put and take
 *
 * A child does the work, so that a crash or a hang is counted, reported with the number that repeats it, and survived.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Mappings of the core get inaccessible pages on both sides, so that a step beyond one is a crash and not luck. */
#define MOAT (16u << 12)
static void *moated_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    if (fd >= 0) flags |= MAP_POPULATE; /* one call instead of a page fault each: three times the images in a second */
    if (flags & MAP_FIXED) return mmap(at, length, protection, flags, fd, offset);
    uint8_t *room = mmap(NULL, length + 2 * MOAT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return MAP_FAILED;
    void *got = mmap(room + MOAT, length, protection, flags | MAP_FIXED, fd, offset);
    if (got == MAP_FAILED) munmap(room, length + 2 * MOAT);
    return got;
}
static int moated_munmap(void *at, size_t length) { return munmap((uint8_t *)at - MOAT, length + 2 * MOAT); }
#define mmap moated_mmap
#define munmap moated_munmap
#include "ring.h"
#undef mmap
#undef munmap

#include <poll.h>
#include <sys/wait.h>

#define HEADER sizeof(sq_header)
#define CAPACITY 4096u
#define FILE_BYTES (HEADER + CAPACITY)
#define HANG_SECONDS 4

typedef struct {
    _Atomic uint64_t done, attached, crashes, hangs, wrong, typed, same, returned, bounded;
    _Atomic uint64_t flips, calls, late, longest_ns, poisoned;
    _Atomic uint64_t stop, first_bad;
    char note[256];
} board;
static board *shared;

static uint64_t random_state, time_is_up = UINT64_MAX;
static uint32_t draw(uint32_t below) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) * below >> 32);
}
static void seed_random(uint64_t seed) {
    random_state = (seed + 1) * 0x9e3779b97f4a7c15ull;
    for (int turn = 0; turn < 8; turn++) draw(2);
}

/* -- Images: what a sound file looks like in several states -------------------------------------------------------- */

#define IMAGES 6
static uint8_t images[IMAGES][FILE_BYTES];
static uint8_t *bytes_of; /* a mapping of the file under test */
static int file;

static void must(bool good, const char *what) {
    if (good) return;
    perror(what);
    exit(2);
}

static int open_again(int fd) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

static void make_images(void) {
    for (int kind = 0; kind < IMAGES; kind++) {
        int fd = memfd_create("image", MFD_CLOEXEC);
        sq_settings settings = {.capacity_bytes = CAPACITY,
                                .mode = kind == 2   ? SQ_MODE_CHECKSUM
                                        : kind == 3 ? SQ_MODE_SINGLE_PRODUCER | SQ_MODE_SINGLE_CONSUMER
                                                    : 0,
                                .max_items = kind == 4 ? 12 : 0,
                                .start_units = kind == 5 ? (1ull << 32) - 30 : 0,
                                .start_items = kind == 5 ? (1ull << 32) - 2 : 0};
        sq_fault fault;
        sq_ring ring;
        must(fd >= 0 && sq_format(fd, &settings, &fault) == SQ_OK && sq_attach(&ring, fd) == SQ_OK, "image");
        uint8_t bytes[200], copy[200];
        sq_record record;
        for (uint32_t number = 0; number < 12 && kind != 1; number++) {
            memset(bytes, (int)number, sizeof bytes);
            must(sq_put(&ring, bytes, 10 + number * 7, (uint8_t)number) == SQ_OK, "put");
        }
        for (int turn = 0; turn < 3 && kind != 1; turn++)
            must(sq_get(&ring, copy, sizeof copy, &record) == SQ_OK, "get");
        if (kind == 4) { /* one record leased, the next taken behind it */
            must(sq_lease(&ring, false, &record) == SQ_OK, "lease");
            must(sq_get(&ring, copy, sizeof copy, &record) == SQ_OK, "get");
        } else {
            sq_detach(&ring);
        }
        must(pread(fd, images[kind], FILE_BYTES, 0) == (ssize_t)FILE_BYTES, "pread");
        if (kind == 4) sq_detach(&ring);
        sq_unmap(&ring);
        close(fd);
    }
    file = memfd_create("fuzz", MFD_CLOEXEC);
    must(file >= 0 && ftruncate(file, FILE_BYTES) == 0, "file");
    bytes_of = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    must(bytes_of != MAP_FAILED, "mmap");
}

static void restore(int kind) {
    struct stat st;
    if (fstat(file, &st) == 0 && st.st_size != FILE_BYTES) must(ftruncate(file, FILE_BYTES) == 0, "ftruncate");
    memcpy(bytes_of, images[kind], FILE_BYTES);
}
static void sign(void) {
    sq_identity *identity = (sq_identity *)bytes_of;
    identity->checksum = sq_crc32c(identity, offsetof(sq_identity, checksum));
}

/* -- A fixed course of operations, and what it saw ------------------------------------------------------------------ */

typedef struct {
    uint64_t digest, statuses; /* of all items delivered, in order; of all answers, in order */
    uint32_t items, returned; /* returned: delivered as redelivered, and not in the digest */
    bool typed; /* damage (or what a changed state word says) was named */
    bool busy;  /* a lock could not be had */
    bool wrong; /* an answer that the operation may not give */
} course;

static void digest(uint64_t *sum, const void *data, size_t length) {
    const uint8_t *at = data;
    while (length--) *sum = (*sum ^ *at++) * 0x100000001b3ull;
}
static void digest_item(course *seen, const sq_record *record, const uint8_t *bytes) {
    seen->items++;
    if (SQ_LEASE_ATTEMPT(record->lease)) {
        seen->returned++;
        return;
    }
    digest(&seen->digest, bytes, record->length);
    digest(&seen->digest, &record->tag, 1);
}

/* Statuses that name damage, refusal or a changed state; none of them can be mistaken for a success. */
static bool names_trouble(int status) {
    return status == SQ_CORRUPT || status == SQ_INCOMPATIBLE || status == SQ_NAMESPACE || status == SQ_CHECKSUM ||
           status == SQ_SHUTDOWN || status == SQ_FENCED || status == SQ_NO_SLOT || status == SQ_ROLE_TAKEN;
}
static void note(course *seen, int status, const char *what) {
    digest(&seen->statuses, &status, sizeof status);
    if (names_trouble(status)) seen->typed = true;
    else if (status == SQ_BUSY || status == SQ_AGAIN) seen->busy = true;
    else if (status != SQ_OK && status != SQ_EMPTY && status != SQ_FULL && status != SQ_TOO_SMALL &&
             status != SQ_SPILLED_RECORD) {
        seen->wrong = true;
        snprintf(shared->note, sizeof shared->note, "%s answered status %d", what, status);
    }
}

/* With `wait`, a lock that is not free is waited for (one slice). */
static course take_course(bool wait) {
    course seen = {.digest = 0xcbf29ce484222325ull};
    sq_ring ring;
    sq_record record;
    uint8_t bytes[CAPACITY];
    int fd = open_again(file), status = sq_attach(&ring, fd);
    must(fd >= 0, "open");
    note(&seen, status, "attach");
    if (status) {
        close(fd);
        return seen;
    }
    shared->attached++;
    sq_stats stats;
    sq_stats_read(&ring, &stats);
    note(&seen, sq_peek(&ring, bytes, sizeof bytes, &record, wait), "peek");
    if (wait) {
        for (int which = 0; which < 2; which++)
            for (int turn = 0; turn < 3 && (status = sq_wait_lock(&ring, which)) == SQ_AGAIN; turn++) continue;
        note(&seen, status, "lock");
    }
    uint32_t limit = CAPACITY / SQ_UNIT + 4, taken = 0;
    if (!(draw(4)) || wait) {
        status = sq_lease(&ring, wait, &record);
        note(&seen, status, "lease");
        if (status == SQ_OK) {
            digest_item(&seen, &record, record.data);
            note(&seen, draw(2) && !wait ? sq_nack(&ring, false, &record) : sq_ack(&ring, wait, &record), "ack");
        }
    }
    while (taken++ < limit && (status = sq_get(&ring, bytes, sizeof bytes, &record)) == SQ_OK)
        digest_item(&seen, &record, bytes);
    note(&seen, status, "get");
    if (taken > limit) {
        seen.wrong = true;
        snprintf(shared->note, sizeof shared->note, "more items than the region has units");
    }
    sq_part parts[2] = {{bytes, 30}, {bytes, 300}};
    size_t done = 0;
    memset(bytes, 7, 300);
    note(&seen, sq_put(&ring, bytes, 100, 1), "put");
    note(&seen, sq_put_many(&ring, parts, 2, 2, wait, &done), "put_many");
    digest(&seen.statuses, &done, sizeof done);
    for (taken = 0; taken++ < limit && (status = sq_get(&ring, bytes, sizeof bytes, &record)) == SQ_OK;)
        digest_item(&seen, &record, bytes);
    note(&seen, status, "get");
    uint32_t dropped;
    note(&seen, sq_sweep(&ring, wait), "sweep");
    note(&seen, sq_clear(&ring, wait, &dropped), "clear");
    sq_stats_read(&ring, &stats);
    for (int slot = 0; slot < 3; slot++) (void)sq_party_pid(&ring, (uint32_t)slot);
    (void)sq_depth(&ring);
    sq_detach(&ring);
    sq_unmap(&ring);
    close(fd);
    return seen;
}

/* -- images -------------------------------------------------------------------------------------------------------- */

static void damage(uint64_t number, uint64_t seed) {
    seed_random(seed * 0x100000001b3ull + number);
    int kind = (int)draw(IMAGES);
    restore(kind);
    const uint64_t edges[] = {0,          1,   ~0ull, 1ull << 31, 1ull << 32, 1ull << 63,
                              0x7fffffff, 255, 256,   257,        CAPACITY,   FILE_BYTES};
    uint32_t form = draw(10), times = 1 + draw(form == 0 ? 1 : 8);
    uint32_t live = offsetof(sq_header, histogram), from = 0, to = FILE_BYTES;
    if (form < 3) from = 128, to = live; /* control, positions, sides, leases */
    else if (form < 6) from = HEADER;    /* records */
    else if (form < 7) to = sizeof(sq_identity);
    else if (form < 8) from = offsetof(sq_header, participants), to = from + 64;
    for (uint32_t turn = 0; turn < times; turn++) {
        uint32_t at = from + draw(to - from);
        /* A lock word that names an owner costs a slice of waiting: seldom is enough. */
        uint32_t word = at & ~7u;
        bool lock = word == offsetof(sq_header, producers.lock) || word == offsetof(sq_header, consumers.lock);
        if (lock && draw(100)) continue;
        switch (draw(5)) {
        case 0: bytes_of[at] ^= (uint8_t)(1u << draw(8)); break;
        case 1: bytes_of[at] = (uint8_t)draw(256); break;
        case 2: memcpy(bytes_of + (at & ~3u), &edges[draw(12)], 4); break;
        case 3: memcpy(bytes_of + word, &edges[draw(12)], word + 8 <= FILE_BYTES ? 8 : 4); break;
        default: { /* the neighbour's value, or one that is nearly right */
            uint64_t value;
            memcpy(&value, bytes_of + (draw(2) ? word : word ^ 128), 8);
            value += (uint64_t)draw(40) - 20 + ((uint64_t)(draw(5) - 2) << 32);
            memcpy(bytes_of + word, &value, 8);
        }
        }
    }
    if (form == 8) memset(bytes_of + (draw(FILE_BYTES) & ~511u), (int)draw(2) * 255, 512);
    if (form == 6 || form == 9) sign(); /* a lie with a right checksum */
    if (form == 9 && !draw(50)) must(ftruncate(file, draw(FILE_BYTES)) == 0, "ftruncate"); /* and cut off */
}

static void run_images(uint64_t first, uint64_t count, uint64_t seed) {
    make_images();
    for (uint64_t number = first; number < count && sq_now_ns() < time_is_up; number++) {
        damage(number, seed);
        course seen = take_course(false);
        if (seen.wrong) shared->wrong++;
        if (seen.typed) shared->typed++;
        shared->done = number + 1;
        struct stat st;
        if (fstat(file, &st) == 0 && st.st_size != FILE_BYTES) { /* the pages behind the mapping are gone: start afresh */
            munmap(bytes_of, FILE_BYTES);
            close(file);
            file = memfd_create("fuzz", MFD_CLOEXEC);
            must(ftruncate(file, FILE_BYTES) == 0, "ftruncate");
            bytes_of = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
            must(bytes_of != MAP_FAILED, "mmap");
        }
    }
}

/* -- bits ---------------------------------------------------------------------------------------------------------- */

/* Of the first image the whole header, of the others what comes before the unused participants. */
#define OTHER_BITS ((offsetof(sq_header, participants) + 64) * 8)
#define ALL_BITS (HEADER * 8 + 3 * OTHER_BITS)
static void run_bits(uint64_t first) {
    make_images();
    static const int others[] = {1, 3, 4};
    for (uint64_t at = first; at < ALL_BITS; at++) {
        static course sound[IMAGES];
        uint64_t bit = at < HEADER * 8 ? at : (at - HEADER * 8) % OTHER_BITS;
        int kind = at < HEADER * 8 ? 0 : others[(at - HEADER * 8) / OTHER_BITS];
        if (!sound[kind].digest) {
            restore(kind);
            sound[kind] = take_course(true);
            must(!sound[kind].wrong && !sound[kind].busy, "the sound image");
        }
        restore(kind);
        bytes_of[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        course seen = take_course(true);
        if (seen.wrong) {
            shared->wrong++;
        } else if (seen.digest == sound[kind].digest && seen.statuses == sound[kind].statuses &&
                   seen.returned >= sound[kind].returned) {
            /* The very same answers; or in addition what a holder that cannot be known any more had leased. */
            shared->same++;
            shared->returned += seen.returned > sound[kind].returned;
        } else if (seen.typed) {
            shared->typed++;
        } else if (seen.busy) {
            shared->bounded++;
        } else {
            shared->wrong++;
            snprintf(shared->note, sizeof shared->note, "image %d, offset %llu bit %llu: other items, and no word about it",
                     kind, (unsigned long long)bit / 8, (unsigned long long)bit % 8);
            printf("    %s\n", shared->note);
        }
        shared->done = at + 1;
    }
}

/* -- hostile ------------------------------------------------------------------------------------------------------- */

static void flip_words(uint64_t seed) {
    seed_random(seed);
    memcpy(bytes_of, images[0], FILE_BYTES);
    while (!shared->stop) {
        for (int turn = 0; turn < 64; turn++) {
            uint32_t where = draw(8), at;
            if (where < 4) at = 256 + draw(1280 - 256);
            else if (where < 7) at = HEADER + draw(CAPACITY);
            else at = draw(FILE_BYTES);
            if (at < sizeof(sq_identity) && draw(20)) continue;
            _Atomic uint32_t *word = (_Atomic uint32_t *)(bytes_of + (at & ~3u));
            atomic_fetch_xor(word, draw(3) ? 1u << draw(32) : draw(UINT32_MAX));
            shared->flips++;
        }
        usleep(draw(300));
        if (!draw(6)) memcpy(bytes_of, images[draw(2) ? 0 : 4], FILE_BYTES); /* sound again, under everybody's feet */
    }
}

static void note_call(uint64_t start, uint64_t allowed_ns, int status) {
    uint64_t took = sq_now_ns() - start, longest = shared->longest_ns;
    uint64_t over = took > allowed_ns ? took - allowed_ns : 0;
    while (over > longest && !atomic_compare_exchange_weak(&shared->longest_ns, &longest, over)) continue;
    if (over > 250000000ull) shared->late++;
    if (status == SQ_CORRUPT) shared->poisoned++;
    if (status < SQ_OK || status > SQ_INVALID || status == SQ_INVALID) shared->wrong++;
    shared->calls++;
}

/* Calls everything there is with a time limit, and attaches again after damage. */
static void use_it(uint64_t seed) {
    seed_random(seed);
    const uint64_t limit = 20000000;
    uint8_t bytes[CAPACITY];
    memset(bytes, 1, sizeof bytes);
    while (!shared->stop) {
        sq_ring ring;
        sq_record record;
        int fd = open_again(file), status;
        uint64_t start = sq_now_ns();
        status = sq_attach(&ring, fd);
        note_call(start, 5200000000ull, status); /* no time limit of its own: waits 5 s for one that adopts the file */
        if (status) {
            close(fd);
            continue;
        }
        shared->attached++;
        for (int turn = 0; turn < 400 && !shared->stop; turn++) {
            size_t done;
            uint32_t dropped;
            sq_part parts[3] = {{bytes, draw(200)}, {bytes, draw(100)}, {bytes, draw(900)}};
            sq_reader reader;
            sq_stats stats;
            start = sq_now_ns();
            switch (draw(12)) {
            case 0: case 1: case 2: status = sq_put_wait(&ring, bytes, draw(600), 1, start + limit); break;
            case 3: status = sq_put_many(&ring, parts, 3, 1, true, &done); break;
            case 4: case 5: case 6: status = sq_get_wait(&ring, bytes, sizeof bytes, &record, start + limit); break;
            case 7:
                status = sq_read_begin(&ring, &reader, true);
                if (status == SQ_OK) {
                    for (int some = 0; some < 5 && (status = sq_read_next(&reader, &record)) == SQ_OK; some++)
                        sq_read_take(&reader, &record);
                    int ended = sq_read_end(&reader);
                    if (ended) status = ended;
                }
                break;
            case 8: case 9:
                status = sq_lease_wait(&ring, &record, start + limit);
                if (status == SQ_OK) {
                    volatile uint32_t sum = 0;
                    for (uint32_t at = 0; at < record.length; at += 64) sum += record.data[at];
                    status = draw(2) ? sq_ack(&ring, true, &record) : sq_nack(&ring, true, &record);
                }
                break;
            case 10: status = sq_clear(&ring, true, &dropped); break;
            default:
                status = draw(2) ? sq_peek(&ring, bytes, sizeof bytes, &record, true) : sq_sweep(&ring, true);
                sq_stats_read(&ring, &stats);
            }
            note_call(start, limit, status);
            if (status == SQ_CORRUPT || status == SQ_SHUTDOWN || status == SQ_SYSTEM) break;
        }
        sq_detach(&ring);
        sq_unmap(&ring);
        close(fd);
    }
}

/* -- The parent: watches, counts crashes and hangs, goes on --------------------------------------------------------- */

static pid_t start_child(int mode, uint64_t first, uint64_t count, uint64_t seed) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid) return pid;
    if (mode == 0) run_images(first, count, seed);
    else if (mode == 1) run_bits(first);
    else if (mode == 2) use_it(seed + first);
    else flip_words(seed + first);
    exit(0);
}

static void survive(int mode, uint64_t count, uint64_t seed) {
    uint64_t first = 0;
    while (first < count) {
        pid_t pid = start_child(mode, first, count, seed);
        int watched = (int)syscall(SYS_pidfd_open, pid, 0), how;
        struct pollfd end = {.fd = watched, .events = POLLIN};
        bool hang = false;
        for (uint64_t last = shared->done, still = 0; poll(&end, 1, 500) == 0;) {
            still = shared->done == last ? still + 1 : 0;
            last = shared->done;
            if (still > HANG_SECONDS * 2) {
                hang = true;
                kill(pid, SIGKILL);
                break;
            }
        }
        waitpid(pid, &how, 0);
        close(watched);
        if (WIFEXITED(how) && WEXITSTATUS(how) == 0) return;
        if (shared->crashes + shared->hangs == 0) shared->first_bad = shared->done;
        printf("    %s at number %llu (how %d), seed %llu\n", hang ? "hang" : "crash",
               (unsigned long long)shared->done, how, (unsigned long long)seed);
        if (hang) shared->hangs++;
        else shared->crashes++;
        first = ++shared->done;
        if (shared->crashes + shared->hangs > 20) return;
    }
}

static void be_hostile(double seconds, uint64_t seed) {
    make_images();
    restore(0);
    pid_t pids[4];
    for (int at = 0; at < 4; at++) pids[at] = start_child(at ? 2 : 3, (uint64_t)at * 1000, 0, seed);
    uint64_t until = sq_now_ns() + (uint64_t)(seconds * 1e9), round = 4;
    while (sq_now_ns() < until) {
        int how;
        usleep(20000);
        pid_t ended = waitpid(-1, &how, WNOHANG);
        for (int at = 0; at < 4 && ended > 0; at++) {
            if (pids[at] != ended) continue;
            printf("    %s died: how %d\n", at ? "a user" : "the flipper", how);
            shared->crashes++;
            pids[at] = start_child(at ? 2 : 3, ++round * 1000, 0, seed);
        }
    }
    shared->stop = 1;
    uint64_t patience = sq_now_ns() + 8000000000ull;
    for (int at = 0; at < 4; at++) {
        int how;
        while (waitpid(pids[at], &how, WNOHANG) == 0) {
            usleep(1000);
            if (sq_now_ns() < patience) continue;
            shared->hangs++;
            kill(pids[at], SIGKILL);
            patience += 100000000;
        }
    }
}

int main(int argc, char **argv) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t start = sq_now_ns();
    if (argc == 5) time_is_up = start + (uint64_t)(atof(argv[4]) * 1e9);
    if (argc == 5 && strcmp(argv[1], "images") == 0) survive(0, strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    else if (argc == 2 && strcmp(argv[1], "bits") == 0) survive(1, ALL_BITS, 0);
    else if (argc == 4 && strcmp(argv[1], "hostile") == 0) be_hostile(atof(argv[2]), strtoull(argv[3], NULL, 10));
    else return 2;
    if (shared->note[0]) printf("    %s\n", shared->note);
    printf("{\"done\": %llu, \"attached\": %llu, \"crashes\": %llu, \"hangs\": %llu, \"wrong\": %llu, \"typed\": %llu, "
           "\"same\": %llu, \"returned\": %llu, \"bounded\": %llu, \"flips\": %llu, \"calls\": %llu, \"late\": %llu, "
           "\"latest_ms\": %.1f, "
           "\"corrupt\": %llu, \"seconds\": %.1f}\n",
           (unsigned long long)shared->done, (unsigned long long)shared->attached, (unsigned long long)shared->crashes,
           (unsigned long long)shared->hangs, (unsigned long long)shared->wrong, (unsigned long long)shared->typed,
           (unsigned long long)shared->same, (unsigned long long)shared->returned,
           (unsigned long long)shared->bounded, (unsigned long long)shared->flips,
           (unsigned long long)shared->calls, (unsigned long long)shared->late, shared->longest_ns / 1e6,
           (unsigned long long)shared->poisoned, (sq_now_ns() - start) / 1e9);
    return 0;
}
