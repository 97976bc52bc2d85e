/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What Python lacks of the Linux ABI: any system call by number, and a fork by clone3(2).
 *
 * No policy and no structures here: Python packs arguments into bytes, this module hands them to
 * the kernel and turns errno into OSError.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

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
    NR(fchown), NR(signalfd4), NR(openat),
#undef NR
};

/* One argument: an int, None (NULL), or anything with a buffer (its address). */
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
    /* A writable buffer where the caller has one, so that the kernel's answers arrive. */
    if (PyObject_GetBuffer(arg, view, PyBUF_SIMPLE) < 0)
        return -1;
    *held = 1;
    *out = (long)(intptr_t)view->buf;
    return 0;
}

PyDoc_STRVAR(syscall_doc,
"syscall(number, *args) -> int\n\n"
"Make a system call (syscall(2)). Each of up to six arguments is an int, None for NULL, or a\n"
"bytes-like object, whose address is passed. Raises OSError.");

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

PyDoc_STRVAR(clone3_doc,
"clone3(flags, exit_signal, cgroup) -> (pid, pidfd)\n\n"
"Fork by clone3(2) with the given CLONE_ flags; cgroup is a descriptor for CLONE_INTO_CGROUP.\n"
"In the child pid is 0 and pidfd -1. Memory is never shared (CLONE_VM is refused). Raises OSError.");

static PyObject *linux_clone3(PyObject *self, PyObject *args)
{
    (void)self;
    unsigned long long flags;
    unsigned long long exit_signal;
    int cgroup;
    int pidfd = -1;
    /* struct clone_args (linux/sched.h), in its CLONE_ARGS_SIZE_VER2 form. */
    struct {
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
            set_tid_size, cgroup;
    } ca = { 0 };

    if (!PyArg_ParseTuple(args, "KKi", &flags, &exit_signal, &cgroup))
        return NULL;
    if (flags & CLONE_VM)
        return PyErr_Format(PyExc_ValueError, "clone3() of a Python process can't share memory");
    ca.flags = flags | CLONE_PIDFD;
    ca.pidfd = (uint64_t)(uintptr_t)&pidfd;
    ca.exit_signal = exit_signal;
    ca.cgroup = cgroup < 0 ? 0 : (uint64_t)cgroup;

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

static PyMethodDef methods[] = {
    { "syscall", (PyCFunction)(void (*)(void))linux_syscall, METH_FASTCALL, syscall_doc },
    { "clone3", linux_clone3, METH_VARARGS, clone3_doc },
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
