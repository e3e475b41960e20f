/* Only in a build with fault points (SAGE_QD_POINTS=1): whoever shares a word of memory with a process can order it to
 * die at a point, and it dies the next time it comes by. Without an order nothing happens anywhere.
 */
#include <signal.h>
#include <unistd.h>

#include "ring_atomics.h"
#include "ring_points.h"

#define POINT_NAME(name) #name,
const char *const sq_point_names[] = {SQ_POINTS(POINT_NAME)};
const int sq_point_count = SQ_POINT_COUNT;

/* 1 + the id of the point; written by whoever orders. NULL: nobody does. */
static const sq_word64 *order;

void sq_obey(const void *word) {
    order = word;
}

void sq_point(int id) {
    if (order != NULL && sq_load64(order) == (uint64_t)id + 1) kill(getpid(), SIGKILL);
}
