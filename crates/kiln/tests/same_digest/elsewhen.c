/* Another time for one process: its real-time clocks are 400 days behind. Whoever reads one leaves a file that says so. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { SHIFT_SECS = -400 * 86400 };

int clock_gettime(clockid_t id, struct timespec *at) {
    long result = syscall(SYS_clock_gettime, id, at);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        at->tv_sec += SHIFT_SECS;
        const char *read = getenv("KILN_TEST_CLOCK_WAS_READ");
        if (read)
            close(open(read, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec time;
    int result = clock_gettime(CLOCK_REALTIME, &time);
    at->tv_sec = time.tv_sec;
    at->tv_usec = time.tv_nsec / 1000;
    return result;
}

time_t time(time_t *at) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    if (at)
        *at = time.tv_sec;
    return time.tv_sec;
}
