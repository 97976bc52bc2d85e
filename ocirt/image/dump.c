/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Writing the image: an ELF file with the seed's code, and its memory as it is (elf(5)). */
#include "image.h"
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "place.h"

#define PAGE_DOWN(x) ((x) & ~(PAGE - 1))
#define PAGE_UP(x) PAGE_DOWN((x) + PAGE - 1)

extern const char __ehdr_start[]; /* the linker's: the first byte of the executable */

static void put(int fd, const void *data, size_t size, off_t offset)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(fd, (const char *)data + done, size - done, offset + (off_t)done);
        if (n <= 0)
            fail("write");
        done += (size_t)n;
    }
}

static const char zero[PAGE];

/* Write memory page by page, leaving holes for what is zero: bss and unused heap cost no disk. */
static void put_pages(int fd, unsigned long from, unsigned long to, off_t offset)
{
    for (; from < to; from += PAGE, offset += PAGE)
        if (memcmp((void *)from, zero, PAGE))
            put(fd, (void *)from, PAGE, offset);
}

/* Return where the content of memory ends: zeros behind it are the kernel's business. */
static unsigned long content_end(unsigned long from, unsigned long to)
{
    while (to > from && !memcmp((void *)(to - PAGE), zero, PAGE))
        to -= PAGE;
    return to;
}

static Elf64_Phdr segment(unsigned long from, unsigned long to, off_t offset)
{
    Elf64_Phdr p = { .p_type = PT_LOAD, .p_flags = PF_R | PF_W, .p_align = PAGE };
    p.p_vaddr = p.p_paddr = from;
    p.p_filesz = p.p_memsz = to - from;
    p.p_offset = (unsigned long)offset;
    return p;
}

/*
 * Return the heap's begin, from /proc/self/maps, and refuse memory that would be lost: anything
 * private and writable besides the data segment, the heap and the stack.
 */
static unsigned long find_heap(unsigned long data_from, unsigned long data_to)
{
    char line[512], mode[5], name[256];
    unsigned long from, to, heap = 0;
    FILE *maps = fopen("/proc/self/maps", "r");

    if (!maps)
        fail("/proc/self/maps");
    while (fgets(line, sizeof line, maps)) {
        name[0] = 0;
        if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %255s", &from, &to, mode, name) < 3)
            continue;
        if (!strcmp(name, "[heap]"))
            heap = heap ? heap : from;
        else if (mode[1] == 'w' && strcmp(name, "[stack]") && !place_holds((void *)from) &&
                 (from < data_from || to > data_to)) {
            fprintf(stderr, "image: memory outside of the heap would be lost: %s", line);
            exit(1);
        }
    }
    fclose(maps);
    return heap;
}

/*
 * Write memory in pieces of a huge page, the last one filled up with zeros, to an offset that is a
 * multiple of one: where the page cache has huge pages, it then maps them with one fault each.
 */
static off_t put_huge(int fd, unsigned long from, unsigned long to, off_t offset)
{
    char *piece = mmap(NULL, HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);
    if (piece == MAP_FAILED)
        fail("mmap");
    for (; from < to; from += HUGE_PAGE, offset += (off_t)HUGE_PAGE) {
        size_t size = to - from < HUGE_PAGE ? to - from : HUGE_PAGE;
        memcpy(piece, (void *)from, size);
        memset(piece + size, 0, HUGE_PAGE - size);
        put(fd, piece, HUGE_PAGE, offset);
    }
    munmap(piece, HUGE_PAGE);
    return offset;
}

/* The image's file, while it is written. */
static struct {
    int fd;
    off_t end;
    int count;
    Elf64_Phdr segments[40];
} out;

/* Add memory to the image, as data of its own. */
static void add(unsigned long from, unsigned long to)
{
    Elf64_Phdr *p = &out.segments[out.count++];

    *p = segment(from, to, out.end);
    p->p_filesz = content_end(from, to) - from;
    put_pages(out.fd, from, from + p->p_filesz, out.end);
    out.end += (off_t)p->p_filesz;
}

/* Add the front, the part of the data that a start uses, so that the page cache has it in huge pages. */
static void add_front(void)
{
    Elf64_Phdr *p = &out.segments[out.count++];
    unsigned long to = PAGE_UP((unsigned long)place_take(0));

    *p = segment(FRONT, to, (off_t)HUGE_PAGE_UP((unsigned long)out.end));
    p->p_filesz = content_end(FRONT, to) - FRONT;
    out.end = put_huge(out.fd, FRONT, FRONT + p->p_filesz, (off_t)p->p_offset);
}

/*
 * Add code or constants: the very bytes of the seed's file, at the same place. Code that is hardly
 * used isn't to be had in huge pages: with one function one would get them all.
 */
static void add_constant(const Elf64_Phdr *p)
{
    Elf64_Phdr *new = &out.segments[out.count++];
    unsigned long to = p->p_vaddr + p->p_filesz;

    *new = *p;
    if (p->p_offset == 0) { /* the header, which dump writes */
        put(out.fd, image_boot, (size_t)(image_boot_end - image_boot), BOOT);
        to = new->p_filesz = new->p_memsz = PAGE;
        new->p_flags |= PF_X;
    } else {
        unsigned long from = p->p_vaddr;
        if (from < (unsigned long)code_from && to > (unsigned long)code_from) {
            from = (unsigned long)code_from;
            put_pages(out.fd, p->p_vaddr, from, (off_t)p->p_offset);
        }
        to = (unsigned long)put_huge(out.fd, from, to, (off_t)(p->p_offset + from - p->p_vaddr));
        new->p_filesz = new->p_memsz = to - p->p_offset;
    }
    if (out.end < (off_t)to)
        out.end = (off_t)PAGE_UP(to);
}

void dump(const char *path, enum mode mode)
{
    const Elf64_Ehdr *seed = (const Elf64_Ehdr *)__ehdr_start;
    const Elf64_Phdr *old = (const Elf64_Phdr *)(__ehdr_start + seed->e_phoff);
    Elf64_Ehdr header = *seed;
    unsigned long data_from = 0, data_to = 0, heap_from, heap_to;

    out.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    if (out.fd < 0)
        fail(path);
    for (int i = 0; i < seed->e_phnum; i++) {
        if (old[i].p_type == PT_GNU_STACK)
            out.segments[out.count++] = old[i]; /* or the stack would be executable */
        if (old[i].p_type != PT_LOAD)
            continue;
        if (old[i].p_flags & PF_W) {
            data_from = PAGE_DOWN(old[i].p_vaddr);
            data_to = PAGE_UP(old[i].p_vaddr + old[i].p_memsz);
        } else {
            add_constant(&old[i]);
        }
    }
    heap_from = find_heap(data_from, data_to);
    heap_to = saved.end = PAGE_UP((unsigned long)sbrk(0));
    if (mode != REAL) {
        watched[0].from = data_from;
        watched[0].to = data_to;
        watched[1].from = heap_from;
        watched[1].to = heap_to;
    }
    if (mode == SPREAD) {
        watched[2].from = PLACE_FAR;
        watched[2].to = saved.end = PAGE_UP((unsigned long)place_far_end());
    }
    add(data_from, FRONT);
    add_front();
    add((unsigned long)region_to, data_to);
    /* Without address randomisation the heap follows the data; otherwise there is a gap. */
    add(heap_from, heap_to);
    if (mode == SPREAD)
        add(PLACE_FAR, PAGE_UP((unsigned long)place_far_end()));

    header.e_entry = (unsigned long)__ehdr_start + BOOT;
    header.e_phoff = sizeof header;
    header.e_phnum = (uint16_t)out.count;
    /* The old table of sections would describe the old file. */
    header.e_shoff = 0;
    header.e_shnum = header.e_shstrndx = 0;
    put(out.fd, &header, sizeof header, 0);
    put(out.fd, out.segments, (size_t)out.count * sizeof *out.segments, sizeof header);
    if (ftruncate(out.fd, out.end) < 0 || close(out.fd) < 0)
        fail(path);
}
