/* The ring, whole. Header-only, so that the very same code runs under the extension, the C stress programs, the
 * sanitizers and the fuzzer. Layers, each using only those above it:
 *
 *   ring_atomics.h  ring_layout.h  ring_points.h  ring_status.h
 *   ring_alive.h    is a process or thread still there?
 *   ring_lock.h     a lock that survives its owner          ring_wait.h  sleeping and waking
 *   ring_guard.h    files that shrink under their mapping   ring_map.h   from a file to a handle
 *   ring_side.h     entering, leaving, recovering one side
 *   ring_put.h      producers      ring_take.h  consumers
 *   ring_party.h    slots, roles   ring_lease.h leases      ring_control.h  clear, shutdown, resize, figures
 *   ring_look.h     looking in from outside, without taking part
 */
#ifndef SAGE_RING_H
#define SAGE_RING_H

#include "ring_look.h"

#endif
