/* bare_ring: the least a ring between two processes can do, as the reference the real one is measured against.
 *
 * One producer, one consumer, bytes in and bytes out. There are no locks, no roles, no types, no checks of what is read
 * from shared memory and no recovery: a killed party leaves the other waiting for ever. It is here to be fast and to be
 * read in five minutes, never to be used.
 *
 *   file     one header page, then the data; the data is mapped twice in a row, so every record is contiguous
 *   record   8 bytes of length, the bytes, padding to 8
 *   waits    40 pauses, 60 sched_yield without the interpreter lock, then a futex
 */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() atomic_signal_fence(memory_order_seq_cst)
#endif

enum { HEADER_BYTES = 4096, LINE = 64, PAUSES = 40, YIELDS = 60 };

/* Each word on a cache line of its own. The two flags are written only by somebody about to sleep or just woken, so
 * the other side's look at them after every operation stays in its own cache. */
typedef struct {
    _Alignas(LINE) _Atomic uint64_t tail;            /* bytes ever published; written by the producer */
    _Alignas(LINE) _Atomic uint64_t head;            /* bytes ever consumed; written by the consumer */
    _Alignas(LINE) _Atomic uint32_t consumer_asleep; /* 1: wake the consumer after the next publication */
    _Alignas(LINE) _Atomic uint32_t producer_asleep;
} Shared;

typedef struct {
    PyObject_HEAD
    Shared *shared;
    char *data;
    uint64_t capacity;
    uint64_t tail, head_seen; /* the producer's own position, and the consumer's when last looked at */
    uint64_t head, tail_seen; /* the same, seen from the consumer */
} Ring;

static inline uint64_t footprint(uint64_t length) { return 8 + ((length + 7) & ~(uint64_t)7); }

/* ---- waiting ---------------------------------------------------------------------------------------------------- */

static void futex(_Atomic uint32_t *word, int operation, uint32_t value) {
    syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

/* Stores the position and wakes the other side if it sleeps. The store is sequentially consistent because the look at
 * the flag must not move before it: the sleeper sets the flag, then looks at the position, in the opposite order. */
static inline void publish(_Atomic uint64_t *position, uint64_t value, _Atomic uint32_t *asleep) {
    atomic_store_explicit(position, value, memory_order_seq_cst);
    if (__builtin_expect(atomic_load_explicit(asleep, memory_order_seq_cst), 0)) {
        atomic_store_explicit(asleep, 0, memory_order_seq_cst);
        futex(asleep, FUTEX_WAKE, 1);
    }
}

/* Waits until *position differs from seen, or wakes for nothing; the caller looks again. The futex is the flag itself:
 * a waker that clears it late, when the sleeper is already on its next nap, makes that nap end at once instead of
 * leaving it without a waker. Returns -1 with an exception set when a signal handler raised one. */
static int wait_change(_Atomic uint64_t *position, uint64_t seen, _Atomic uint32_t *asleep) {
    for (int turn = 0; turn < PAUSES; turn++) {
        if (atomic_load_explicit(position, memory_order_acquire) != seen) return 0;
        PAUSE();
    }
    PyThreadState *state = PyEval_SaveThread();
    for (int turn = 0; turn < YIELDS; turn++) {
        if (atomic_load_explicit(position, memory_order_acquire) != seen) {
            PyEval_RestoreThread(state);
            return 0;
        }
        sched_yield();
    }
    atomic_store_explicit(asleep, 1, memory_order_seq_cst);
    if (atomic_load_explicit(position, memory_order_seq_cst) == seen) futex(asleep, FUTEX_WAIT, 1);
    atomic_store_explicit(asleep, 0, memory_order_relaxed);
    PyEval_RestoreThread(state);
    return PyErr_CheckSignals();
}

/* ---- producing -------------------------------------------------------------------------------------------------- */

/* Waits until the record fits; what was written but not yet published is published first. */
static int wait_room(Ring *self, uint64_t need) {
    Shared *shared = self->shared;
    if (need > self->capacity) {
        PyErr_SetString(PyExc_ValueError, "the record is larger than the ring");
        return -1;
    }
    if (atomic_load_explicit(&shared->tail, memory_order_relaxed) != self->tail)
        publish(&shared->tail, self->tail, &shared->consumer_asleep);
    for (;;) {
        self->head_seen = atomic_load_explicit(&shared->head, memory_order_acquire);
        if (self->tail + need - self->head_seen <= self->capacity) return 0;
        if (wait_change(&shared->head, self->head_seen, &shared->producer_asleep) < 0) return -1;
    }
}

static inline int write_record(Ring *self, PyObject *item) {
    if (!PyBytes_CheckExact(item)) {
        PyErr_SetString(PyExc_TypeError, "the bare ring takes bytes only");
        return -1;
    }
    uint64_t length = (uint64_t)PyBytes_GET_SIZE(item), need = footprint(length);
    if (self->tail + need - self->head_seen > self->capacity && wait_room(self, need) < 0) return -1;
    char *record = self->data + (self->tail & (self->capacity - 1));
    *(uint64_t *)record = length;
    memcpy(record + 8, PyBytes_AS_STRING(item), length);
    self->tail += need;
    return 0;
}

static PyObject *ring_put(Ring *self, PyObject *item) {
    if (write_record(self, item) < 0) return NULL;
    publish(&self->shared->tail, self->tail, &self->shared->consumer_asleep);
    Py_RETURN_NONE;
}

static PyObject *ring_put_many(Ring *self, PyObject *items) {
    if (!PyList_CheckExact(items)) {
        PyErr_SetString(PyExc_TypeError, "put_many takes a list");
        return NULL;
    }
    for (Py_ssize_t index = 0; index < PyList_GET_SIZE(items); index++)
        if (write_record(self, PyList_GET_ITEM(items, index)) < 0) return NULL;
    publish(&self->shared->tail, self->tail, &self->shared->consumer_asleep);
    return PyLong_FromSsize_t(PyList_GET_SIZE(items));
}

/* ---- consuming -------------------------------------------------------------------------------------------------- */

static int wait_item(Ring *self) {
    Shared *shared = self->shared;
    for (;;) {
        self->tail_seen = atomic_load_explicit(&shared->tail, memory_order_acquire);
        if (self->tail_seen != self->head) return 0;
        if (wait_change(&shared->tail, self->head, &shared->consumer_asleep) < 0) return -1;
    }
}

static inline PyObject *read_record(Ring *self) {
    const char *record = self->data + (self->head & (self->capacity - 1));
    uint64_t length = *(const uint64_t *)record;
    PyObject *item = PyBytes_FromStringAndSize(record + 8, (Py_ssize_t)length);
    if (item != NULL) self->head += footprint(length);
    return item;
}

static PyObject *ring_get(Ring *self, PyObject *Py_UNUSED(none)) {
    if (self->head == self->tail_seen && wait_item(self) < 0) return NULL;
    PyObject *item = read_record(self);
    if (item != NULL) publish(&self->shared->head, self->head, &self->shared->producer_asleep);
    return item;
}

static PyObject *ring_get_many(Ring *self, PyObject *most) {
    Py_ssize_t limit = PyLong_AsSsize_t(most);
    if (limit < 1) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "get_many takes at least one");
        return NULL;
    }
    if (wait_item(self) < 0) return NULL;
    PyObject *items = PyList_New(0);
    while (items != NULL && PyList_GET_SIZE(items) < limit && self->head != self->tail_seen) {
        PyObject *item = read_record(self);
        if (item == NULL || PyList_Append(items, item) < 0) Py_CLEAR(items);
        Py_XDECREF(item);
    }
    publish(&self->shared->head, self->head, &self->shared->producer_asleep);
    return items;
}

/* ---- mapping ---------------------------------------------------------------------------------------------------- */

static char *map_twice(int fd, uint64_t capacity) {
    char *base = mmap(NULL, HEADER_BYTES + 2 * capacity, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    int both = PROT_READ | PROT_WRITE, how = MAP_SHARED | MAP_FIXED;
    if (mmap(base, HEADER_BYTES + capacity, both, how, fd, 0) == MAP_FAILED ||
        mmap(base + HEADER_BYTES + capacity, capacity, both, how, fd, HEADER_BYTES) == MAP_FAILED) {
        munmap(base, HEADER_BYTES + 2 * capacity);
        return NULL;
    }
    return base;
}

/* Opens or creates the file, gives it its size when it has none, and maps it. Returns 0, or -1 with errno. */
static int open_ring(Ring *self, const char *path, uint64_t capacity) {
    struct stat found;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), failure;
    if (fd < 0) return -1;
    if (fstat(fd, &found) == 0 && (found.st_size != 0 || ftruncate(fd, (off_t)(HEADER_BYTES + capacity)) == 0)) {
        self->capacity = found.st_size ? (uint64_t)found.st_size - HEADER_BYTES : capacity;
        self->shared = (Shared *)map_twice(fd, self->capacity);
    }
    failure = errno;
    close(fd);
    errno = failure;
    return self->shared == NULL ? -1 : 0;
}

static int ring_init(Ring *self, PyObject *arguments, PyObject *keywords) {
    const char *path;
    unsigned long long capacity = 1 << 20;
    static char *names[] = {"path", "capacity_bytes", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "s|K", names, &path, &capacity)) return -1;
    if (self->shared != NULL || capacity < HEADER_BYTES || (capacity & (capacity - 1))) {
        PyErr_SetString(PyExc_ValueError, "the capacity is a power of two of at least 4096, and a ring is opened once");
        return -1;
    }
    if (open_ring(self, path, capacity) < 0) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
        return -1;
    }
    self->data = (char *)self->shared + HEADER_BYTES;
    self->tail = self->tail_seen = atomic_load_explicit(&self->shared->tail, memory_order_acquire);
    self->head = self->head_seen = atomic_load_explicit(&self->shared->head, memory_order_acquire);
    return 0;
}

static void ring_dealloc(Ring *self) {
    if (self->shared != NULL) munmap(self->shared, HEADER_BYTES + 2 * self->capacity);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* ---- module ----------------------------------------------------------------------------------------------------- */

/* memcpy_seconds(target, source, times): how long `times` plain copies of source into target take. */
static PyObject *memcpy_seconds(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer target, source;
    int times;
    struct timespec before, after;
    if (!PyArg_ParseTuple(arguments, "w*y*i", &target, &source, &times)) return NULL;
    Py_ssize_t length = target.len < source.len ? target.len : source.len;
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (int turn = 0; turn < times; turn++) {
        memcpy(target.buf, source.buf, (size_t)length);
        __asm__ volatile("" : : "r"(target.buf) : "memory"); /* or the compiler drops all copies but one */
    }
    clock_gettime(CLOCK_MONOTONIC, &after);
    PyBuffer_Release(&target);
    PyBuffer_Release(&source);
    return PyFloat_FromDouble((double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec) / 1e9);
}

static PyMethodDef ring_methods[] = {
    {"put", (PyCFunction)ring_put, METH_O, "Append one bytes object, waiting while the ring is full."},
    {"get", (PyCFunction)ring_get, METH_NOARGS, "Take the oldest item as bytes, waiting while the ring is empty."},
    {"put_many", (PyCFunction)ring_put_many, METH_O, "Append a list of bytes objects; published together."},
    {"get_many", (PyCFunction)ring_get_many, METH_O, "Take up to this many items; waits for the first only."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject RingType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "bare_ring.Ring",
    .tp_doc = "Ring(path, capacity_bytes=1 << 20): open the ring in this file, making it when the file is new or empty.",
    .tp_basicsize = sizeof(Ring),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)ring_init,
    .tp_dealloc = (destructor)ring_dealloc,
    .tp_methods = ring_methods,
};

static PyMethodDef module_methods[] = {
    {"memcpy_seconds", memcpy_seconds, METH_VARARGS, "Seconds that this many plain copies of source into target take."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "bare_ring", NULL, -1, module_methods, 0, 0, 0, 0};

PyMODINIT_FUNC PyInit_bare_ring(void) {
    if (PyType_Ready(&RingType) < 0) return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddObjectRef(made, "Ring", (PyObject *)&RingType) < 0) Py_CLEAR(made);
    return made;
}
