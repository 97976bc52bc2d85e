/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * How the image begins. Its entry point is image_boot, not glibc's: glibc and CPython are initialised
 * already, and what belonged to the seed's process (thread pointer, tid, stack, environment, vDSO) is
 * replaced by what belongs to this one.
 *
 * docs/image.md explains the method.
 */
#include "image.h"
#include <asm/prctl.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vdso.h" /* VDSO_POINTERS(X): glibc's pointers into the vDSO */
#include "../kernel/raw.h"
#include "place.h"

struct saved saved __attribute__((section(".back")));

/* ---- What glibc remembers of the process; all of it is linked statically, so it has names. ---- */

extern void *__curbrk;          /* the end of the heap, as sbrk(2) believes */
extern void *__libc_stack_end;  /* for pthread_getattr_np(3) */
extern void *_dl_random;        /* AT_RANDOM: 16 random bytes on the stack */
extern Elf64_auxv_t *_dl_auxv;  /* for getauxval(3) */
extern const char *_dl_platform;/* AT_PLATFORM: a string on the stack */
extern size_t _dl_minsigstacksize; /* AT_MINSIGSTKSZ: depends on the CPU, sysconf(3) tells it */
extern const Elf64_Phdr *_dl_phdr; /* AT_PHDR: the image's differ from the seed's */
extern size_t _dl_phnum;
extern int __libc_enable_secure; /* AT_SECURE */
extern char **_dl_argv;          /* for messages of glibc's own */
extern char **__libc_argv;
extern int __libc_argc;
extern const ptrdiff_t __rseq_offset; /* of the rseq area from the thread pointer */
extern const unsigned int __rseq_size; /* 0 if glibc didn't register it */
#define X(name) extern void *name;
VDSO_POINTERS(X)
#undef X

/* Registered areas have this size and this signature in every glibc (sys/rseq.h). */
#define RSEQ_AREA 32
#define RSEQ_SIGNATURE 0x53053053

/* Return the index of the command among those of saved.used, or of the empty one that ends these. */
static unsigned int command(char **argv)
{
    const struct used *u = &saved.used;

    for (; *argv; argv++)
        for (unsigned int i = 0; u->commands[i].end; i++)
            if (same(*argv, u->commands[i].name))
                return i;
    return sizeof u->commands / sizeof *u->commands - 1;
}

static unsigned int first_range(unsigned int which)
{
    return which ? saved.used.commands[which - 1].end : 0;
}

/*
 * If the page cache hasn't what a command will use besides what comes in huge pages, have the kernel read
 * all of it at once: one page after the other, as they are used, takes several times as long.
 */
static void read_ahead(unsigned int which)
{
    const struct used *u = &saved.used;
    unsigned int i = first_range(which), end = u->commands[which].end;
    unsigned char there;

    /* The last of them stands for all: this very code has used some that come before. */
    if (i >= end || RAW(mincore, u->ranges[end - 1].page * PAGE, PAGE, &there, 0) != 0 || there & 1)
        return;
    for (; i < end; i++)
        if (u->ranges[i].page * PAGE >= FRONT + HUGE_PAGE)
            RAW(madvise, u->ranges[i].page * PAGE, (u->ranges[i].count & ~ONLY_READ) * PAGE,
                MADV_WILLNEED, 0);
}

/*
 * Have the kernel copy at once the pages that a command will write to: each would be a fault of its
 * own, which takes longer. Only speed depends on it: a word may be the value of an option, and
 * kernels before 5.14 don't know the advice.
 */
static void write_ahead(unsigned int which)
{
    const struct used *u = &saved.used;

    for (unsigned int i = first_range(which); i < u->commands[which].end; i++)
        if (!(u->ranges[i].count & ONLY_READ))
            RAW(madvise, u->ranges[i].page * PAGE, u->ranges[i].count * PAGE, MADV_POPULATE_WRITE, 0);
}

/* ---- An image that tells which of its pages are used, for placement.py; all else is the real one's. ---- */

struct watched watched[3] __attribute__((section(".back")));
static int used_pages = -1; /* the file that gets their addresses */

/* Append the addresses of these pages, 8 bytes each; of a page that was written to, 1 more. */
static void tell(void)
{
    enum { PRESENT = 63, OF_FILE = 61 }; /* bits: proc_pid_pagemap(5) */
    uint64_t entries[PAGE / sizeof(uint64_t)];
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++)
        for (unsigned long at = watched[i].from, left; (left = (watched[i].to - at) / PAGE);) {
            size_t count = sizeof entries / sizeof *entries;
            count = left < count ? left : count;
            if (pread(pagemap, entries, count * sizeof *entries,
                      (off_t)(at / PAGE * sizeof *entries)) != (ssize_t)(count * sizeof *entries))
                _exit(1);
            for (size_t n = 0; n < count; n++, at += PAGE) {
                uint64_t used = at | !(entries[n] >> OF_FILE & 1);
                if (entries[n] >> PRESENT && write(used_pages, &used, sizeof used) != sizeof used)
                    _exit(1);
            }
        }
    close(pagemap);
}

/* The linker puts this in the place of glibc's (--wrap): so init ends, to become the stub. */
int __real_fexecve(int fd, char *const argv[], char *const envp[]);
int __wrap_fexecve(int fd, char *const argv[], char *const envp[]);
int __wrap_fexecve(int fd, char *const argv[], char *const envp[])
{
    if (used_pages >= 0)
        tell();
    return __real_fexecve(fd, argv, envp);
}

static void refresh_auxv(Elf64_auxv_t *auxv)
{
    _dl_auxv = auxv;
    for (; auxv->a_type != AT_NULL; auxv++) {
        void *value = (void *)auxv->a_un.a_val;
        if (auxv->a_type == AT_RANDOM)
            _dl_random = value;
        else if (auxv->a_type == AT_PLATFORM)
            _dl_platform = value;
        else if (auxv->a_type == AT_MINSIGSTKSZ)
            _dl_minsigstacksize = auxv->a_un.a_val;
        else if (auxv->a_type == AT_PHDR)
            _dl_phdr = value;
        else if (auxv->a_type == AT_PHNUM)
            _dl_phnum = auxv->a_un.a_val;
        else if (auxv->a_type == AT_SECURE)
            __libc_enable_secure = (int)auxv->a_un.a_val;
    }
}

/* Compiled without stack protector (build.py): it changes the canary under its own feet. */
static void refresh_thread(void)
{
    uint64_t canary;
    uint32_t *rseq = (uint32_t *)(saved.thread + (unsigned long)__rseq_offset);

    /* As glibc does: 8 of the random bytes, the first one 0 so that a string can't leak it. */
    memcpy(&canary, _dl_random, sizeof canary);
    canary &= ~(uint64_t)0xff;
    /* The place is part of the x86-64 ABI: GCC compiles it into every protected function. */
    __asm__ volatile("movq %0, %%fs:0x28" : : "r"(canary));

    *saved.tid = (int)RAW(set_tid_address, (long)saved.tid, 0, 0, 0);
    RAW(set_robust_list, (long)saved.robust, (long)saved.robust_size, 0, 0);
    if (__rseq_size) {
        memset(rseq, 0, RSEQ_AREA);
        rseq[1] = (uint32_t)-1; /* cpu_id: not registered; stays so if the kernel has no rseq */
        RAW(rseq, (long)rseq, RSEQ_AREA, 0, RSEQ_SIGNATURE);
    }
}

static PyObject *argument_list(char **argv)
{
    PyObject *list = PyList_New(0);
    for (; list && *argv; argv++) {
        PyObject *item = PyUnicode_DecodeFSDefault(*argv);
        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

/* As os.environ keeps them, and as Python reads them: of duplicates the first counts. */
static PyObject *variables_by_name(char **envp)
{
    PyObject *variables = PyDict_New();
    for (; variables && *envp; envp++) {
        const char *equals = strchr(*envp, '=');
        if (!equals)
            continue;
        PyObject *name = PyBytes_FromStringAndSize(*envp, equals - *envp);
        PyObject *value = PyBytes_FromString(equals + 1);
        if (!name || !value || !PyDict_SetDefault(variables, name, value))
            Py_CLEAR(variables);
        Py_XDECREF(name);
        Py_XDECREF(value);
    }
    return variables;
}

/* Return a mask of the signals that whoever started us has ignored: they are inherited so. */
static unsigned long long ignored_signals(void)
{
    unsigned long long mask = 0;
    for (int number = 1; number < 32; number++) {
        struct sigaction now;
        if (sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN)
            mask |= 1ULL << number;
    }
    return mask;
}

/* A function of its own, called when the canary is in place: it may have a protector. */
static int run(char **argv, char **envp)
{
    PyObject *arguments = argument_list(argv);
    PyObject *variables = variables_by_name(envp);
    PyObject *result = NULL;
    int status = 1;

    if (arguments && variables)
        result = PyObject_CallFunction(saved.entry, "OOK", arguments, variables,
                                       ignored_signals());
    if (result)
        status = (int)PyLong_AsLong(result);
    if (PyErr_Occurred())
        PyErr_Print();
    return status;
}

__attribute__((used)) void image_start(long *stack)
{
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    char **envp = argv + argc + 1;
    char **end = envp;

    while (*end)
        end++;
    /*
     * Of what lies scattered nothing ahead of what is used: else the kernel reads what the disk is set to.
     * Not of the rest: kernels before 5.18 would read it page by page, and from 6.3 on what is used by
     * such a mapping counts as unused when memory is short.
     */
    RAW(madvise, FRONT + HUGE_PAGE, PLACE_FAR + PLACE_FAR_ROOM - FRONT - HUGE_PAGE, MADV_RANDOM, 0);
    unsigned int which = command(argv);
    read_ahead(which);
    int slot = same(saved.used.commands[which].name, "create") ? take_slot() : -1;
    write_ahead(which);
    held_slot = slot;
    RAW(arch_prctl, ARCH_SET_FS, (long)saved.thread, 0, 0);
    refresh_auxv((Elf64_auxv_t *)(end + 1));
    refresh_thread();
    /* The old heap is data now; sbrk(2) has to ask the kernel where the new one begins. */
    __curbrk = NULL;
    /* Null means: make the system call. The vDSO is somewhere else in every process. */
#define X(name) name = NULL;
    VDSO_POINTERS(X)
#undef X
    __libc_stack_end = stack;
    environ = envp;
    __libc_argc = argc;
    __libc_argv = _dl_argv = argv;
    program_invocation_name = program_invocation_short_name = argv[0] ? argv[0] : (char *)"ocirt";
    if (watched->to) /* opened here: init will have another root directory */
        used_pages = open(getenv("OCIRT_PAGES"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    int status = run(argv, envp);
    if (used_pages >= 0)
        tell();
    _exit(status);
}

/*
 * The kernel enters with the stack pointer at argc, in a page apart from all others (BOOT). What isn't
 * in the page cache yet, it shall read and keep in huge pages, which this has to ask for before any
 * of it is touched: code and constants, and the front behind them.
 */
__asm__(".globl image_boot, image_boot_end\nimage_boot:\n mov $28, %eax\n" /* madvise(2) */
        " mov $code_from, %edi\n mov $front_from + 0x200000, %esi\n sub %edi, %esi\n"
        " mov $14, %edx\n syscall\n" /* MADV_HUGEPAGE */
        " mov $image_entry, %eax\n jmp *%rax\nimage_boot_end:\n"
        "image_entry:\n xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n"
        " call image_start\n hlt\n");
