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
#define GRANULE 16UL /* as malloc(3) aligns */

extern char region_from[], region_to[]; /* layout.ld */

/* Blocks that lie together. */
static struct list {
    uint32_t *numbers; /* ascending, behind their size; not from the heap, which is saved */
    size_t mapped, count, at;
    char *from, *next, *to;
    size_t granule;
} lists[PLACE_LISTS];

static char *taken;      /* the end of the region's part that is used */
static char *blocks_end; /* of the placed blocks in it */
static int stopped;
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

/* Return the list in whose place a block lies; NULL if it isn't placed. */
static const struct list *placed(const void *p)
{
    if ((const char *)p >= blocks_end && (unsigned long)p < PLACE_FAR)
        return NULL; /* as all that the image frees, soon known */
    for (const struct list *l = lists; l < lists + PLACE_LISTS; l++)
        if ((const char *)p >= l->from && (const char *)p < l->next)
            return l;
    return NULL;
}

/* Return memory if this block is to be placed, otherwise NULL. Counts it. */
static void *place(size_t size)
{
    if (stopped)
        return NULL;
    uint32_t mine = number++;
    for (struct list *l = lists; l < lists + PLACE_LISTS; l++) {
        if (l->at == l->count || l->numbers[l->at] != mine)
            continue;
        l->at++;
        char *p = l->next;
        size_t room = (size + !size + l->granule - 1) & ~(l->granule - 1);
        if (room > (size_t)(l->to - p))
            return NULL;
        l->next += room;
        return p;
    }
    return NULL;
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
    if (!placed(p))
        a->free(a->ctx, p);
}

static void *place_realloc(void *ctx, void *old, size_t size)
{
    PyMemAllocatorEx *a = ctx;
    const struct list *from = placed(old);
    void *p = place(size);
    if (!p && !from)
        return note(a->realloc(a->ctx, old, size), size);
    if (!p)
        p = a->malloc(a->ctx, size);
    if (p && old) {
        /* Nobody knows how large the old block is. What lies behind it does no harm. */
        size_t left = (size_t)((from ? from->next : (char *)sbrk(0)) - (char *)old);
        memcpy(p, old, size < left ? size : left);
        place_free(ctx, old);
    }
    return note(p, size);
}

static void read_numbers(struct list *l, const char *path)
{
    if (!*path)
        return;
    FILE *file = fopen(path, "r");
    long size;
    if (!file || fseek(file, 0, SEEK_END) < 0 || (size = ftell(file)) < (long)sizeof(uint32_t)) {
        perror(path);
        exit(1);
    }
    rewind(file);
    l->mapped = (size_t)size;
    l->numbers = reserve(0, l->mapped);
    l->count = fread(l->numbers, sizeof *l->numbers, l->mapped / sizeof *l->numbers, file);
    l->at = 1;
    fclose(file);
}

void place_start(char *const paths[PLACE_LISTS], const char *record_path, int far)
{
    static const PyMemAllocatorDomain domains[2] = { PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ };
    struct list *last = &lists[PLACE_LISTS - 1];

    taken = region_from;
    for (struct list *l = lists; l <= last; l++) {
        read_numbers(l, *paths++);
        l->from = l->next = taken;
        if (l->count && !(far && l == last))
            taken += l->numbers[0];
        l->to = taken;
        l->granule = GRANULE;
    }
    blocks_end = taken;
    if (taken > region_to) {
        fprintf(stderr, "image: no room for the placed blocks\n");
        exit(1);
    }
    if (far) {
        last->from = last->next = reserve(PLACE_FAR, PLACE_FAR_ROOM);
        last->to = last->from + PLACE_FAR_ROOM;
        last->granule = PAGE;
    }
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
    stopped = 1;
    for (struct list *l = lists; l < lists + PLACE_LISTS; l++) {
        if (l->numbers)
            munmap(l->numbers, l->mapped);
        l->numbers = NULL;
    }
    if (record)
        fclose(record);
    record = NULL;
}

void *place_take(size_t size)
{
    char *p = (char *)(((unsigned long)taken + PAGE - 1) & ~(PAGE - 1));
    if (p > region_to || size > (size_t)(region_to - p))
        return NULL;
    taken = p + size;
    return p;
}

int place_holds(const void *p)
{
    return ((const char *)p >= region_from && (const char *)p < region_to) ||
           (unsigned long)p - PLACE_FAR < PLACE_FAR_ROOM;
}

void *place_far_end(void)
{
    return lists[PLACE_LISTS - 1].next;
}
