/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Where CPython's blocks lie. A start of the image uses some thousands of objects out of some hundred
 * thousand; each page with one of them is mapped for it, and copied if it is written to. So the build
 * finds out which (placement.py), and the seed allocates those side by side, in a region of their own.
 *
 * A block is known by its number, counting allocations from the start of the interpreter: the same
 * program in the same surroundings allocates in the same order.
 */
#ifndef PLACE_H
#define PLACE_H
#include <stddef.h>

/* Above the executable and wherever the kernel may put its heap. */
#define PLACE_FAR 0x100000000UL
#define PLACE_FAR_ROOM (4UL << 30)

/*
 * Hook into CPython's allocators; call it before Py_InitializeFromConfig(). Each of the lists is a
 * file of uint32_t ("" for none): which blocks to place, ascending; the very first number is how many
 * bytes they take altogether. record is a file that gets address and size of every block, each
 * uint64_t ("" for none).
 *
 * The region is the one that layout.ld puts behind the data. One list's blocks come after the other's,
 * whatever these are, so that the last can be found out when the others' addresses are known. With
 * far those of the last are elsewhere, each on pages of its own.
 */
#define PLACE_LISTS 5
void place_start(char *const lists[PLACE_LISTS], const char *record, int far);

/* From now on nothing is placed or recorded. */
void place_stop(void);

/* Take memory from the region for other purposes; NULL if it is full. Aligned to a page. */
void *place_take(size_t size);

/* Tell whether p points into the region, or to where blocks are far. */
int place_holds(const void *p);

/* The end of what is placed far. */
void *place_far_end(void);

#endif
