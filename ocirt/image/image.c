/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * An interpreter that is saved after it has imported everything, and goes on from there.
 *
 * As a normal program ("the seed") this initialises CPython, lets seed.py import the application,
 * and writes a copy of its own executable in which the data segment and the heap are the ones in
 * memory. That copy is the image. Its entry point is image_entry, not glibc's: glibc and CPython
 * are initialised already, and what belonged to the seed's process (thread pointer, tid, stack,
 * environment, vDSO) is replaced by what belongs to this one.
 *
 * docs/image.md explains the method; build.py finds what depends on the versions of glibc and
 * CPython, and writes it into found.h.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <asm/prctl.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * INIT_FUNCTIONS(X): the built-in modules; VDSO_POINTERS(X): glibc's pointers into the vDSO;
 * BOOTSTRAP_MODULES(X): modules that have to be there before any can be imported.
 */
#include "found.h"
#include "../kernel/raw.h"
#include "place.h"

#define PAGE 4096UL
#define PAGE_DOWN(x) ((x) & ~(PAGE - 1))
#define PAGE_UP(x) PAGE_DOWN((x) + PAGE - 1)
#define HUGE_PAGE (2UL << 20)
#define HUGE_PAGE_UP(x) (((x) + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1))
/* Copying the whole front into a huge page pays for a command that writes to so many of its pages. */
#define MANY 200

/* ---- CPython's table of built-in modules: ours, so that unused ones aren't linked in. ---- */

#define X(name, function) extern PyObject *function(void);
INIT_FUNCTIONS(X)
#undef X
static PyObject *init_image(void);

struct _inittab _PyImport_Inittab[] = {
#define X(name, function) { name, function },
    INIT_FUNCTIONS(X)
#undef X
    { "_image", init_image },
    /* CPython makes these two itself and only looks whether they are in the table. */
    { "builtins", NULL },
    { "sys", NULL },
    { NULL, NULL },
};

/* ---- The modules that import others: as code to unmarshal, not as CPython's ready-made objects.
   Those lie scattered in a megabyte of data, and their names would be everybody's; what is
   unmarshalled are blocks like others (place.h). ---- */

#if PY_VERSION_HEX < 0x030D0000 /* later versions do it so themselves */
extern const struct _frozen *_PyImport_FrozenBootstrap;

/* The linker puts this in the place of CPython's (--wrap), which hands the names out. */
int __wrap__Py_Deepfreeze_Init(void);
int __wrap__Py_Deepfreeze_Init(void)
{
    return 0;
}

static void choose_bootstrap_modules(void)
{
    static const struct _frozen modules[] = {
#define X(n, c) { .name = n, .code = c, .size = sizeof c },
        BOOTSTRAP_MODULES(X)
#undef X
        { 0 },
    };
    _PyImport_FrozenBootstrap = modules;
}
#else
static void choose_bootstrap_modules(void)
{
}
#endif

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

/* layout.ld: where code and data begin that a start uses; the region of placed blocks follows. */
extern char code_from[], front_from[], region_to[];
extern const char __ehdr_start[]; /* the linker's: the first byte of the executable */
#define FRONT ((unsigned long)front_from)

/*
 * Which pages a command writes to. placement.py finds them out, and writes this as a file: the names,
 * each with the end of its ranges among all of them, then the ranges, both padded with zeros.
 */
struct written {
    struct {
        char name[12];
        uint32_t end;
    } commands[16];
    struct {
        uint32_t page, count;
    } ranges[4096];
};

/* What the seed leaves for the image. Not in the front, which is replaced while this is read. */
static struct {
    unsigned long thread;  /* the FS base: glibc's thread structure, in the heap */
    int *tid;              /* where glibc keeps the thread's id */
    void *robust;          /* the robust futex list, and its size */
    size_t robust_size;
    PyObject *entry;       /* what to call: entry(argv, environ, ignored) */
    const char *plain;     /* the launcher of plain Python */
    size_t front;          /* how much of it isn't zero, up to a huge page */
    unsigned char full[HUGE_PAGE / PAGE / 8]; /* a bit for each page of it that isn't zero */
    struct written written;
} saved __attribute__((section(".back")));

/* ---- The image's start. ---- */

static int same(const char *a, const char *b)
{
    for (; *a && *a == *b; a++)
        b++;
    return *a == *b;
}

/*
 * Put a huge page in the front's place, where the kernel has one to spare, with the same content: it
 * costs as much as some hundred small ones. The content is mapped a second time, at PLACE_FAR, one page
 * further on (add_front).
 */
static void copy_front(void)
{
    RAW(madvise, PLACE_FAR, HUGE_PAGE_UP(saved.front + PAGE), MADV_HUGEPAGE, 0);
    if (raw(__NR_mmap, (long)FRONT, HUGE_PAGE, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (long)FRONT)
        return;
    RAW(madvise, FRONT, HUGE_PAGE, MADV_HUGEPAGE, 0);
    for (unsigned long at = 0; at < saved.front; at += PAGE)
        if (saved.full[at / PAGE / 8] & 1 << at / PAGE % 8) {
            unsigned long to = FRONT + at, from = PLACE_FAR + PAGE + at, words = PAGE / 8;
            __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
        }
    RAW(munmap, PLACE_FAR, HUGE_PAGE_UP(saved.front + PAGE), 0, 0);
}

/*
 * Have the kernel copy at once the pages that the command will write to: each would be a fault of its
 * own, which takes longer. Only speed depends on it: a word may be the value of an option, and
 * kernels before 5.14 don't know the advice.
 */
static void write_ahead(char **argv)
{
    const struct written *w = &saved.written;
    unsigned int from = 0, to = 0, many = 0;

    for (; *argv && !to; argv++)
        for (unsigned int i = 0, at = 0; w->commands[i].end && !to; at = w->commands[i++].end)
            if (same(*argv, w->commands[i].name))
                from = at, to = w->commands[i].end;
    for (unsigned int i = from; i < to; i++)
        if (w->ranges[i].page - FRONT / PAGE < HUGE_PAGE / PAGE)
            many += w->ranges[i].count;
    if (many > MANY)
        copy_front();
    for (; from < to; from++)
        if (many <= MANY || w->ranges[from].page - FRONT / PAGE >= HUGE_PAGE / PAGE)
            RAW(madvise, w->ranges[from].page * PAGE, w->ranges[from].count * PAGE,
                MADV_POPULATE_WRITE, 0);
}

/* ---- An image that tells which of its pages are used, for placement.py; all else is the real one's. ---- */

static struct { unsigned long from, to; } watched[3]; /* data, heap, blocks far away; none: don't tell */
static int used_pages = -1;                           /* the file that gets them */

/* Have the kernel read and map just the pages that are used. */
static void watch(void)
{
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++)
        RAW(madvise, watched[i].from, watched[i].to - watched[i].from, MADV_RANDOM, 0);
}

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
    if (watched->to)
        watch();
    write_ahead(argv);
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
 * of it is touched: code and constants here, the front's content in copy_front.
 */
__asm__(".globl image_boot, image_boot_end\nimage_boot:\n mov $28, %eax\n" /* madvise(2) */
        " mov $code_from, %edi\n mov $code_to, %esi\n sub %edi, %esi\n"
        " mov $14, %edx\n syscall\n" /* MADV_HUGEPAGE */
        " mov $image_entry, %eax\n jmp *%rax\nimage_boot_end:\n"
        "image_entry:\n xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n"
        " call image_start\n hlt\n");
extern const char image_boot[], image_boot_end[];
/* Behind the program headers, in the first page of the file. */
#define BOOT 0xf00

/* ---- The module _image: that it exists tells the application how it was started. ---- */

static PyObject *stop_placing(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    place_stop();
    Py_RETURN_NONE;
}

static PyMethodDef image_methods[] = {
    { "stop_placing", stop_placing, METH_NOARGS, "For the seed: see place.h, place_stop()." },
    { NULL, NULL, 0, NULL },
};

static PyModuleDef image_module = {
    PyModuleDef_HEAD_INIT, "_image", "The pre-initialised executable.", -1,
    image_methods, NULL, NULL, NULL, NULL,
};

static PyObject *init_image(void)
{
    PyObject *m = PyModule_Create(&image_module);
    if (m && PyModule_AddStringConstant(m, "plain", saved.plain) < 0)
        Py_CLEAR(m);
    return m;
}

/* ---- The seed. ---- */

static void fail(const char *what)
{
    fprintf(stderr, "image: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Set when the arena that the image allocates from is made: it lies beside what is placed. */
static int arenas_are_placed;

/* pymalloc's arenas come from the heap, not from mmap(2): only the heap is saved. */
static void *arena_alloc(void *ctx, size_t size)
{
    (void)ctx;
    void *p = arenas_are_placed ? place_take(size) : NULL;
    return p ? p : aligned_alloc(PAGE, size);
}

static void arena_free(void *ctx, void *p, size_t size)
{
    (void)ctx;
    (void)size;
    if (!place_holds(p))
        free(p);
}

static void check(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

/* AFTER: another program to run; WRITTEN: struct written. "" for none of it. */
enum argument {
    OUTPUT = 1, PLAIN, HASH_SEED, SEED_PY, AFTER, LISTS, MODE = LISTS + PLACE_LISTS, RECORD, WRITTEN,
    SEARCH_PATH
};

/* Whether the image is to tell which pages are used; and if, with each block of the last list on pages
   of its own, which blocks. */
enum mode { REAL, PROFILE, SPREAD };

static enum mode mode_of(const char *word)
{
    return !*word ? REAL : same(word, "spread") ? SPREAD : PROFILE;
}

static void read_written(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file || fread(&saved.written, sizeof saved.written, 1, file) != 1)
        fail(path);
    fclose(file);
}

static void start_python(int argc, char **argv, enum mode mode)
{
    PyObjectArenaAllocator arena = { NULL, arena_alloc, arena_free };
    PyPreConfig pre;
    PyConfig config;

    /* Everything from the heap, whatever its size, and nothing given back to the kernel. */
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    PyObject_SetArenaAllocator(&arena);

    choose_bootstrap_modules();
    PyPreConfig_InitIsolatedConfig(&pre);
    pre.utf8_mode = 1; /* file names and arguments are UTF-8 whatever the locale of the build */
    check(Py_PreInitialize(&pre));
    place_start(argv + LISTS, argv[RECORD], mode == SPREAD);
    PyConfig_InitIsolatedConfig(&config);
    config.use_hash_seed = 1;
    config.hash_seed = strtoul(argv[HASH_SEED], NULL, 10);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.use_frozen_modules = 0; /* os and others in the heap, where blocks can be placed */
    config.optimization_level = 2; /* no docstrings: nothing prints them */
    config.module_search_paths_set = 1;
    /* Given, so that CPython doesn't search the build machine for them. */
    check(PyConfig_SetString(&config, &config.executable, L"ocirt"));
    check(PyConfig_SetString(&config, &config.program_name, L"ocirt"));
    check(PyConfig_SetString(&config, &config.home, L""));
    check(PyConfig_SetString(&config, &config.prefix, L""));
    check(PyConfig_SetString(&config, &config.exec_prefix, L""));
    check(PyConfig_SetString(&config, &config.base_prefix, L""));
    check(PyConfig_SetString(&config, &config.base_exec_prefix, L""));
    for (int i = SEARCH_PATH; i < argc; i++) {
        wchar_t *path = Py_DecodeLocale(argv[i], NULL);
        check(PyWideStringList_Append(&config.module_search_paths, path));
        PyMem_RawFree(path);
    }
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
}

static void run_file(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        fail(path);
    if (PyRun_SimpleFile(file, path) < 0)
        exit(1);
    fclose(file);
}

/* Run seed.py, and what comes after it, and keep what they call entry. */
static void plant(const char *path, const char *after)
{
    PyObject *main_module = PyImport_AddModule("__main__");
    run_file(path);
    if (*after)
        run_file(after);
    saved.entry = main_module ? PyObject_GetAttrString(main_module, "entry") : NULL;
    if (!saved.entry) {
        PyErr_Print();
        exit(1);
    }
}

/*
 * Find where glibc keeps the thread's id: the one int of the thread structure that is our tid, and
 * in a forked child the child's. The structure is below 4096 bytes in every glibc.
 */
static int *find_tid(void)
{
    int *words = (int *)saved.thread, *found = NULL;
    int count = (int)(PAGE / sizeof *words), pipe_ends[2], matches = 0;
    char same[PAGE / sizeof *words];

    if (pipe(pipe_ends) < 0)
        fail("pipe");
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < count; i++)
            same[i] = words[i] == (int)syscall(SYS_gettid);
        _exit(write(pipe_ends[1], same, sizeof same) != sizeof same);
    }
    if (child < 0 || read(pipe_ends[0], same, sizeof same) != sizeof same)
        fail("fork");
    for (int i = 0; i < count; i++)
        if (same[i] && words[i] == (int)syscall(SYS_gettid)) {
            found = &words[i];
            matches++;
        }
    if (matches != 1) {
        fprintf(stderr, "image: %d places in glibc's thread structure look like the tid\n", matches);
        exit(1);
    }
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return found;
}

/*
 * Use up what is free inside the heap, so that the image allocates from fresh pages at its end:
 * otherwise each small object would come from another half-used page, and every page that is
 * written to costs a fault and a copy. What is taken here is never given back.
 */
static void fill_holes(void)
{
    const size_t arena = 1 << 20, smallest = 16, largest_pooled = 512, largest = 1 << 16,
                 fresh = 1 << 20;
    char *end = sbrk(0), *p;

    /* pymalloc: until a block of each size class lies in an arena that is new. */
    for (size_t size = smallest; size <= largest_pooled; size += smallest)
        do
            p = PyObject_Malloc(size);
        while (p && p < end && !place_holds(p));
    /* malloc, big blocks first: until a block of each size comes from beyond the last free one. */
    end = (char *)sbrk(0) - arena;
    for (size_t size = largest; size >= smallest; size -= smallest) {
        while ((p = malloc(size)) && p < end)
            ;
        free(p);
    }
    /* What comes next begins at the same place, even if another image had imported a little more. */
    p = malloc(smallest);
    unsigned long here = (unsigned long)p + 2 * smallest, next = HUGE_PAGE_UP(here);
    if (!p || !malloc(next - here + smallest / 2) || !(p = malloc(fresh)))
        fail("malloc");
    free(p);
}

static void save_thread(void)
{
    if (syscall(SYS_arch_prctl, ARCH_GET_FS, &saved.thread) < 0)
        fail("arch_prctl");
    saved.tid = find_tid();
    if (syscall(SYS_get_robust_list, 0, &saved.robust, &saved.robust_size) < 0)
        fail("get_robust_list");
}

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

/* Note which pages of the front have content: before the data, with the notes, is saved. */
static void look_at_front(void)
{
    for (unsigned long at = 0; at < HUGE_PAGE; at += PAGE)
        if (memcmp((void *)(FRONT + at), zero, PAGE)) {
            saved.full[at / PAGE / 8] |= (unsigned char)(1 << at / PAGE % 8);
            saved.front = at + PAGE;
        }
}

/* The image's file, while it is written. */
static struct {
    int fd;
    off_t end;
    int count;
    Elf64_Phdr segments[40];
} out;

/* Add memory to the image, as data of its own. Zeros at the end are the kernel's business. */
static void add(unsigned long from, unsigned long to)
{
    Elf64_Phdr *p = &out.segments[out.count++];

    *p = segment(from, to, out.end);
    while (p->p_filesz && !memcmp((void *)(from + p->p_filesz - PAGE), zero, PAGE))
        p->p_filesz -= PAGE;
    put_pages(out.fd, from, from + p->p_filesz, out.end);
    out.end += (off_t)p->p_filesz;
}

/*
 * Add the front, and return the second mapping of what copy_front copies. Of that the page cache may
 * have huge pages; the front itself is one page off, so that they don't fit: who uses a little of it
 * shall get little of it.
 */
static Elf64_Phdr add_front(void)
{
    off_t begin = (off_t)HUGE_PAGE_UP((unsigned long)out.end);
    unsigned long to = PAGE_UP((unsigned long)place_take(0)), end = to;
    Elf64_Phdr front = segment(FRONT, to, begin + (off_t)PAGE);
    Elf64_Phdr again = segment(PLACE_FAR, PLACE_FAR + HUGE_PAGE_UP(saved.front + PAGE), begin);

    while (!memcmp((void *)(end - PAGE), zero, PAGE))
        end -= PAGE;
    front.p_filesz = end - FRONT;
    again.p_flags = PF_R;
    out.segments[out.count++] = front;
    out.end = put_huge(out.fd, FRONT - PAGE, end, begin);
    return again;
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

/* Write the image. Nothing may be allocated from here on: the heap is being copied. */
static void dump(const char *path, enum mode mode)
{
    const Elf64_Ehdr *seed = (const Elf64_Ehdr *)__ehdr_start;
    const Elf64_Phdr *old = (const Elf64_Phdr *)(__ehdr_start + seed->e_phoff);
    Elf64_Ehdr header = *seed;
    Elf64_Phdr again;
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
    heap_to = PAGE_UP((unsigned long)sbrk(0));
    if (mode != REAL) {
        watched[0].from = data_from;
        watched[0].to = data_to;
        watched[1].from = heap_from;
        watched[1].to = heap_to;
    }
    if (mode == SPREAD) {
        watched[2].from = PLACE_FAR;
        watched[2].to = PAGE_UP((unsigned long)place_far_end());
    }
    look_at_front();
    add(data_from, FRONT);
    again = add_front();
    add((unsigned long)region_to, data_to);
    /* Without address randomisation the heap follows the data; otherwise there is a gap. */
    add(heap_from, heap_to);
    if (mode == SPREAD)
        add(PLACE_FAR, PAGE_UP((unsigned long)place_far_end()));
    else
        out.segments[out.count++] = again;

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

int main(int argc, char **argv)
{
    if (argc <= SEARCH_PATH) {
        fprintf(stderr,
                "usage: %s OUTPUT PLAIN HASH_SEED SEED.PY AFTER.PY LIST LIST LIST MODE RECORD"
                " WRITTEN SEARCH_PATH...\n",
                argv[0]);
        return 2;
    }
    enum mode mode = mode_of(argv[MODE]);
    saved.plain = strdup(argv[PLAIN]);
    if (*argv[WRITTEN])
        read_written(argv[WRITTEN]);
    start_python(argc, argv, mode);
    plant(argv[SEED_PY], argv[AFTER]);
    arenas_are_placed = 1;
    fill_holes();
    arenas_are_placed = 0;
    save_thread();
    dump(argv[OUTPUT], mode);
    /* Not exit(): nothing of the interpreter is to run again in this process. */
    _exit(0);
}
