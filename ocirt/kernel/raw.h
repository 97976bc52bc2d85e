/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * System calls without libc: for where there is none, or where errno isn't ours to write to.
 */
#ifndef RAW_H
#define RAW_H

static inline long raw(long n, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return n;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
#else
#error "not ported"
#endif
}

/* A system call of up to four arguments, by its name. Returns -errno on failure. */
#define RAW(n, a, b, c, d) raw(__NR_##n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

#endif
