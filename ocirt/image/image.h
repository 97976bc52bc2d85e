/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the seed (seed.c, dump.c) leaves for the image's start (start.c). */
#ifndef IMAGE_H
#define IMAGE_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define PAGE 4096UL
#define HUGE_PAGE (2UL << 20)
#define HUGE_PAGE_UP(x) (((x) + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1))

/* layout.ld: where code and data begin that a start uses; the region of placed blocks follows. */
extern char code_from[], front_from[], region_to[];
#define FRONT ((unsigned long)front_from)

#define ONLY_READ 0x80000000 /* in struct used, count: it doesn't write to these */

/*
 * Which pages a command uses. placement.py finds them out, and writes this as a file: the names, each with
 * the end of its ranges among all of them, then the ranges, both padded with zeros.
 */
struct used {
    struct {
        char name[12];
        uint32_t end;
    } commands[16];
    struct {
        uint32_t page, count;
    } ranges[4096];
};

extern struct saved {
    unsigned long thread;  /* the FS base: glibc's thread structure, in the heap */
    int *tid;              /* where glibc keeps the thread's id */
    void *robust;          /* the robust futex list, and its size */
    size_t robust_size;
    PyObject *entry;       /* what to call: entry(argv, environ, ignored) */
    const char *plain;     /* the launcher of plain Python */
    struct used used;
} saved;

/* The memory of an image that tells which of its pages are used: data, heap, blocks far away. Empty in
   all others. */
extern struct watched {
    unsigned long from, to;
} watched[3];

/* The image's first instructions, and where in its first page they are: behind the program headers. */
extern const char image_boot[], image_boot_end[];
#define BOOT 0xf00

/* Not strcmp(3): its address is part of the front. */
static inline int same(const char *a, const char *b)
{
    for (; *a && *a == *b; a++)
        b++;
    return *a == *b;
}

/* Whether the image is to tell which pages are used; and if, with each block of the last list on pages
   of its own, which blocks. */
enum mode { REAL, PROFILE, SPREAD };

/* Write the image. Nothing may be allocated from here on: the heap is being copied. */
void dump(const char *path, enum mode mode);

/* Wait until few others create (slot.c); returns the descriptor that holds the slot, -1 for none. */
int take_slot(void);
extern int held_slot; /* kernel/_linux.c has it, to give it back */

/* Say what failed, by errno, and end the seed. */
void fail(const char *what);

#endif
