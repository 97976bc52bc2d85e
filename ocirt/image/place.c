/* SPDX-License-Identifier: GPL-3.0-or-later */
/* See place.h. */
#define PY_SSIZE_T_CLEAN
#include "place.h"
#include <Python.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL

extern char region_from[], region_to[]; /* layout.ld */

static char *from, *to;  /* the region */
static char *next;       /* its first free byte */
static char *placed_to;  /* the end of the blocks in it */
static size_t granule;
static uint32_t *wanted; /* the numbers that are placed, ascending */
static size_t wanted_size, wanted_count, wanted_next;
static uint32_t number;  /* of the next block */
static FILE *record;
static PyMemAllocatorEx plain[2];

static void *reserve(unsigned long where, size_t size)
{
    int fixed = where ? MAP_FIXED_NOREPLACE : 0;
    void *p = mmap((void *)where, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
    if (p == MAP_FAILED) {
        perror("image: reserve memory");
        exit(1);
    }
    return p;
}

static int is_placed(const void *p)
{
    return (const char *)p >= from && (const char *)p < placed_to;
}

/* Return memory in the region if this block is to lie there, otherwise NULL. Counts it. */
static void *place(size_t size)
{
    uint32_t mine = number++;
    if (wanted_next == wanted_count || wanted[wanted_next] != mine)
        return NULL;
    wanted_next++;
    void *p = next;
    size_t room = (size + !size + granule - 1) & ~(granule - 1);
    if (room > (size_t)(to - next))
        return NULL;
    placed_to = next += room;
    return p;
}

static void *note(void *p, size_t size)
{
    if (record) {
        uint64_t block[2] = { (uint64_t)(uintptr_t)p, size };
        fwrite(block, sizeof block, 1, record);
    }
    return p;
}

static void *place_malloc(void *ctx, size_t size)
{
    PyMemAllocatorEx *a = ctx;
    void *p = place(size);
    return note(p ? p : a->malloc(a->ctx, size), size);
}

static void *place_calloc(void *ctx, size_t count, size_t size)
{
    PyMemAllocatorEx *a = ctx;
    /* The region is fresh from the kernel, and never used twice: it is zero. */
    void *p = place(count * size);
    return note(p ? p : a->calloc(a->ctx, count, size), count * size);
}

static void place_free(void *ctx, void *p)
{
    PyMemAllocatorEx *a = ctx;
    if (!is_placed(p))
        a->free(a->ctx, p);
}

static void *place_realloc(void *ctx, void *old, size_t size)
{
    PyMemAllocatorEx *a = ctx;
    void *p = place(size);
    if (!p && !is_placed(old))
        return note(a->realloc(a->ctx, old, size), size);
    if (!p)
        p = a->malloc(a->ctx, size);
    if (p && old) {
        /* Nobody knows how large the old block is. What lies behind it does no harm. */
        size_t left = (size_t)((is_placed(old) ? placed_to : (char *)sbrk(0)) - (char *)old);
        memcpy(p, old, size < left ? size : left);
        place_free(ctx, old);
    }
    return note(p, size);
}

static void read_numbers(const char *path)
{
    FILE *file = fopen(path, "r");
    long size;
    if (!file || fseek(file, 0, SEEK_END) < 0 || (size = ftell(file)) < 0) {
        perror(path);
        exit(1);
    }
    rewind(file);
    /* Not from the heap, which is saved. */
    wanted_size = (size_t)size + 1;
    wanted = reserve(0, wanted_size);
    wanted_count = fread(wanted, sizeof *wanted, (size_t)size / sizeof *wanted, file);
    fclose(file);
}

void place_start(const char *numbers, size_t distance, const char *record_path, int far)
{
    static const PyMemAllocatorDomain domains[2] = { PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ };
    from = far ? reserve(PLACE_FAR, PLACE_FAR_ROOM) : region_from;
    to = far ? from + PLACE_FAR_ROOM : region_to;
    placed_to = next = from;
    granule = distance;
    if (*numbers)
        read_numbers(numbers);
    if (*record_path && !(record = fopen(record_path, "w"))) {
        perror(record_path);
        exit(1);
    }
    for (int i = 0; i < 2; i++) {
        PyMem_GetAllocator(domains[i], &plain[i]);
        PyMemAllocatorEx ours = { &plain[i], place_malloc, place_calloc, place_realloc, place_free };
        PyMem_SetAllocator(domains[i], &ours);
    }
}

void place_stop(void)
{
    wanted_next = wanted_count = 0;
    if (wanted)
        munmap(wanted, wanted_size);
    if (record)
        fclose(record);
    record = NULL;
}

void *place_take(size_t size)
{
    char *p = (char *)(((unsigned long)next + PAGE - 1) & ~(PAGE - 1));
    if (p > to || size > (size_t)(to - p))
        return NULL;
    next = p + size;
    return p;
}

int place_holds(const void *p)
{
    return (const char *)p >= from && (const char *)p < to;
}
