/* Fault points: the places between two shared stores where a process may be killed, stopped or delayed on purpose.
 *
 * In a normal build a point costs nothing. With -DSQ_FAULT_POINTS the program supplies `void sq_point(int id)`, which
 * decides from outside what happens there; ids and names are in this list, so a report can show that each was reached.
 */
#ifndef SAGE_RING_POINTS_H
#define SAGE_RING_POINTS_H

#define SQ_POINTS(X)                                                                                                   \
    X(lock_taken) X(lock_inherited) X(lock_wait) X(lock_freed)                                                         \
    X(put_copied) X(put_published) X(put_unlocked)                                                                     \
    X(take_found) X(take_copied) X(take_marked) X(take_released) X(take_unlocked)                                      \
    X(lease_frontier) X(lease_disordered) X(lease_marked) X(lease_counted)                                             \
    X(ack_marked) X(ack_released) X(nack_cursor) X(nack_marked)                                                        \
    X(sweep_returned) X(sweep_freed) X(register_filled) X(register_done)                                               \
    X(sleep_announced) X(sleep_over) X(wake_claimed) X(wake_bumped)                                                    \
    X(shutdown_set) X(shutdown_woken) X(resize_reserved) X(resize_copied) X(resize_stored)                             \
    X(format_reserved) X(format_filled) X(attach_mapped)

#define SQ_POINT_ENUM(name) SQ_POINT_##name,
enum sq_point_id { SQ_POINTS(SQ_POINT_ENUM) SQ_POINT_COUNT };

#ifdef SQ_FAULT_POINTS
void sq_point(int id);
#define SQ_POINT(name) sq_point(SQ_POINT_##name)
#else
#define SQ_POINT(name) ((void)0)
#endif

#endif
