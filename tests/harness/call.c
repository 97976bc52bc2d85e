/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Makes the system calls that its arguments name, and prints what the kernel answered, one line
 * each: the result, or the negative errno. An argument is [HOW:]NUMBER[,ARGUMENT...], where HOW is
 *
 *   x86, x32   by that entry of the kernel (x86-64 only)
 *   thread     in a thread, of which "alive" tells afterwards that only it ended
 *   handled    with a handler for SIGSYS, which prints "SIGSYS" and the call's number
 *   traced     in a child whose tracer prints "traced" and what the filter told it
 *   waits      with a handler for SIGUSR1 that does nothing
 *
 * An argument of the call is a number or, with a slash or a dot in it, a string.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define X32_BIT 0x40000000L

struct request {
    char how[16];
    long number, arg[6];
};

static struct request parse(char *text)
{
    struct request r = { .how = "" };
    char *colon = strchr(text, ':');
    if (colon) {
        *colon = 0;
        strncpy(r.how, text, sizeof r.how - 1);
        text = colon + 1;
    }
    r.number = strtol(strtok(text, ","), 0, 0);
    for (int i = 0; i < 6; i++) {
        char *word = strtok(0, ",");
        if (!word)
            break;
        r.arg[i] = strpbrk(word, "/.") ? (long)word : (long)strtoull(word, 0, 0);
    }
    return r;
}

static long native(const struct request *r)
{
    long result = syscall(r->number, r->arg[0], r->arg[1], r->arg[2], r->arg[3], r->arg[4],
                          r->arg[5]);
    return result == -1 ? -errno : result;
}

#if defined(__x86_64__)
static long as_x86(const struct request *r)
{
    int result;
    __asm__ volatile("int $0x80" : "=a"(result)
                     : "a"((int)r->number), "b"((int)r->arg[0]), "c"((int)r->arg[1]),
                       "d"((int)r->arg[2])
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
}
#endif

static void *in_thread(void *request)
{
    printf("%ld\n", native(request));
    return 0;
}

static void tell(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    printf("SIGSYS %d\n", info->si_syscall);
}

static void ignore(int signal)
{
    (void)signal;
}

static void traced(const struct request *r)
{
    int status;
    unsigned long message = 0;
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        native(r);
        _exit(0);
    }
    waitpid(child, &status, 0);
    ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL);
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &status, 0);
    if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) {
        ptrace(PTRACE_GETEVENTMSG, child, 0, &message);
        printf("traced %lu\n", message);
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
}

static void make(struct request *r)
{
    if (!strcmp(r->how, "traced")) {
        traced(r);
        return;
    }
    if (!strcmp(r->how, "thread")) {
        pthread_t thread;
        pthread_create(&thread, 0, in_thread, r);
        pthread_join(thread, 0);
        printf("alive\n");
        return;
    }
#if defined(__x86_64__)
    if (!strcmp(r->how, "x86")) {
        printf("%ld\n", as_x86(r));
        return;
    }
#endif
    if (!strcmp(r->how, "x32"))
        r->number |= X32_BIT;
    if (!strcmp(r->how, "handled")) {
        struct sigaction action = { .sa_sigaction = tell, .sa_flags = SA_SIGINFO };
        sigaction(SIGSYS, &action, 0);
        native(r);
        return;
    }
    if (!strcmp(r->how, "waits"))
        signal(SIGUSR1, ignore);
    printf("%ld\n", native(r));
}

int main(int argc, char **argv)
{
    setvbuf(stdout, 0, _IONBF, 0);
    for (int i = 1; i < argc; i++) {
        struct request r = parse(argv[i]);
        make(&r);
    }
    return 0;
}
