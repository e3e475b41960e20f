/* Traffic at full speed, with an oracle: every item is delivered whole, once, and in the order of its producer.
 *
 *   stress MODE PRODUCERS CONSUMERS SECONDS SEED [CAPACITY]
 *
 * MODE is `threads` (one handle each; what the thread sanitizer can see), `shared` (all threads on one handle) or
 * `processes`. Producers put singly and in batches, consumers get, get many, peek and lease; leases are acknowledged or
 * returned. Ends with a JSON line; exits 1 when the oracle found something.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ring.h"

#include <sys/wait.h>

#define PARTIES 16
#define ITEMS (1u << 22) /* at most, of one producer */

typedef struct {
    uint32_t producer, number, length, check;
} item_head;

/* In memory that all processes share. */
typedef struct {
    _Atomic uint32_t stop_putting, producing;
    _Atomic uint32_t put[PARTIES];
    _Atomic uint64_t operations, torn, doubled, disorder, bad_status;
    _Atomic int first_bad_status;
    _Atomic uint8_t seen[PARTIES][ITEMS / 8];
} board;

static board *shared;
static uint64_t seed;

typedef struct {
    sq_ring *ring;
    uint32_t index;
    uint64_t random;
    uint32_t last[PARTIES]; /* consumers: next number that may come from each producer */
    bool consumes;
} party;

static uint32_t draw(party *own, uint32_t below) {
    own->random ^= own->random << 13;
    own->random ^= own->random >> 7;
    own->random ^= own->random << 17;
    return (uint32_t)(own->random >> 33) % below;
}

static uint32_t check_of(const uint8_t *bytes, uint32_t length) {
    uint32_t sum = length * 2654435761u;
    for (uint32_t at = sizeof(item_head); at < length; at++) sum = sum * 31 + bytes[at];
    return sum;
}
static void make_item(party *own, uint8_t *bytes, uint32_t length, uint32_t number) {
    item_head head = {own->index, number, length, 0};
    for (uint32_t at = sizeof head; at < length; at++) bytes[at] = (uint8_t)(number * 7 + at * 13 + own->index);
    head.check = check_of(bytes, length);
    memcpy(bytes, &head, sizeof head);
}

static void bad_status(int status) {
    int none = 0;
    atomic_compare_exchange_strong(&shared->first_bad_status, &none, status);
    shared->bad_status++;
    shared->stop_putting = 1;
}

/* `again`: the item may come later than younger ones of its producer, because somebody gave it back. */
static void check_item(party *own, const uint8_t *bytes, uint32_t length, bool again) {
    item_head head;
    if (length < sizeof head) {
        shared->torn++;
        return;
    }
    memcpy(&head, bytes, sizeof head);
    if (head.length != length || head.producer >= PARTIES || head.number >= ITEMS ||
        head.check != check_of(bytes, length)) {
        shared->torn++;
        return;
    }
    uint8_t bit = (uint8_t)(1u << (head.number & 7));
    if (atomic_fetch_or(&shared->seen[head.producer][head.number / 8], bit) & bit) shared->doubled++;
    if (again) return;
    if (head.number < own->last[head.producer]) shared->disorder++;
    own->last[head.producer] = head.number + 1;
}

static void produce(party *own) {
    uint8_t bytes[8][1024];
    uint32_t number = 0;
    while (!shared->stop_putting && number < ITEMS - 8) {
        uint32_t batch = draw(own, 4) ? 1 : 1 + draw(own, 8);
        sq_part items[8];
        for (uint32_t at = 0; at < batch; at++) {
            uint32_t length = (uint32_t)sizeof(item_head) + draw(own, draw(own, 8) ? 120 : 900);
            make_item(own, bytes[at], length, number + at);
            items[at] = (sq_part){bytes[at], length};
        }
        uint32_t done = 0;
        while (done < batch && !shared->stop_putting) {
            size_t some = 0;
            int status;
            if (batch - done == 1) {
                status = sq_put_wait(own->ring, items[done].data, items[done].length, 1, sq_now_ns() + 20000000);
                some = status == SQ_OK;
            } else {
                status = sq_put_many(own->ring, items + done, batch - done, 1, true, &some);
                if (status == SQ_FULL) status = sq_wait_turn(own->ring, SQ_PRODUCERS, 64, sq_now_ns() + 20000000);
            }
            if (status != SQ_OK && status != SQ_FULL && status != SQ_AGAIN) {
                bad_status(status);
                break;
            }
            done += (uint32_t)some;
        }
        number += done;
        shared->operations += done;
        if (done < batch) break;
    }
    shared->put[own->index] = number;
    shared->producing--;
}

static bool take_some(party *own) {
    uint8_t bytes[2048];
    sq_record record;
    sq_reader reader;
    int status;
    uint32_t kind = draw(own, 16);
    uint64_t deadline = sq_now_ns() + 20000000;
    if (kind < 9) {
        status = sq_get_wait(own->ring, bytes, sizeof bytes, &record, deadline);
        if (status == SQ_OK) {
            check_item(own, bytes, record.length, SQ_LEASE_ATTEMPT(record.lease) > 0);
            shared->operations++;
        }
    } else if (kind < 12) {
        static _Thread_local uint8_t copies[8][2048];
        uint32_t lengths[8], count = 0;
        bool again[8];
        status = sq_read_begin(own->ring, &reader, true);
        if (status == SQ_OK) {
            while (count < 8 && (status = sq_read_next(&reader, &record)) == SQ_OK) {
                memcpy(copies[count], record.data, record.length);
                lengths[count] = record.length;
                again[count++] = SQ_LEASE_ATTEMPT(record.lease) > 0;
                sq_read_take(&reader, &record);
            }
            int ended = sq_read_end(&reader);
            if (ended) status = ended;
            for (uint32_t at = 0; at < count; at++) check_item(own, copies[at], lengths[at], again[at]);
            shared->operations += count;
        }
    } else if (kind < 13) {
        status = sq_peek(own->ring, bytes, sizeof bytes, &record, true);
        if (status == SQ_OK && (record.length < sizeof(item_head) || record.length > 1024)) shared->torn++;
    } else {
        status = sq_lease_wait(own->ring, &record, deadline);
        if (status == SQ_OK) {
            bool back = draw(own, 4) == 0 && SQ_LEASE_ATTEMPT(record.lease) < 5;
            if (!back) check_item(own, record.data, record.length, SQ_LEASE_ATTEMPT(record.lease) > 0);
            do status = back ? sq_nack(own->ring, true, &record) : sq_ack(own->ring, true, &record);
            while (status == SQ_AGAIN);
            shared->operations++;
        }
    }
    if (status != SQ_OK && status != SQ_EMPTY && status != SQ_AGAIN && status != SQ_BUSY) bad_status(status);
    return status == SQ_OK;
}

static void consume(party *own) {
    for (;;) {
        bool last = shared->producing == 0;
        if (take_some(own) || !last || shared->bad_status) {
            if (shared->bad_status) return;
            continue;
        }
        sq_header *header = own->ring->header;
        if (sq_depth(own->ring) == 0 && sq_load64(&header->head) == sq_load64(&header->tail)) return;
    }
}

static void *run_party(void *given) {
    party *own = given;
    own->random = (seed + 1) * 0x9e3779b97f4a7c15ull + own->index * 77 + own->consumes;
    for (int turn = 0; turn < 10; turn++) draw(own, 2);
    if (own->consumes) consume(own);
    else produce(own);
    return NULL;
}

static sq_ring *attach_again(int fd) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    sq_ring *ring = calloc(1, sizeof *ring);
    int status = sq_attach(ring, open(path, O_RDWR | O_CLOEXEC));
    if (status) {
        printf("attach: status %d, %s\n", status, ring->fault.field ? ring->fault.field : "");
        exit(2);
    }
    return ring;
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fprintf(stderr, "stress threads|shared|processes PRODUCERS CONSUMERS SECONDS SEED [CAPACITY]\n");
        return 2;
    }
    uint32_t producers = (uint32_t)atoi(argv[2]), consumers = (uint32_t)atoi(argv[3]);
    bool processes = strcmp(argv[1], "processes") == 0, one_handle = strcmp(argv[1], "shared") == 0;
    double seconds = atof(argv[4]);
    seed = strtoull(argv[5], NULL, 10);
    if (producers + consumers > PARTIES || !producers || !consumers) return 2;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = memfd_create("stress", MFD_CLOEXEC);
    sq_fault fault;
    sq_settings settings = {.capacity_bytes = argc > 6 ? strtoull(argv[6], NULL, 10) : 8192,
                            .start_items = (1ull << 32) - 1000,
                            .start_units = (1ull << 32) - 5000,
                            .mode = SQ_MODE_CHECKSUM};
    if (shared == MAP_FAILED || sq_format(fd, &settings, &fault)) return 2;
    sq_ring *mine = attach_again(fd);
    static party parties[PARTIES];
    pthread_t threads[PARTIES];
    pid_t pids[PARTIES];
    shared->producing = producers;
    for (uint32_t at = 0; at < producers + consumers; at++) {
        parties[at] = (party){.index = at < producers ? at : at - producers, .consumes = at >= producers};
        if (!processes) {
            parties[at].ring = one_handle ? mine : attach_again(fd);
            if (pthread_create(&threads[at], NULL, run_party, &parties[at])) return 2;
        } else if (!(pids[at] = fork())) {
            parties[at].ring = attach_again(fd);
            run_party(&parties[at]);
            sq_detach(parties[at].ring);
            sq_unmap(parties[at].ring);
            exit(0); /* not _exit: the leak checker and others report at exit */
        }
    }
    usleep((useconds_t)(seconds * 1e6));
    shared->stop_putting = 1;
    int ended_badly = 0;
    for (uint32_t at = 0; at < producers + consumers; at++) {
        int how = 0;
        if (!processes) pthread_join(threads[at], NULL);
        else if (waitpid(pids[at], &how, 0) != pids[at] || how) ended_badly++;
    }
    uint64_t put = 0, lost = 0;
    for (uint32_t at = 0; at < producers; at++) {
        put += shared->put[at];
        for (uint32_t number = 0; number < shared->put[at]; number++)
            lost += !(shared->seen[at][number / 8] & 1u << (number & 7));
    }
    sq_stats stats;
    sq_stats_read(mine, &stats);
    bool wrong_figures = stats.puts != put || stats.gets != put || stats.leased || sq_depth(mine);
    bool bad = lost || shared->torn || shared->doubled || shared->disorder || shared->bad_status || ended_badly ||
               wrong_figures;
    printf("{\"items\": %llu, \"operations\": %llu, \"lost\": %llu, \"doubled\": %llu, \"torn\": %llu, \"disorder\": %llu, "
           "\"bad_status\": %d, \"ended_badly\": %d, \"wrong_figures\": %d}\n",
           (unsigned long long)put, (unsigned long long)shared->operations, (unsigned long long)lost,
           (unsigned long long)shared->doubled, (unsigned long long)shared->torn, (unsigned long long)shared->disorder,
           shared->first_bad_status, ended_badly, wrong_figures);
    return bad;
}
