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
#define PLACE_DOWN(x) ((x) & ~(PLACE_ALIGNMENT - 1))
#define PLACE_UP(x) PLACE_DOWN((x) + PLACE_ALIGNMENT - 1)
/* Of what a process allocates anew, so much should lie in the same huge page. */
#define FRESH (256UL << 10)

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

/* No start should copy more than a few megabytes. */
#define LARGEST_COPY (16UL << 20)

/* layout.ld: where the data begins that a start uses; the region of placed blocks follows. */
extern char code_from[], front_from[], region_to[];
extern const char __ehdr_start[]; /* the linker's: the first byte of the executable */
#define FRONT ((unsigned long)front_from)

/* What the seed leaves for the image. Not in the front, which is replaced while this is read. */
static struct {
    unsigned long thread;  /* the FS base: glibc's thread structure, in the heap */
    int *tid;              /* where glibc keeps the thread's id */
    void *robust;          /* the robust futex list, and its size */
    size_t robust_size;
    PyObject *entry;       /* what to call: entry(argv, environ, ignored) */
    const char *plain;     /* the launcher of plain Python */
    size_t content, huge;  /* of the front: what isn't zero, and what may be huge pages */
    unsigned long data, data_end, heap, heap_end; /* set if page faults are to tell what is used */
    unsigned char full[LARGEST_COPY / PAGE / 8]; /* a bit for each page of it that isn't zero */
} saved __attribute__((section(".back")));

/* ---- The image's start. ---- */

/* Tell whether a command uses most of the front, not a part of it. Only its speed depends on it. */
static int is_long(char **argv)
{
    static const char *const words[] = { "create", "run", "exec" };
    for (; *argv; argv++)
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            /* Not strcmp(3), whose address is part of the front. */
            const char *a = *argv, *b = words[i];
            while (*a && *a == *b)
                a++, b++;
            if (*a == *b)
                return 1;
        }
    return 0;
}

/*
 * Copy the front into memory of its own, instead of page by page when each is written to. One fault
 * for a huge page, where the kernel has one to spare, costs as much as some hundred for small ones.
 * The content is mapped a second time, at PLACE_FAR, one page further on (add_front).
 */
static void copy_front(void)
{
    unsigned long copied = saved.content < saved.huge ? saved.content : saved.huge;

    RAW(madvise, PLACE_FAR, PLACE_UP(saved.content + PAGE), MADV_HUGEPAGE, 0);
    if (raw(__NR_mmap, (long)FRONT, (long)saved.huge, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (long)FRONT)
        return;
    RAW(madvise, FRONT, saved.huge, MADV_HUGEPAGE, 0);
    for (unsigned long at = 0; at < copied; at += PAGE)
        if (saved.full[at / PAGE / 8] & 1 << at / PAGE % 8) {
            unsigned long to = FRONT + at, from = PLACE_FAR + PAGE + at, words = PAGE / 8;
            __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
        }
    RAW(munmap, PLACE_FAR, PLACE_UP(saved.content + PAGE), 0, 0);
}

/* Have the kernel read and map just the pages that are used, for profile.py. */
static void map_only_what_is_used(void)
{
    RAW(madvise, saved.data, saved.data_end - saved.data, MADV_RANDOM, 0);
    RAW(madvise, saved.heap, saved.heap_end - saved.heap, MADV_RANDOM, 0);
    RAW(madvise, PLACE_FAR, PLACE_FAR_ROOM, MADV_RANDOM, 0);
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
    if (!saved.content)
        map_only_what_is_used();
    else if (is_long(argv))
        copy_front();
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
    _exit(run(argv, envp));
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

/* AFTER: another program to run; FAR: anything if the last list is far. "" for none of it. */
enum argument {
    OUTPUT = 1, PLAIN, HASH_SEED, SEED_PY, AFTER, LISTS, FAR = LISTS + PLACE_LISTS, RECORD, SEARCH_PATH
};

/* With a page for each block, the question is which pages are copied when they are used. */
static int spread(char **argv)
{
    return *argv[FAR] != 0;
}

static void start_python(int argc, char **argv)
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
    place_start(argv + LISTS, argv[RECORD], spread(argv));
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
    const size_t arena = 1 << 20, smallest = 16, largest_pooled = 512, largest = 1 << 16;
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
    char *piece = mmap(NULL, PLACE_ALIGNMENT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);
    if (piece == MAP_FAILED)
        fail("mmap");
    for (; from < to; from += PLACE_ALIGNMENT, offset += (off_t)PLACE_ALIGNMENT) {
        size_t size = to - from < PLACE_ALIGNMENT ? to - from : PLACE_ALIGNMENT;
        memcpy(piece, (void *)from, size);
        memset(piece + size, 0, PLACE_ALIGNMENT - size);
        put(fd, piece, PLACE_ALIGNMENT, offset);
    }
    munmap(piece, PLACE_ALIGNMENT);
    return offset;
}

/* Note which pages of the front have content: before the data, with the notes, is saved. */
static void look_at_front(unsigned long placed_to)
{
    unsigned long room = (unsigned long)place_take(0) - FRONT;

    saved.huge = PLACE_DOWN(placed_to - FRONT + FRESH);
    if (!saved.huge)
        saved.huge = PLACE_ALIGNMENT;
    if (room > LARGEST_COPY) {
        fprintf(stderr, "image: %lu bytes of placed blocks\n", room);
        exit(1);
    }
    for (unsigned long at = 0; at < room; at += PAGE)
        if (memcmp((void *)(FRONT + at), zero, PAGE)) {
            saved.full[at / PAGE / 8] |= (unsigned char)(1 << at / PAGE % 8);
            saved.content = at + PAGE;
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
 * Add the front, and return its content's second mapping, for copy_front. Of that the page cache may
 * have huge pages; the front itself is one page off, so that they don't fit: who uses a little of it
 * shall get little of it.
 */
static Elf64_Phdr add_front(unsigned long room_to)
{
    off_t begin = (off_t)PLACE_UP((unsigned long)out.end);
    Elf64_Phdr front = segment(FRONT, room_to, begin + (off_t)PAGE);
    Elf64_Phdr again = segment(PLACE_FAR, PLACE_FAR + PLACE_UP(saved.content + PAGE), begin);

    front.p_filesz = saved.content;
    again.p_flags = PF_R;
    out.segments[out.count++] = front;
    out.end = put_huge(out.fd, FRONT - PAGE, FRONT + saved.content, begin);
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

/*
 * Write the image. Nothing may be allocated from here on: the heap is being copied. placed_to is the
 * end of the placed blocks, if the front is to be copied.
 */
static void dump(const char *path, unsigned long placed_to)
{
    const Elf64_Ehdr *seed = (const Elf64_Ehdr *)__ehdr_start;
    const Elf64_Phdr *old = (const Elf64_Phdr *)(__ehdr_start + seed->e_phoff);
    Elf64_Ehdr header = *seed;
    Elf64_Phdr again;
    unsigned long data_from = 0, data_to = 0, heap_from;

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
    saved.data = data_from;
    saved.data_end = data_to;
    saved.heap = heap_from;
    saved.heap_end = PAGE_UP((unsigned long)sbrk(0));
    if (placed_to)
        look_at_front(placed_to);
    if (saved.content) {
        add(data_from, FRONT);
        again = add_front(PAGE_UP((unsigned long)place_take(0)));
        add((unsigned long)region_to, data_to);
    } else {
        add(data_from, data_to);
    }
    /* Without address randomisation the heap follows the data; otherwise there is a gap. */
    add(heap_from, saved.heap_end);
    if (saved.content)
        out.segments[out.count++] = again;
    else
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

int main(int argc, char **argv)
{
    if (argc <= SEARCH_PATH) {
        fprintf(stderr,
                "usage: %s OUTPUT PLAIN HASH_SEED SEED.PY AFTER.PY LIST LIST LIST FAR RECORD"
                " SEARCH_PATH...\n",
                argv[0]);
        return 2;
    }
    saved.plain = strdup(argv[PLAIN]);
    start_python(argc, argv);
    plant(argv[SEED_PY], argv[AFTER]);
    unsigned long placed_to = (unsigned long)place_take(0);
    arenas_are_placed = 1;
    fill_holes();
    arenas_are_placed = 0;
    save_thread();
    dump(argv[OUTPUT], spread(argv) ? 0 : placed_to);
    /* Not exit(): nothing of the interpreter is to run again in this process. */
    _exit(0);
}
