/*
 * What runs in the containers of the measurements: says on stdout when it began, as two numbers of 64 bits (seconds and
 * nanoseconds of CLOCK_MONOTONIC), and ends. It has no C library, so that its first instruction is its own.
 */
#include <stddef.h>
#include <sys/syscall.h>

static long call(long number, long first, long second, long third)
{
#if defined(__x86_64__)
	long returned;
	__asm__ volatile("syscall" : "=a"(returned) : "a"(number), "D"(first), "S"(second), "d"(third) : "rcx", "r11", "memory");
	return returned;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = first;
	register long x1 __asm__("x1") = second;
	register long x2 __asm__("x2") = third;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
#else
#error "how this architecture calls its kernel is not written down here"
#endif
}

void _start(void)
{
	long long now[2];
	call(SYS_clock_gettime, 1, (long)now, 0);
	call(SYS_write, 1, (long)now, sizeof now);
	call(SYS_exit_group, 0, 0, 0);
	__builtin_unreachable();
}
