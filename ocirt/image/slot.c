/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Creates in slots. When an engine starts dozens of containers at once, their creates wait for the same
 * locks of the kernel, and each has its memory in the way of the others': together they take a fifth
 * longer than a few at a time. So a create waits for one of a few slots, before it has any memory. A slot
 * is a byte of a file, locked for as long as the process lives, and init until it is the stub; whoever is
 * killed leaves it, too.
 *
 * Only speed depends on it: where the file can't be opened (not root, no /run) nobody waits, and nobody
 * waits for long, whatever the others hang in.
 */
#include "image.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>

#include "../kernel/raw.h"

#define FILE_OF_SLOTS "/run/ocirt.lock"
#define PER_CPU 3  /* some always sleep; two to four are as good */
#define MOST 32    /* what all of them wait for doesn't become more with the CPUs */
#define NAP_NS 4000000
#define NAPS 100

/* The slot's descriptor, out of the way of those that a caller may pass. In a process's first table. */
#define SLOT_FD 63

static int slots(void)
{
    unsigned char cpus[1024]; /* of 8192 CPUs, the most that Linux is built for */
    long size = RAW(sched_getaffinity, 0, sizeof cpus, cpus, 0);
    int count = 0;

    for (long i = 0; i < size; i++)
        for (; cpus[i]; cpus[i] &= (unsigned char)(cpus[i] - 1))
            count += PER_CPU;
    return count < MOST ? count : MOST;
}

/* Returns 0, -EAGAIN if others have all slots, or why there are none. */
static long lock_one(long fd, int count)
{
    long error = -EINVAL;

    for (int i = 0; i < count; i++) {
        struct flock byte = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = i, .l_len = 1 };
        error = RAW(fcntl, fd, F_OFD_SETLK, &byte, 0);
        if (error != -EAGAIN)
            break;
    }
    return error;
}

int take_slot(void)
{
    const struct timespec nap = { 0, NAP_NS };
    long file = RAW(openat, AT_FDCWD, FILE_OF_SLOTS, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        return -1;
    long fd = RAW(fcntl, file, F_DUPFD_CLOEXEC, SLOT_FD, 0), error = -EAGAIN;
    int count = slots();

    RAW(close, file, 0, 0, 0);
    /* Not asleep in the kernel until a lock is free: that has no time limit. */
    for (int naps = 0; error == -EAGAIN && naps <= NAPS; naps++) {
        if (naps)
            RAW(nanosleep, &nap, 0, 0, 0);
        error = lock_one(fd, count);
    }
    if (error == 0)
        return (int)fd;
    RAW(close, fd, 0, 0, 0);
    return -1;
}
