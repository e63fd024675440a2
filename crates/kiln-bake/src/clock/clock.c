/* What programs see in a bake instead of the machine's: the time of the image's lock, and always as many processors.
 *
 * The loader puts this library before all others (/etc/ld.so.preload), so its functions answer for those of the C library.
 * It stands alone, without a C library and its headers: the same object serves glibc of any age and musl.
 *
 * The seconds stand still, so what is written into a file is the same in every bake. A reading is a microsecond after the one
 * before, as far as a second lasts, since programs divide by what passed between two of them. And once a program has run for
 * PATIENCE_SECS the clock goes on by as much, because whoever waits for a time of day would otherwise wait for ever.
 */

#define PUBLIC __attribute__((visibility("default")))

enum { REALTIME = 0, MONOTONIC = 1, REALTIME_COARSE = 5, REALTIME_ALARM = 8, TAI = 11 };
enum { TIME_UTC = 1, CLOCK_OF_TIME_BASE = -1 };

/* Longer than a program of an installation runs, and a third of what a step may take. */
enum { PATIENCE_SECS = 600 };

/* The last microsecond of a second: the seconds do not move because a program reads often. */
enum { TICKS_MAX = 999999 };

struct timespec {
    long sec;
    long nsec;
};
struct timeval {
    long sec;
    long usec;
};
struct timezone {
    int minutes_west;
    int dst;
};

/* Kiln looks for the mark and writes what is told after it. Volatile, so that the compiler does not believe the zeros. Without a
 * number of processors the machine's are told. */
static const volatile struct {
    char mark[16];
    long epoch;
    long processors;
} lock_time __attribute__((used)) = {"kiln lock time:", 0, 0};

/* Threads race for these; the worst is that two of them read the same time. */
static long began;
static long ticks;

/* The C library's, where there is one. */
extern int *__errno_location(void) __attribute__((weak));

static long kernel_clock(long id, struct timespec *at) {
#if defined(__x86_64__)
    long result = 228;
    __asm__ volatile("syscall" : "+a"(result) : "D"(id), "S"(at) : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long number __asm__("x8") = 113;
    register long result __asm__("x0") = id;
    register struct timespec *to __asm__("x1") = at;
    __asm__ volatile("svc 0" : "+r"(result) : "r"(to), "r"(number) : "memory");
    return result;
#else
#error "the clock of a bake is not known on this processor"
#endif
}

static struct timespec now(void) {
    struct timespec passed = {0, 0};
    kernel_clock(MONOTONIC, &passed);
    long first = __atomic_load_n(&began, __ATOMIC_RELAXED);
    if (first == 0) {
        first = passed.sec + 1;
        __atomic_store_n(&began, first, __ATOMIC_RELAXED);
    }
    long tick = __atomic_load_n(&ticks, __ATOMIC_RELAXED);
    if (tick < TICKS_MAX)
        __atomic_store_n(&ticks, tick + 1, __ATOMIC_RELAXED);
    long ran = passed.sec + 1 - first;
    struct timespec at = {lock_time.epoch + ran / PATIENCE_SECS * PATIENCE_SECS, tick * 1000};
    return at;
}

PUBLIC int clock_gettime(int id, struct timespec *at) {
    if (id == REALTIME || id == REALTIME_COARSE || id == REALTIME_ALARM || id == TAI) {
        *at = now();
        return 0;
    }
    long result = kernel_clock(id, at);
    if (result >= 0)
        return 0;
    if (__errno_location)
        *__errno_location() = (int)-result;
    return -1;
}

PUBLIC int gettimeofday(struct timeval *at, void *zone) {
    struct timespec time = now();
    if (at) {
        at->sec = time.sec;
        at->usec = time.nsec / 1000;
    }
    if (zone) {
        struct timezone utc = {0, 0};
        *(struct timezone *)zone = utc;
    }
    return 0;
}

PUBLIC long time(long *at) {
    long seconds = now().sec;
    if (at)
        *at = seconds;
    return seconds;
}

PUBLIC int timespec_get(struct timespec *at, int base) {
    /* The bases of C23 are the clocks' numbers and one. */
    return base >= TIME_UTC && clock_gettime(base + CLOCK_OF_TIME_BASE, at) == 0 ? base : 0;
}

/* The names under which older programs and the C library's own helpers call them. */
PUBLIC int __clock_gettime(int, struct timespec *) __attribute__((alias("clock_gettime")));
PUBLIC int __gettimeofday(struct timeval *, void *) __attribute__((alias("gettimeofday")));
PUBLIC long __time(long *) __attribute__((alias("time")));

/* How many processors there are. Build tools start as many jobs, and write the number down or divide their work by it. */

enum { INVALID = 22, SC_PROCESSORS_CONF = 83, SC_PROCESSORS_ONLINE = 84 };

/* glibc has its own function under this name, too; musl has none, and no linker that lacks the other. */
extern long __sysconf(int) __attribute__((weak));
extern void *dlsym(void *, const char *) __attribute__((weak));
#define NEXT ((void *)-1L)

static long fail(int number) {
    if (__errno_location)
        *__errno_location() = number;
    return -1;
}

PUBLIC long sysconf(int name) {
    if (lock_time.processors && (name == SC_PROCESSORS_CONF || name == SC_PROCESSORS_ONLINE))
        return lock_time.processors;
    if (__sysconf)
        return __sysconf(name);
    long (*theirs)(int) = dlsym ? (long (*)(int))dlsym(NEXT, "sysconf") : 0;
    return theirs ? theirs(name) : fail(INVALID);
}

static long kernel_affinity(long process, unsigned long size, unsigned char *mask) {
#if defined(__x86_64__)
    long result = 204;
    __asm__ volatile("syscall" : "+a"(result) : "D"(process), "S"(size), "d"(mask) : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long number __asm__("x8") = 123;
    register long result __asm__("x0") = process;
    register unsigned long length __asm__("x1") = size;
    register unsigned char *to __asm__("x2") = mask;
    __asm__ volatile("svc 0" : "+r"(result) : "r"(length), "r"(to), "r"(number) : "memory");
    return result;
#endif
}

/* Returns zero or the number of an error. */
static int affinity(long process, unsigned long size, unsigned char *mask) {
    long filled = kernel_affinity(process, size, mask);
    if (filled < 0)
        return (int)-filled;
    if (lock_time.processors)
        filled = 0;
    /* Volatile, or the compiler makes calls of a C library's function of it. */
    volatile unsigned char *byte = mask;
    for (unsigned long at = (unsigned long)filled; at < size; at++)
        byte[at] = 0;
    for (long one = 0; one < lock_time.processors && (unsigned long)one < size * 8; one++)
        byte[one / 8] |= (unsigned char)(1 << one % 8);
    return 0;
}

PUBLIC int sched_getaffinity(int process, unsigned long size, unsigned char *mask) {
    int failed = affinity(process, size, mask);
    return failed ? (int)fail(failed) : 0;
}

/* Of a thread there is only its handle here. All of a process are told the same. */
PUBLIC int pthread_getaffinity_np(unsigned long thread, unsigned long size, unsigned char *mask) {
    (void)thread;
    return affinity(0, size, mask);
}

PUBLIC int get_nprocs(void) { return (int)sysconf(SC_PROCESSORS_ONLINE); }
PUBLIC int get_nprocs_conf(void) { return (int)sysconf(SC_PROCESSORS_CONF); }
