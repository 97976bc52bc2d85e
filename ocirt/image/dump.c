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

extern const char __ehdr_start[]; /* the linker's: the first byte of the executable */

#define PAGE_DOWN(x) ((x) & ~(PAGE - 1))
#define PAGE_UP(x) PAGE_DOWN((x) + PAGE - 1)

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

static Elf64_Phdr segment(unsigned long from, unsigned long to, off_t offset, unsigned int flags)
{
    Elf64_Phdr p = { .p_type = PT_LOAD, .p_flags = flags, .p_align = PAGE };
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

/*
 * The image's file, while it is written: what a start hardly uses comes first, what every start uses last,
 * so that whatever the kernel reads ahead of that ends with the file.
 */
static struct {
    int fd;
    off_t cold, hot; /* where each goes on */
    int count;
    Elf64_Phdr segments[40];
} out;

static void add(unsigned long from, unsigned long to, unsigned int flags)
{
    Elf64_Phdr *p = &out.segments[out.count++];

    *p = segment(from, to, out.cold, flags);
    p->p_filesz = content_end(from, to) - from;
    if (!(flags & PF_W))
        p->p_memsz = p->p_filesz; /* or the kernel would add memory that can be written to, and executed */
    put_pages(out.fd, from, from + p->p_filesz, out.cold);
    out.cold += (off_t)p->p_filesz;
}

static void add_hot(unsigned long from, unsigned long to, unsigned int flags)
{
    out.segments[out.count++] = segment(from, HUGE_PAGE_UP(to), out.hot, flags);
    out.hot = put_huge(out.fd, from, to, out.hot);
}

/*
 * Add code or constants, as they are in the seed. Code that is hardly used isn't to be had in huge pages:
 * with one function one would get them all.
 */
static void add_constant(const Elf64_Phdr *p)
{
    unsigned long from = p->p_vaddr, to = PAGE_UP(p->p_vaddr + p->p_filesz);

    if (p->p_offset == 0) { /* the header, which dump writes */
        out.segments[out.count++] = segment(from, from + PAGE, 0, PF_R | PF_X);
        put(out.fd, image_boot, (size_t)(image_boot_end - image_boot), BOOT);
        return;
    }
    if (from < (unsigned long)code_from && to > (unsigned long)code_from) {
        add(from, (unsigned long)code_from, p->p_flags);
        from = (unsigned long)code_from;
    }
    add_hot(from, to, p->p_flags);
}

static void add_data(unsigned long from, unsigned long to)
{
    if (from < to)
        add(from, to, PF_R | PF_W);
}

void dump(const char *path, enum mode mode)
{
    const Elf64_Ehdr *seed = (const Elf64_Ehdr *)__ehdr_start;
    const Elf64_Phdr *old = (const Elf64_Phdr *)(__ehdr_start + seed->e_phoff), *end = old + seed->e_phnum;
    const Elf64_Phdr *data = old;
    Elf64_Ehdr header = *seed;
    unsigned long far_to = mode == SPREAD ? PAGE_UP((unsigned long)place_far_end()) : PLACE_FAR;

    while (data->p_type != PT_LOAD || !(data->p_flags & PF_W))
        data++;
    unsigned long data_to = PAGE_UP(data->p_vaddr + data->p_memsz);
    unsigned long used_to = (unsigned long)place_take(0), region = (unsigned long)region_to;
    unsigned long heap_from = find_heap(FRONT, data_to), heap_to = PAGE_UP((unsigned long)sbrk(0));
    if (mode != REAL) {
        watched[0] = (struct watched){ FRONT, data_to };
        watched[1] = (struct watched){ heap_from, heap_to };
        watched[2] = (struct watched){ PLACE_FAR, far_to };
    }

    out.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    if (out.fd < 0)
        fail(path);
    out.cold = PAGE;
    /* Behind all that add() could take. */
    out.hot = (off_t)HUGE_PAGE_UP((unsigned long)(code_from - __ehdr_start) + used_to - FRONT + data_to -
                                  region + heap_to - heap_from + far_to - PLACE_FAR);
    for (; old < end; old++)
        if (old->p_type == PT_GNU_STACK)
            out.segments[out.count++] = *old; /* or the stack would be executable */
        else if (old->p_type == PT_LOAD && old != data)
            add_constant(old);
    add_hot(FRONT, FRONT + HUGE_PAGE, PF_R | PF_W);
    add_data(FRONT + HUGE_PAGE, used_to);
    add_data(region, data_to);
    /* Without address randomisation the heap follows the data; otherwise there is a gap. */
    add_data(heap_from, heap_to);
    add_data(PLACE_FAR, far_to);

    header.e_entry = (unsigned long)__ehdr_start + BOOT;
    header.e_phoff = sizeof header;
    header.e_phnum = (uint16_t)out.count;
    /* The old table of sections would describe the old file. */
    header.e_shoff = 0;
    header.e_shnum = header.e_shstrndx = 0;
    put(out.fd, &header, sizeof header, 0);
    put(out.fd, out.segments, (size_t)out.count * sizeof *out.segments, sizeof header);
    if (ftruncate(out.fd, out.hot) < 0 || close(out.fd) < 0)
        fail(path);
}
