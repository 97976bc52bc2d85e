/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The waiting init of a container: a program without libc that runs a list prepared in Python.
 *
 * It is executed with the list's descriptor number in argv[0]. The list (stublist.py writes it) is
 * mapped at a fixed address, so the pointers in it are plain addresses. Policy stays in Python;
 * here are only the loop and what a single system call can't do: wait for `start`, run a hook,
 * report an error.
 */
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/signal.h>
#include <linux/time_types.h>
#include <linux/wait.h>
#include <stddef.h>
#include <asm/unistd.h>

#include "raw.h"

#define LIST_ADDRESS 0x100000000UL /* 4 GiB: above this program, below everything the kernel places */
#define LIST_MAGIC 0x31424f54534943UL

enum kind { SYSCALL, WAIT, HOOK, REPORT_TO, FORK, FOR_EACH_BIT };
/*
 * SILENT says beforehand that silence will mean success: the execve closes the connection, and a
 * filter may forbid to send. KEEP writes the result, an int, where arg[5] points. PEER puts the
 * connection that said "go" in arg[0], and takes 0, its end, for an error. TAKE puts the int that
 * KEEP wrote, where arg[0] points, in arg[0].
 */
enum flag { MAY_FAIL = 1, SILENT = 2, KEEP = 4, PEER = 8, TAKE = 16 };
enum failure { BY_ERRNO, BY_STATUS, BY_TIMEOUT }; /* what the number in a report means */

struct op {
    unsigned kind, flags;
    long number;      /* SYSCALL: its number; HOOK: where its stdout, stderr and their copy are */
    long arg[6];      /* SYSCALL: arguments; WAIT, REPORT_TO: socket; FORK: where the pid goes;
                         HOOK: path, argv, envp, input, size, ms; FOR_EACH_BIT: arguments, of which
                         the second is replaced by the number of each bit that is set in arg[5] */
    const char *text; /* the words that go before the error */
    long text_size;
};

struct list {
    unsigned long magic, size, count;
    const struct op *ops;
};

/* Tell `start`, which may be dead: that must not stop the container with SIGPIPE. */
static void say(int peer, const void *words, long size)
{
    raw(__NR_sendto, peer, (long)words, size, 0x4000 /* MSG_NOSIGNAL */, 0, 0);
}

static void die(void)
{
    for (;;)
        RAW(exit_group, 1, 0, 0, 0);
}

/* Wait for a connection that says "go". Its peer may die before that: then wait for the next. */
static int wait_for_start(int socket)
{
    for (;;) {
        char byte = 0;
        long peer = RAW(accept4, socket, 0, 0, O_CLOEXEC);
        if (peer == -EBADF || peer == -EINVAL)
            die();
        if (peer < 0)
            continue;
        if (RAW(read, peer, &byte, 1, 0) == 1 && byte == 'g') {
            RAW(close, socket, 0, 0, 0);
            return (int)peer;
        }
        RAW(close, peer, 0, 0, 0);
    }
}

/* number: what failure says; said: the size of the output that follows. */
struct hook_end {
    int failure, number, ms, said;
};

static void exec_hook(const struct op *op, const int *in, const int *files)
{
    /* A group of its own, so that a hook that takes too long goes with its children. */
    RAW(setpgid, 0, 0, 0, 0);
    RAW(dup3, in[0], 0, 0, 0);
    RAW(dup3, files[0], 1, 0, 0);
    RAW(dup3, files[1], 2, 0, 0);
    RAW(execve, op->arg[0], op->arg[1], op->arg[2], 0);
    RAW(exit_group, 127, 0, 0, 0);
}

static long milliseconds(void)
{
    struct __kernel_timespec now = { 0, 0 };
    RAW(clock_gettime, 1 /* CLOCK_MONOTONIC */, &now, 0, 0);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Run a hook with its input on stdin. Returns 0, or what went wrong with *failure set. */
static long run_hook(const struct op *op, enum failure *failure)
{
    const int *files = (const int *)op->number;
    int in[2], status = 0;
    long pid, pidfd, error = RAW(pipe2, in, O_CLOEXEC, 0, 0);
    *failure = BY_ERRNO;
    if (error < 0)
        return -error;
    /* The state has to fit into the pipe: nobody is there to feed it while we watch the clock. */
    RAW(fcntl, in[1], F_SETPIPE_SZ, op->arg[4], 0);
    RAW(fcntl, in[1], F_SETFL, O_NONBLOCK, 0);
    RAW(write, in[1], op->arg[3], op->arg[4], 0);
    RAW(close, in[1], 0, 0, 0);
    pid = RAW(clone, SIGCHLD, 0, 0, 0);
    if (pid == 0)
        exec_hook(op, in, files);
    RAW(close, in[0], 0, 0, 0);
    if (pid < 0)
        return -pid;
    pidfd = RAW(pidfd_open, pid, 0, 0, 0);
    if (op->arg[5] > 0 && pidfd >= 0) {
        struct pollfd ended = { .fd = (int)pidfd, .events = POLLIN };
        struct __kernel_timespec left = { op->arg[5] / 1000, op->arg[5] % 1000 * 1000000 };
        if (RAW(ppoll, &ended, 1, &left, 0) == 0) {
            RAW(kill, -pid, SIGKILL, 0, 0);
            RAW(kill, pid, SIGKILL, 0, 0);
            *failure = BY_TIMEOUT;
        }
    }
    RAW(close, pidfd, 0, 0, 0);
    RAW(wait4, pid, &status, 0, 0);
    if (*failure == BY_TIMEOUT)
        return op->arg[5];
    *failure = BY_STATUS;
    return status;
}

/* The same, and tell `start` how it ended and the end of what it wrote. */
static long run_and_tell(const struct op *op, int peer, enum failure *failure)
{
    int copy = ((const int *)op->number)[2];
    char said[2048];
    long began = milliseconds(), from = RAW(lseek, copy, 0, 2 /* SEEK_END */, 0);
    long number = run_hook(op, failure);
    long end = RAW(lseek, copy, 0, 2, 0), size;
    if (end - from > (long)sizeof said)
        from = end - (long)sizeof said;
    size = RAW(pread64, copy, said, sizeof said, from);
    struct hook_end head = { (int)*failure, (int)number, (int)(milliseconds() - began),
                             size > 0 ? (int)size : 0 };
    say(peer, "h", 1);
    say(peer, &head, sizeof head);
    say(peer, said, head.said);
    return number;
}

/*
 * Go on as a child, which is in the pid namespace that was joined; this process only tells its pid.
 * The child is a sibling (CLONE_PARENT): who executed us waits for it. Returns 0 or an errno.
 */
static long fork_sibling(int tell)
{
    long pid = RAW(clone, CLONE_PARENT | SIGCHLD, 0, 0, 0);
    if (pid <= 0)
        return -pid;
    RAW(write, tell, &pid, sizeof pid, 0);
    for (;;)
        RAW(exit_group, 0, 0, 0, 0);
}

/* Make the system call for each bit of the mask; returns 0 or the first errno. */
static long for_each_bit(const struct op *op)
{
    unsigned long left = (unsigned long)op->arg[5];
    long error = 0;
    for (long bit = 0; left && !error; bit++, left >>= 1)
        if (left & 1)
            error = -raw(op->number, op->arg[0], bit, op->arg[2], op->arg[3], op->arg[4], 0);
    return error;
}

/*
 * Whoever started us may have ignored signals, and Python does: execve(2) keeps that. All go back to
 * their default, glibc's own two as well.
 */
static void default_signals(void)
{
    const long by_default[4] = { 0 }; /* handler, flags, restorer, mask */
    for (int number = 64; number; number--)
        RAW(rt_sigaction, number, by_default, 0, 8);
}

static void report(int peer, const struct op *op, enum failure failure, long number)
{
    int head[2] = { (int)failure, (int)number };
    say(peer, "e", 1);
    say(peer, head, sizeof head);
    say(peer, op->text, op->text_size);
    die();
}

/* The kernel enters with the stack holding argc, argv[0], ... */
__attribute__((used)) void stub_main(const long *stack)
{
    const char *digits = (const char *)stack[1];
    const struct list *list = (const struct list *)LIST_ADDRESS;
    int fd = 0, peer = -1;
    unsigned long size;

    /* execve made this process dumpable again: nobody in a shared pid namespace may look in. */
    RAW(prctl, PR_SET_DUMPABLE, 0, 0, 0);
    default_signals();
    while (*digits >= '0' && *digits <= '9')
        fd = fd * 10 + (*digits++ - '0');
    size = (unsigned long)RAW(lseek, fd, 0, 2, 0);
    if (raw(__NR_mmap, (long)list, (long)size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0) != (long)list ||
        size < sizeof *list || list->magic != LIST_MAGIC || list->size != size)
        die();
    RAW(close, fd, 0, 0, 0);

    for (const struct op *op = list->ops; op < list->ops + list->count; op++) {
        enum failure failure = BY_ERRNO;
        long error = 0;
        if (op->kind == WAIT) {
            peer = wait_for_start((int)op->arg[0]);
        } else if (op->kind == REPORT_TO) {
            peer = (int)op->arg[0];
        } else if (op->kind == FORK) {
            error = fork_sibling((int)op->arg[0]);
        } else if (op->kind == FOR_EACH_BIT) {
            error = for_each_bit(op);
        } else if (op->kind == HOOK) {
            error = run_and_tell(op, peer, &failure);
        } else {
            if (op->flags & SILENT)
                say(peer, "x", 1);
            error = raw(op->number,
                         op->flags & PEER   ? peer
                         : op->flags & TAKE ? *(const int *)op->arg[0]
                                            : op->arg[0],
                         op->arg[1], op->arg[2], op->arg[3], op->arg[4], op->arg[5]);
            if (op->flags & KEEP)
                *(int *)op->arg[5] = (int)error;
            if (op->flags & PEER && error == 0)
                error = -EPIPE;
            error = error < 0 && error > -4096 ? -error : 0;
        }
        if (error && !(op->flags & MAY_FAIL))
            report(peer, op, failure, error);
    }
    die();
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n mov %rsp, %rdi\n and $-16, %rsp\n call stub_main\n");
#else
__asm__(".globl _start\n_start:\n mov x0, sp\n bl stub_main\n");
#endif
