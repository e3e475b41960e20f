/* Tests of leases, participants and single roles. */
#ifndef SAGE_PROOF_CORE_LEASE_H
#define SAGE_PROOF_CORE_LEASE_H

#include "core.h"

static uint32_t leased_count(sq_ring *ring) {
    sq_stats stats;
    sq_stats_read(ring, &stats);
    return (uint32_t)stats.leased;
}
static uint32_t slots_in_use(sq_ring *ring) {
    uint32_t used = 0;
    for (uint32_t slot = 0; slot < SQ_PARTICIPANTS; slot++) used += sq_party_pid(ring, slot) != 0;
    return used;
}

static void a_leased_item_leaves_with_its_acknowledgement(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd), *other = join_ring(fd);
    sq_record record;
    for (uint32_t number = 0; number < 200; number++) {
        CHECK_IS(put_item(ring, number, 60), SQ_OK);
        CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
        CHECK(whole_item(record.data, record.length) && item_number(record.data) == number);
        CHECK_IS(SQ_LEASE_ATTEMPT(record.lease), 0);
        CHECK_IS(leased_count(other), 1);
        CHECK_IS(get_item(other), -SQ_EMPTY);
        CHECK_IS(sq_ack(ring, false, &record), SQ_OK);
        CHECK_IS(leased_count(other), 0);
        CHECK_IS(sq_depth(other), 0);
        CHECK_IS(sq_load32(&ring->header->leases.disordered), 0);
    }
}

static void a_leased_item_keeps_its_room(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    sq_record record;
    uint32_t count = 0;
    CHECK_IS(put_item(ring, count++, 200), SQ_OK);
    CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
    while (put_item(ring, count, 200) == SQ_OK) count++;
    for (uint32_t number = 1; number < count; number++) CHECK_IS(get_item(ring), number);
    CHECK_IS(put_item(ring, count, 200), SQ_FULL); /* nothing was freed: the first one is still held */
    CHECK(whole_item(record.data, record.length));
    CHECK_IS(sq_ack(ring, false, &record), SQ_OK);
    CHECK_IS(put_item(ring, count, 200), SQ_OK);
    CHECK_IS(get_item(ring), count);
}

static void items_are_acknowledged_in_any_order(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    uint32_t next = 0;
    for (uint32_t order = 0; order < 24; order++) {
        sq_record records[4];
        uint32_t left[4] = {0, 1, 2, 3}, shape = order;
        for (uint32_t at = 0; at < 4; at++) CHECK_IS(put_item(ring, next + at, 30), SQ_OK);
        for (uint32_t at = 0; at < 4; at++) {
            CHECK_IS(sq_lease(ring, false, &records[at]), SQ_OK);
            CHECK_IS(item_number(records[at].data), next + at);
        }
        for (uint32_t size = 4; size; size--) {
            uint32_t pick = shape % size;
            shape /= size;
            CHECK_IS(sq_ack(ring, false, &records[left[pick]]), SQ_OK);
            left[pick] = left[size - 1];
            CHECK_IS(leased_count(ring), size - 1);
        }
        CHECK_IS(sq_load32(&ring->header->leases.disordered), 0);
        CHECK_IS(sq_units(ring->header->head), sq_units(ring->header->tail));
        next += 4;
    }
}

static void a_returned_item_comes_first_and_counts_the_attempt(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd), *other = join_ring(fd);
    sq_record first, second;
    for (uint32_t number = 0; number < 4; number++) CHECK_IS(put_item(ring, number, 30), SQ_OK);
    for (uint32_t attempt = 0; attempt < 300; attempt++) {
        CHECK_IS(sq_lease(attempt % 2 ? ring : other, false, &first), SQ_OK);
        CHECK_IS(item_number(first.data), 0);
        CHECK_IS(SQ_LEASE_ATTEMPT(first.lease), attempt < 255 ? attempt : 255);
        CHECK_IS(sq_nack(attempt % 2 ? ring : other, false, &first), SQ_OK);
        CHECK_IS(leased_count(ring), 0);
    }
    CHECK_IS(sq_lease(ring, false, &first), SQ_OK);
    CHECK_IS(sq_lease(other, false, &second), SQ_OK);
    CHECK_IS(item_number(second.data), 1);
    CHECK_IS(sq_nack(ring, false, &first), SQ_OK);
    CHECK_IS(get_item(ring), 0);
    CHECK_IS(sq_nack(other, false, &second), SQ_OK);
    CHECK_IS(get_item(ring), 1);
    CHECK_IS(get_item(ring), 2);
    CHECK_IS(get_item(ring), 3);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
}

static void many_are_leased_and_settled_in_one_turn(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd), *other = join_ring(fd);
    sq_record records[8], held;
    uint32_t count, fenced, next = 0;
    for (uint32_t acked = 0; acked <= 5; acked++) {
        for (uint32_t at = 0; at < 6; at++) CHECK_IS(put_item(ring, next + at, 30), SQ_OK);
        CHECK_IS(sq_lease(other, false, &held), SQ_OK);
        CHECK_IS(sq_lease_many(ring, records, 8, SQ_FOREVER, &count), SQ_OK);
        CHECK_IS(count, 5);
        for (uint32_t at = 0; at < count; at++) CHECK_IS(item_number(records[at].data), next + 1 + at);
        CHECK_IS(leased_count(ring), 6);
        CHECK_IS(sq_settle_many(other, false, records, count, count, &fenced), SQ_OK); /* not the other's */
        CHECK_IS(fenced, 5);
        CHECK_IS(leased_count(ring), 6);
        CHECK_IS(sq_settle_many(ring, false, records, count, acked, &fenced), SQ_OK);
        CHECK_IS(fenced, 0);
        CHECK_IS(sq_settle_many(ring, false, records, count, acked, &fenced), SQ_OK);
        CHECK_IS(fenced, 5);
        CHECK_IS(leased_count(ring), 1);
        CHECK_IS(sq_nack(other, false, &held), SQ_OK);
        CHECK_IS(get_item(ring), next);
        for (uint32_t at = acked; at < 5; at++) CHECK_IS(get_item(ring), next + 1 + at);
        CHECK_IS(get_item(ring), -SQ_EMPTY);
        CHECK_IS(sq_load32(&ring->header->leases.disordered), 0);
        CHECK_IS(sq_units(ring->header->head), sq_units(ring->header->tail));
        next += 6;
    }
}

static void many_of_limited_bytes_are_leased(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    sq_record records[8];
    uint32_t count, fenced;
    for (uint32_t number = 0; number < 6; number++) CHECK_IS(put_item(ring, number, 30), SQ_OK);
    CHECK_IS(sq_lease_many(ring, records, 8, 29, &count), SQ_OK);
    CHECK_IS(count, 0);
    CHECK_IS(sq_lease_many(ring, records, 8, 119, &count), SQ_OK);
    CHECK_IS(count, 3);
    CHECK_IS(sq_lease_many(ring, &records[3], 2, SQ_FOREVER, &count), SQ_OK);
    CHECK_IS(count, 2);
    CHECK_IS(sq_settle_many(ring, false, records, 5, 5, &fenced), SQ_OK);
    CHECK_IS(get_item(ring), 5);
    CHECK_IS(sq_lease_many(ring, records, 8, SQ_FOREVER, &count), SQ_EMPTY);
    CHECK_IS(count, 0);
}

static void the_head_does_not_pass_a_leased_item(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd), *other = join_ring(fd);
    sq_record record;
    for (uint32_t number = 0; number < 6; number++) CHECK_IS(put_item(ring, number, 30), SQ_OK);
    CHECK_IS(get_item(ring), 0);
    uint64_t head = ring->header->head;
    CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
    for (uint32_t number = 2; number < 6; number++) {
        CHECK_IS(get_item(other), number);
        CHECK(ring->header->head == head);
    }
    CHECK_IS(sq_nack(ring, false, &record), SQ_OK);
    CHECK(ring->header->head == head);
    CHECK_IS(get_item(other), 1);
}

static void an_answer_to_a_lease_that_is_over_is_fenced(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd), *other = join_ring(fd);
    sq_record first, again, second;
    CHECK_IS(put_item(ring, 0, 30), SQ_OK);
    CHECK_IS(put_item(ring, 1, 30), SQ_OK);
    CHECK_IS(sq_lease(ring, false, &first), SQ_OK);
    CHECK_IS(sq_ack(other, false, &first), SQ_FENCED); /* not the other's */
    CHECK_IS(sq_nack(other, false, &first), SQ_FENCED);
    CHECK_IS(sq_nack(ring, false, &first), SQ_OK);
    CHECK_IS(sq_nack(ring, false, &first), SQ_FENCED);
    CHECK_IS(sq_ack(ring, false, &first), SQ_FENCED);
    CHECK_IS(sq_lease(ring, false, &again), SQ_OK);
    CHECK_IS(item_number(again.data), 0);
    CHECK_IS(sq_ack(ring, false, &first), SQ_FENCED); /* same item, same holder, an earlier attempt */
    CHECK_IS(sq_lease(ring, false, &second), SQ_OK);
    CHECK_IS(sq_ack(ring, false, &again), SQ_OK);
    CHECK_IS(sq_ack(ring, false, &again), SQ_FENCED);
    CHECK_IS(sq_ack(ring, false, &second), SQ_OK);
    CHECK_IS(leased_count(ring), 0);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
}

static void take_two_leases(int fd) {
    sq_ring *ring = join_ring(fd);
    sq_record record;
    CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
    CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
}
static void take_two_leases_and_die(int fd) {
    take_two_leases(fd);
    die();
}

/* Both leases of whoever is gone are there again, first, and as a second attempt. */
static void expect_two_returned(sq_ring *ring) {
    sq_record record;
    CHECK_IS(leased_count(ring), 2);
    CHECK_IS(sq_sweep(ring, true), SQ_OK);
    CHECK_IS(leased_count(ring), 0);
    for (uint32_t number = 0; number < 2; number++) {
        CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
        CHECK_IS(item_number(record.data), number);
        CHECK_IS(SQ_LEASE_ATTEMPT(record.lease), 1);
        CHECK_IS(sq_ack(ring, false, &record), SQ_OK);
    }
    CHECK_IS(get_item(ring), 2);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
    CHECK_IS(sq_load32(&ring->header->leases.disordered), 0);
}
static sq_ring *ring_with_three_items(int fd) {
    sq_ring *ring = join_ring(fd);
    for (uint32_t number = 0; number < 3; number++) CHECK_IS(put_item(ring, number, 30), SQ_OK);
    return ring;
}

static void leases_of_a_killed_process_come_back(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = ring_with_three_items(fd);
    CHECK(child_is_killed(take_two_leases_and_die, fd));
    expect_two_returned(ring);
    CHECK_IS(slots_in_use(ring), 1); /* ours */
}

static void a_blocked_getter_finds_the_leases_of_a_killed_process(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    uint8_t bytes[100];
    sq_record record;
    CHECK_IS(put_item(ring, 0, 30), SQ_OK);
    CHECK_IS(put_item(ring, 1, 30), SQ_OK);
    CHECK(child_is_killed(take_two_leases_and_die, fd));
    for (uint32_t number = 0; number < 2; number++) {
        int status;
        while ((status = sq_get_wait(ring, bytes, sizeof bytes, &record, SQ_FOREVER)) == SQ_AGAIN) continue;
        CHECK_IS(status, SQ_OK);
        CHECK_IS(item_number(bytes), number);
    }
}

static void a_process_that_nobody_reaped_is_gone(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = ring_with_three_items(fd);
    pid_t pid = fork();
    if (!pid) take_two_leases_and_die(fd);
    siginfo_t info;
    CHECK_IS(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0); /* it has ended, and stays a zombie */
    CHECK_IS(kill(pid, 0), 0);
    expect_two_returned(ring);
    CHECK_IS(waitpid(pid, NULL, 0), pid);
}

static void a_stopped_process_keeps_its_leases(void) {
    int fd = MAKE_RING(0), how;
    sq_ring *ring = ring_with_three_items(fd);
    keeper holder = keep_child(take_two_leases, fd);
    kill(holder.pid, SIGSTOP);
    CHECK_IS(waitpid(holder.pid, &how, WUNTRACED), holder.pid);
    for (int turn = 0; turn < 20; turn++) CHECK_IS(sq_sweep(ring, true), SQ_OK);
    CHECK_IS(leased_count(ring), 2);
    kill(holder.pid, SIGCONT);
    end_child(&holder); /* it returned without detaching: gone now */
    expect_two_returned(ring);
}

static void *outlive_the_first_thread(void *given) {
    int go = *(int *)given;
    char byte;
    if (read(go, &byte, 1) < 0) _exit(3);
    _exit(0);
}
static void a_process_whose_first_thread_ended_is_alive(void) {
    int fd = MAKE_RING(0), up[2], down[2];
    sq_ring *ring = ring_with_three_items(fd);
    CHECK(pipe2(up, O_CLOEXEC) == 0 && pipe2(down, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (!pid) {
        pthread_t thread;
        close(down[1]);
        take_two_leases(fd);
        CHECK_IS(pthread_create(&thread, NULL, outlive_the_first_thread, &down[0]), 0);
        CHECK_IS(write(up[1], "x", 1), 1);
        syscall(SYS_exit, 0); /* this thread alone */
    }
    char byte, state = 0;
    uint64_t start;
    CHECK_IS(read(up[0], &byte, 1), 1);
    while (!(sq_process_stat((uint32_t)pid, &state, &start) && state == 'Z')) usleep(200);
    CHECK_IS(sq_sweep(ring, true), SQ_OK);
    CHECK_IS(leased_count(ring), 2);
    close(down[0]);
    close(down[1]);
    CHECK_IS(waitpid(pid, NULL, 0), pid);
    expect_two_returned(ring);
}

/* It stops itself. To become a third program would be an exec in the middle of the look, and that sees no map at all. */
static void a_process_that_became_another_program_is_gone(void) {
    int fd = MAKE_RING(0), up[2];
    sq_ring *ring = ring_with_three_items(fd);
    CHECK_IS(pipe(up), 0);
    pid_t pid = fork();
    if (!pid) {
        take_two_leases(fd);
        dup2(up[1], STDOUT_FILENO);
        execl("/bin/sh", "sh", "-c", "echo x; kill -STOP $$", (char *)NULL);
        _exit(4);
    }
    char byte;
    CHECK_IS(read(up[0], &byte, 1), 1);
    CHECK_IS(kill(pid, 0), 0);
    expect_two_returned(ring);
    kill(pid, SIGKILL);
    CHECK_IS(waitpid(pid, NULL, 0), pid);
}

static void a_reused_process_id_is_told_by_its_start_time(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = ring_with_three_items(fd);
    keeper holder = keep_child(take_two_leases, fd);
    CHECK_IS(sq_sweep(ring, true), SQ_OK);
    CHECK_IS(leased_count(ring), 2);
    sq_participant *party = &ring->header->participants[0];
    CHECK_IS(party->pid, holder.pid);
    sq_store64(&party->start_ticks, sq_load64(&party->start_ticks) - 1); /* as if an earlier process had had this id */
    expect_two_returned(ring);
    end_child(&holder);
}

static void detaching_gives_leases_and_slot_back(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = ring_with_three_items(fd), *other = join_ring(fd);
    sq_record record;
    for (int turn = 0; turn < 1200; turn++) { /* more often than there are slots */
        sq_ring *guest = other;
        CHECK_IS(sq_lease(guest, false, &record), SQ_OK);
        CHECK_IS(item_number(record.data), 0);
        sq_detach(guest);
        CHECK_IS(leased_count(ring), 0);
        CHECK_IS(slots_in_use(ring), 0);
    }
    for (uint32_t number = 0; number < 3; number++) CHECK_IS(get_item(ring), number);
}

static void detach_inherited_handle(int fd);
static sq_ring *inherited;
static void detach_inherited_handle(int fd) { sq_detach(inherited); }
static void use_inherited_handle(int fd) {
    sq_record record;
    CHECK_IS(sq_lease(inherited, false, &record), SQ_OK);
    CHECK_IS(item_number(record.data), 2);
    CHECK(inherited->slot != 1);
    CHECK_IS(sq_nack(inherited, false, &record), SQ_OK);
    sq_detach(inherited);
}
static void a_forked_child_is_a_party_of_its_own(void) {
    int fd = MAKE_RING(0);
    sq_record records[2];
    inherited = ring_with_three_items(fd);
    CHECK_IS(sq_lease(inherited, false, &records[0]), SQ_OK);
    CHECK_IS(sq_lease(inherited, false, &records[1]), SQ_OK);
    CHECK(!child_is_killed(detach_inherited_handle, fd));
    CHECK_IS(leased_count(inherited), 2);
    CHECK(!child_is_killed(use_inherited_handle, fd));
    CHECK_IS(leased_count(inherited), 2);
    CHECK_IS(sq_ack(inherited, false, &records[1]), SQ_OK);
    CHECK_IS(sq_ack(inherited, false, &records[0]), SQ_OK);
    CHECK_IS(get_item(inherited), 2);
}

/* While a sweeper waits for the lock, another one frees the slot it found, and a new party moves in. */
static sq_ring *swept;
static void another_party_moves_in(void) {
    sq_participant *party = &swept->header->participants[0];
    char state;
    uint64_t start;
    CHECK(sq_process_stat((uint32_t)getpid(), &state, &start));
    party->start_ticks = start;
    party->epoch++;
    party->pid = (uint32_t)getpid();
}
static void a_sweep_spares_a_slot_that_changed_hands_meanwhile(void) {
    int fd = MAKE_RING(0);
    swept = ring_with_three_items(fd);
    CHECK(child_is_killed(take_two_leases_and_die, fd));
    settle_locks(swept);
    arm(SQ_POINT_lock_taken, 1, another_party_moves_in);
    CHECK_IS(sq_sweep(swept, true), SQ_OK);
    CHECK(!disarm());
    CHECK_IS(leased_count(swept), 2);
    CHECK_IS(slots_in_use(swept), 1);
}

static void a_party_too_many_is_told_so(void) {
    int fd = MAKE_RING(.capacity_bytes = 1 << 16);
    static sq_ring *rings[SQ_PARTICIPANTS + 1];
    sq_record record;
    for (uint32_t at = 0; at <= SQ_PARTICIPANTS; at++) {
        rings[at] = join_ring(fd);
        CHECK_IS(put_item(rings[at], at, 30), SQ_OK);
    }
    for (uint32_t at = 0; at < SQ_PARTICIPANTS; at++) CHECK_IS(sq_lease(rings[at], false, &record), SQ_OK);
    CHECK_IS(sq_lease(rings[SQ_PARTICIPANTS], true, &record), SQ_NO_SLOT);
    sq_detach(rings[5]);
    CHECK_IS(sq_lease(rings[SQ_PARTICIPANTS], true, &record), SQ_OK);
    CHECK_IS(item_number(record.data), 5);
}

/* -- Single roles -------------------------------------------------------------------------------------------------- */

#define SPSC (SQ_MODE_SINGLE_PRODUCER | SQ_MODE_SINGLE_CONSUMER)

static void a_single_role_has_one_holder(void) {
    int fd = MAKE_RING(.mode = SPSC);
    sq_ring *ring = join_ring(fd), *other = join_ring(fd);
    for (uint32_t number = 0; number < 10; number++) CHECK_IS(put_item(ring, number, 30), SQ_OK);
    CHECK_IS(put_item(other, 1, 30), SQ_ROLE_TAKEN);
    CHECK_IS(other->fault.value, getpid());
    CHECK_IS(get_item(other), 0);
    CHECK_IS(get_item(ring), -SQ_ROLE_TAKEN);
    sq_detach(other);
    CHECK_IS(get_item(ring), 1);
    CHECK_IS(get_item(other), -SQ_ROLE_TAKEN);
    sq_detach(ring);
    CHECK_IS(put_item(other, 10, 30), SQ_OK);
    for (uint32_t number = 2; number < 11; number++) CHECK_IS(get_item(other), number);
}

static void take_both_roles_and_die(int fd) {
    sq_ring *ring = join_ring(fd);
    CHECK_IS(put_item(ring, 1, 30), SQ_OK);
    CHECK_IS(get_item(ring), 0);
    die();
}
static void the_role_of_a_killed_process_can_be_claimed(void) {
    int fd = MAKE_RING(.mode = SPSC);
    sq_ring *ring = join_ring(fd);
    CHECK_IS(put_item(ring, 0, 30), SQ_OK);
    sq_detach(ring);
    CHECK(child_is_killed(take_both_roles_and_die, fd));
    CHECK_IS(get_item(ring), 1);
    CHECK_IS(put_item(ring, 2, 30), SQ_OK);
    CHECK_IS(get_item(ring), 2);
}

static void slots_of_single_roles_are_used_again(void) {
    int fd = MAKE_RING(.mode = SPSC);
    sq_ring *taker = join_ring(fd), *giver = join_ring(fd);
    for (uint32_t turn = 0; turn < 1200; turn++) { /* more holders, one after the other, than there are slots */
        CHECK_IS(put_item(giver, turn, 30), SQ_OK);
        sq_detach(giver);
        CHECK_IS(get_item(taker), turn);
        if (turn % 3 == 0) sq_detach(taker);
    }
    CHECK(slots_in_use(taker) <= 2);
}

static void put_one_and_die(int fd) {
    sq_ring *ring = join_ring(fd);
    int status;
    while ((status = put_item(ring, 7, 30)) == SQ_AGAIN) continue;
    CHECK_IS(status, SQ_OK);
    die();
}
static void slots_of_killed_single_producers_are_used_again(void) {
    int fd = MAKE_RING(.mode = SPSC);
    sq_ring *taker = join_ring(fd);
    for (uint32_t turn = 0; turn < SQ_PARTICIPANTS + 20; turn++) {
        CHECK(child_is_killed(put_one_and_die, fd));
        CHECK_IS(get_item(taker), 7);
    }
}

static void leases_of_a_killed_single_consumer_come_back(void) {
    int fd = MAKE_RING(.mode = SQ_MODE_SINGLE_CONSUMER);
    sq_ring *ring = ring_with_three_items(fd);
    sq_record record;
    CHECK(child_is_killed(take_two_leases_and_die, fd));
    for (uint32_t number = 0; number < 2; number++) {
        int status;
        while ((status = sq_lease_wait(ring, &record, SQ_FOREVER)) == SQ_AGAIN) continue;
        CHECK_IS(status, SQ_OK);
        if (item_number(record.data) == 2) { /* it came before the sweep; then the two follow */
            CHECK_IS(sq_nack(ring, false, &record), SQ_OK);
            usleep(11000);
            CHECK_IS(sq_sweep(ring, true), SQ_OK);
            number--;
            continue;
        }
        CHECK_IS(item_number(record.data), number);
        CHECK_IS(SQ_LEASE_ATTEMPT(record.lease), 1);
        CHECK_IS(sq_ack(ring, false, &record), SQ_OK);
    }
    CHECK_IS(get_item(ring), 2);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
}

#endif
