/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What Python lacks of the Linux ABI: any system call by number, a fork by clone3(2), and a process
 * that shares our memory and takes turns with us.
 *
 * No policy and no structures here: Python packs arguments into bytes, this module hands them to
 * the kernel and turns errno into OSError.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <linux/prctl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "raw.h"

#define MAX_ARGS 6

static const struct {
    const char *name;
    long number;
} numbers[] = {
#define NR(x) { "SYS_" #x, SYS_##x }
    NR(accept4), NR(capset), NR(chdir), NR(chroot), NR(clone3), NR(close), NR(close_range),
    NR(dup3), NR(execve), NR(execveat), NR(fchdir), NR(fchmodat), NR(fchownat), NR(fsconfig),
    NR(fcntl), NR(fsmount), NR(read), NR(sendmsg),
    NR(fsopen), NR(getpid), NR(ioprio_set), NR(keyctl), NR(memfd_create), NR(mkdirat), NR(mknodat),
    NR(mount), NR(mount_setattr), NR(move_mount), NR(open_tree), NR(openat2), NR(personality),
    NR(pidfd_open), NR(pivot_root), NR(prctl), NR(prlimit64), NR(renameat2), NR(rt_sigaction),
    NR(sched_setattr), NR(seccomp), NR(setdomainname), NR(setgroups), NR(sethostname), NR(setns),
    NR(setresgid), NR(setresuid), NR(statfs), NR(symlinkat), NR(umask), NR(umount2), NR(unshare),
    NR(write), NR(set_mempolicy), NR(ioctl), NR(sched_setaffinity), NR(setsid), NR(fstatfs),
    NR(fchown), NR(signalfd4), NR(openat), NR(getcpu), NR(sched_getaffinity),
#undef NR
};

/* A str as the kernel takes it: in UTF-8, with what isn't UTF-8 as os.fsdecode() leaves it. */
static PyObject *encode(PyObject *text)
{
    PyObject *words = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape");
    if (words && strlen(PyBytes_AS_STRING(words)) != (size_t)PyBytes_GET_SIZE(words)) {
        PyErr_SetString(PyExc_ValueError, "embedded null character");
        Py_CLEAR(words);
    }
    return words;
}

/* One argument: an int, None (NULL), or a str or anything with a buffer (its address). */
static int convert(PyObject *arg, long *out, Py_buffer *view, int *held)
{
    if (arg == Py_None) {
        *out = 0;
        return 0;
    }
    if (PyLong_Check(arg)) {
        /* Masks and -1 alike: system calls take the low 64 bits. */
        unsigned long value = PyLong_AsUnsignedLongMask(arg);
        if (value == (unsigned long)-1 && PyErr_Occurred())
            return -1;
        *out = (long)value;
        return 0;
    }
    PyObject *owner = PyUnicode_Check(arg) ? encode(arg) : Py_NewRef(arg);
    if (!owner)
        return -1;
    /* A writable buffer where the caller has one, so that the kernel's answers arrive. */
    int failed = PyObject_GetBuffer(owner, view, PyBUF_SIMPLE);
    Py_DECREF(owner); /* the view has it now */
    if (failed)
        return -1;
    *held = 1;
    *out = (long)(intptr_t)view->buf;
    return 0;
}

PyDoc_STRVAR(syscall_doc,
"syscall(number, *args) -> int\n\n"
"Make a system call (syscall(2)). Each of up to six arguments is an int, None for NULL, a str\n"
"that is passed as a C string, or a bytes-like object, whose address is passed. Raises OSError.");

static PyObject *linux_syscall(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)self;
    long a[1 + MAX_ARGS] = { 0 };
    Py_buffer views[1 + MAX_ARGS];
    int held[1 + MAX_ARGS] = { 0 };
    long result = -1;
    int failed = 0, error = 0;

    if (n < 1 || n > 1 + MAX_ARGS)
        return PyErr_Format(PyExc_TypeError, "syscall() takes 1 to 7 arguments (%zd given)", n);
    for (Py_ssize_t i = 0; i < n && !failed; i++)
        failed = convert(args[i], &a[i], &views[i], &held[i]);
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS
        result = syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
        error = errno;
        Py_END_ALLOW_THREADS
    }
    for (Py_ssize_t i = 0; i < n; i++)
        if (held[i])
            PyBuffer_Release(&views[i]);
    if (failed)
        return NULL;
    if (result == -1) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(result);
}

/* struct clone_args (linux/sched.h), in its CLONE_ARGS_SIZE_VER2 form. */
struct clone_args_v2 {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size, cgroup;
};

static struct clone_args_v2 clone_args(unsigned long long flags, unsigned long long exit_signal,
                                       int cgroup, int *pidfd)
{
    struct clone_args_v2 ca = { 0 };
    ca.flags = flags | CLONE_PIDFD;
    ca.pidfd = (uint64_t)(uintptr_t)pidfd;
    ca.exit_signal = exit_signal;
    ca.cgroup = cgroup < 0 ? 0 : (uint64_t)cgroup;
    return ca;
}

PyDoc_STRVAR(clone3_doc,
"clone3(flags, exit_signal, cgroup) -> (pid, pidfd)\n\n"
"Fork by clone3(2) with the given CLONE_ flags; cgroup is a descriptor for CLONE_INTO_CGROUP.\n"
"In the child pid is 0 and pidfd -1. Memory isn't shared (see clone_shared). Raises OSError.");

static PyObject *linux_clone3(PyObject *self, PyObject *args)
{
    (void)self;
    unsigned long long flags, exit_signal;
    int cgroup, pidfd = -1;

    if (!PyArg_ParseTuple(args, "KKi", &flags, &exit_signal, &cgroup))
        return NULL;
    if (flags & CLONE_VM)
        return PyErr_Format(PyExc_ValueError, "clone3() doesn't share memory");
    struct clone_args_v2 ca = clone_args(flags, exit_signal, cgroup, &pidfd);

    /* What os.fork() does around fork(2), so that the interpreter's locks survive. */
    PyOS_BeforeFork();
    long pid = syscall(SYS_clone3, &ca, sizeof ca);
    int error = errno;
    if (pid == 0) {
        PyOS_AfterFork_Child();
        return Py_BuildValue("(ii)", 0, -1);
    }
    PyOS_AfterFork_Parent();
    if (pid < 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("(li)", pid, pidfd);
}

/*
 * Two processes in one memory, of which one runs while the other sleeps in recvfrom(2): as with
 * vfork(2) nothing is copied, but the turn may change as often as they like.
 *
 * Each has a thread state of CPython's, and whoever gets the turn makes its own the current one.
 * Between giving the turn away and getting it back a process touches nothing but its stack: errno
 * and all else that glibc keeps per thread is shared, too.
 */
#define CHILD_STACK (1UL << 20)
#define LONGEST_PACKET (1UL << 16)
#define PATIENCE_SECONDS 10

/* The parent's note of its child; there is one such child at a time. */
static struct child {
    PyThreadState *state;
    PyObject *run;
    void *stack;
    int channel, other_end;
} child;

static long receive(int channel, void *packet, size_t size)
{
    long n;
    do
        n = raw(__NR_recvfrom, channel, (long)packet, (long)size, 0, 0, 0);
    while (n == -EINTR);
    return n;
}

/* The child's first function, on its own stack; it never returns. */
__attribute__((used)) static void child_main(void)
{
    char first;
    /* A copy of the parent's end would keep its death from us. */
    RAW(close, child.other_end, 0, 0, 0);
    RAW(prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
    if (receive(child.channel, &first, 1) == 1) {
        PyThreadState_Swap(child.state);
        PyObject_CallNoArgs(child.run);
    }
    for (;;)
        RAW(exit_group, 1, 0, 0, 0);
}

/* clone3(2) of a process that begins in child_main(). Returns the pid or -errno. */
long clone3_on_stack(struct clone_args_v2 *args, size_t size);
#if defined(__x86_64__)
__asm__(".text\n.hidden clone3_on_stack\n.globl clone3_on_stack\nclone3_on_stack:\n"
        " mov $435, %eax\n syscall\n test %rax, %rax\n jz 1f\n ret\n"
        "1: xor %ebp, %ebp\n call child_main\n hlt\n");
#else
__asm__(".text\n.hidden clone3_on_stack\n.globl clone3_on_stack\nclone3_on_stack:\n"
        " mov x8, #435\n svc 0\n cbz x0, 1f\n ret\n"
        "1: mov x29, #0\n bl child_main\n brk #0\n");
#endif

/* When the child has left our memory: by execve(2), which closes its end afterwards, or dead. */
static void forget_child(void)
{
    if (!child.state)
        return;
    PyThreadState_Clear(child.state);
    PyThreadState_Delete(child.state);
    munmap(child.stack, CHILD_STACK);
    Py_CLEAR(child.run);
    child.state = NULL;
}

PyDoc_STRVAR(clone_shared_doc,
"clone_shared(flags, exit_signal, cgroup, ours, theirs, run) -> (pid, pidfd)\n\n"
"Like clone3(), but the child shares our memory. ours and theirs are the ends of a pair of\n"
"SOCK_SEQPACKET sockets; each process keeps its own. The child calls run(), which must end in an\n"
"execve or an exit, when it gets its first turn. Raises OSError.");

static PyObject *linux_clone_shared(PyObject *self, PyObject *args)
{
    (void)self;
    unsigned long long flags, exit_signal;
    int cgroup, pidfd = -1;
    PyObject *run;

    if (!PyArg_ParseTuple(args, "KKiiiO", &flags, &exit_signal, &cgroup, &child.other_end,
                          &child.channel, &run))
        return NULL;
    child.stack = mmap(NULL, CHILD_STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (child.stack == MAP_FAILED)
        return PyErr_SetFromErrno(PyExc_OSError);
    child.state = PyThreadState_New(PyThreadState_Get()->interp);
    if (!child.state) {
        munmap(child.stack, CHILD_STACK);
        return PyErr_NoMemory();
    }
    child.run = Py_NewRef(run);
    struct clone_args_v2 ca = clone_args(flags | CLONE_VM, exit_signal, cgroup, &pidfd);
    ca.stack = (uint64_t)(uintptr_t)child.stack;
    ca.stack_size = CHILD_STACK;
    long pid = clone3_on_stack(&ca, sizeof ca);
    if (pid < 0) {
        forget_child();
        errno = (int)-pid;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    close(child.channel);
    return Py_BuildValue("(li)", pid, pidfd);
}

/* Sleep until the child speaks or a signal is there; on a signal end the child. */
static long receive_or_end(int channel, char *packet, int pidfd, int signals)
{
    struct pollfd wait[2] = { { channel, POLLIN, 0 }, { signals, POLLIN, 0 } };
    while (raw(__NR_ppoll, (long)wait, 2, 0, 0, 0, 0) < 0)
        ;
    if (wait[1].revents)
        RAW(pidfd_send_signal, pidfd, SIGKILL, 0, 0);
    return receive(channel, packet, LONGEST_PACKET);
}

/*
 * Go on after the child has left. If it was killed while it waited for something, nobody has the
 * interpreter's lock. Should it have died with that half taken, we would wait for ever: better to
 * die, too, as a killed runtime does.
 */
static void take_over(PyThreadState *mine)
{
    if (_PyThreadState_UncheckedGet()) {
        PyThreadState_Swap(mine);
    } else {
        alarm(PATIENCE_SECONDS);
        PyEval_RestoreThread(mine);
        alarm(0);
    }
    forget_child();
}

PyDoc_STRVAR(turn_doc,
"turn(channel, packet, pidfd=-1, signals=-1, mask=0) -> bytes\n\n"
"Give the turn to the process that shares our memory, with a packet, and sleep until it comes back\n"
"with another. Empty: the other process has left. In the parent pidfd is the child's, and signals\n"
"a signalfd(2) for those in mask: blocked meanwhile, one of them ends the child, and is then\n"
"delivered.");

static PyObject *linux_turn(PyObject *self, PyObject *args)
{
    (void)self;
    char answer[LONGEST_PACKET];
    PyThreadState *mine = PyThreadState_Get();
    int channel, pidfd = -1, signals = -1;
    const char *packet;
    Py_ssize_t size;
    unsigned long long mask = 0;
    uint64_t before = 0;
    long n;

    if (!PyArg_ParseTuple(args, "iy#|iiK", &channel, &packet, &size, &pidfd, &signals, &mask))
        return NULL;
    if (signals >= 0)
        RAW(rt_sigprocmask, SIG_BLOCK, &mask, &before, sizeof before);
    n = raw(__NR_sendto, channel, (long)packet, size, MSG_NOSIGNAL, 0, 0);
    if (n == size)
        n = signals >= 0 ? receive_or_end(channel, answer, pidfd, signals)
                         : receive(channel, answer, sizeof answer);
    if (n <= 0 && signals >= 0)
        take_over(mine);
    else
        PyThreadState_Swap(mine);
    if (signals >= 0) {
        RAW(rt_sigprocmask, SIG_SETMASK, &before, 0, sizeof before);
        if (PyErr_CheckSignals() < 0)
            return NULL;
    }
    return PyBytes_FromStringAndSize(answer, n < 0 ? 0 : n);
}

PyDoc_STRVAR(last_words_doc,
"last_words(channel, packet) -> never\n\n"
"End this process, which shares another's memory, and give that the turn.");

static PyObject *linux_last_words(PyObject *self, PyObject *args)
{
    (void)self;
    int channel;
    const char *packet;
    Py_ssize_t size;

    if (!PyArg_ParseTuple(args, "iy#", &channel, &packet, &size))
        return NULL;
    raw(__NR_sendto, channel, (long)packet, size, MSG_NOSIGNAL, 0, 0);
    for (;;)
        RAW(exit_group, 1, 0, 0, 0);
}

/* The descriptor that the image's start took (image/slot.c), -1 for none. */
int held_slot = -1;

PyDoc_STRVAR(give_slot_back_doc,
"give_slot_back()\n\n"
"Let another process create a container in this one's place (image/slot.c).");

static PyObject *linux_give_slot_back(PyObject *self, PyObject *args)
{
    (void)self, (void)args;
    if (held_slot >= 0)
        close(held_slot);
    held_slot = -1;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    { "syscall", (PyCFunction)(void (*)(void))linux_syscall, METH_FASTCALL, syscall_doc },
    { "clone3", linux_clone3, METH_VARARGS, clone3_doc },
    { "clone_shared", linux_clone_shared, METH_VARARGS, clone_shared_doc },
    { "turn", linux_turn, METH_VARARGS, turn_doc },
    { "last_words", linux_last_words, METH_VARARGS, last_words_doc },
    { "give_slot_back", linux_give_slot_back, METH_NOARGS, give_slot_back_doc },
    { NULL, NULL, 0, NULL },
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_linux", "The raw Linux ABI.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__linux(void)
{
    PyObject *m = PyModule_Create(&module);
    if (m == NULL)
        return NULL;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (PyModule_AddIntConstant(m, numbers[i].name, numbers[i].number) < 0) {
            Py_DECREF(m);
            return NULL;
        }
    return m;
}
