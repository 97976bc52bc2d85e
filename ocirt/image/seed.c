/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * An interpreter that is saved after it has imported everything: "the seed".
 *
 * It initialises CPython, lets seed.py import the application, and writes a copy of its own executable
 * in which the data segment and the heap are the ones in memory (dump.c). That copy is the image; it
 * goes on in start.c.
 *
 * docs/image.md explains the method; build.py finds what depends on the versions of glibc and
 * CPython, and writes it into headers.
 */
#include "image.h"
#include <asm/prctl.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* INIT_FUNCTIONS(X): the built-in modules; BOOTSTRAP_MODULES(X): those that import others. */
#include "found.h"
#include "place.h"

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

/* ---- The interpreter. ---- */

void fail(const char *what)
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

/* AFTER: another program to run; USED: struct used. "" for none of it. */
enum argument {
    OUTPUT = 1, PLAIN, HASH_SEED, SEED_PY, AFTER, LISTS, MODE = LISTS + PLACE_LISTS, RECORD, USED,
    SEARCH_PATH
};

static enum mode mode_of(const char *word)
{
    return !*word ? REAL : same(word, "spread") ? SPREAD : PROFILE;
}

static void read_used(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file || fread(&saved.used, sizeof saved.used, 1, file) != 1)
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
    char equal[PAGE / sizeof *words];

    if (pipe(pipe_ends) < 0)
        fail("pipe");
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < count; i++)
            equal[i] = words[i] == (int)syscall(SYS_gettid);
        _exit(write(pipe_ends[1], equal, sizeof equal) != sizeof equal);
    }
    if (child < 0 || read(pipe_ends[0], equal, sizeof equal) != sizeof equal)
        fail("fork");
    for (int i = 0; i < count; i++)
        if (equal[i] && words[i] == (int)syscall(SYS_gettid)) {
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

int main(int argc, char **argv)
{
    if (argc <= SEARCH_PATH) {
        fprintf(stderr,
                "usage: %s OUTPUT PLAIN HASH_SEED SEED.PY AFTER.PY LIST... MODE RECORD"
                " USED SEARCH_PATH...\n",
                argv[0]);
        return 2;
    }
    enum mode mode = mode_of(argv[MODE]);
    saved.plain = strdup(argv[PLAIN]);
    if (*argv[USED])
        read_used(argv[USED]);
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
