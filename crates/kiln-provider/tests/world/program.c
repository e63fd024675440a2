/* What runs in the tests' instances: one static program with a mode for each thing that an application may do. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int cat(const char *path) {
    char buffer[4096];
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        printf("%s: %s\n", path, strerror(errno));
        return 1;
    }
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) write(1, buffer, n);
    close(fd);
    return 0;
}

static void try_write(const char *path) {
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    int wrote = fd >= 0 && write(fd, "x", 1) == 1;
    printf("%s: %s\n", path, wrote ? "written" : strerror(errno));
    if (fd >= 0) close(fd);
}

static void answer(int client, int status) {
    char request[4096], head[256];
    read(client, request, sizeof request);
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n", status);
    write(client, head, n);
    shutdown(client, SHUT_WR);
    while (read(client, request, sizeof request) > 0) {}
    close(client);
}

static volatile sig_atomic_t status = 200;
static void toggle(int signal) { (void)signal; status = status == 200 ? 503 : 200; }

static void serve(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 64)) exit(errno);
    signal(SIGUSR1, toggle);
    for (;;) {
        int client = accept(fd, 0, 0);
        if (client >= 0) answer(client, status);
    }
}

static void finish(int signal) { (void)signal; write(1, "finishing\n", 10); _exit(7); }

static const char *outcome(long result) { return result < 0 ? strerrorname_np(errno) : "allowed"; }

static int check(char **paths) {
    int failed = 0;
    for (; *paths; paths++) failed |= access(*paths, F_OK) != 0;
    return failed;
}

static int hear(const char *path) {
    char buffer[4096];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (void *)&address, sizeof address)) { perror(path); return 1; }
    ssize_t n = read(fd, buffer, sizeof buffer);
    return n > 0 && write(1, buffer, n) == n ? 0 : 1;
}

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IONBF, 0);
    const char *mode = argc > 1 ? argv[1] : "sleep";
    if (!strcmp(mode, "exit")) return atoi(argv[2]);
    if (!strcmp(mode, "abort")) abort();
    if (!strcmp(mode, "say")) { printf("%s\n", argv[2]); fprintf(stderr, "%s on stderr\n", argv[2]); return 0; }
    if (!strcmp(mode, "cat")) { int r = 0; for (int i = 2; i < argc; i++) r |= cat(argv[i]); return r; }
    if (!strcmp(mode, "hear")) return hear(argv[2]);
    if (!strcmp(mode, "access")) return check(argv + 2);
    if (!strcmp(mode, "write")) for (int i = 2; i < argc; i++) try_write(argv[i]);
    if (!strcmp(mode, "env")) for (char **e = environ; *e; e++) puts(*e);
    if (!strcmp(mode, "who")) {
        char cwd[256], host[256];
        gethostname(host, sizeof host);
        printf("uid=%d gid=%d pid=%d cwd=%s host=%s\n", getuid(), getgid(), getpid(), getcwd(cwd, sizeof cwd), host);
        struct stat s;
        for (int i = 2; i < argc; i++)
            if (!stat(argv[i], &s)) printf("%s mode=%o uid=%d\n", argv[i], s.st_mode & 07777, s.st_uid);
    }
    if (!strcmp(mode, "syscalls")) {
        printf("keyctl %s\n", outcome(syscall(SYS_keyctl, 0, -3, 1)));
        printf("unshare %s\n", outcome(unshare(CLONE_NEWUTS)));
        printf("mount %s\n", outcome(mount("x", "/tmp", "tmpfs", 0, "")));
        printf("clone3 %s\n", outcome(syscall(SYS_clone3, 0, 0)));
        printf("bpf %s\n", outcome(syscall(SYS_bpf, 0, 0, 0)));
        printf("vsock %s\n", outcome(socket(40, SOCK_STREAM, 0)));
        printf("mkdir %s\n", outcome(mkdir("/tmp/x", 0700)));
        printf("mknod %s\n", outcome(mknod("/tmp/d", S_IFCHR | 0600, 0x103)));
    }
    if (!strcmp(mode, "oom")) for (;;) { char *p = malloc(1 << 20); if (p) memset(p, 1, 1 << 20); }
    if (!strcmp(mode, "bomb")) { printf("bombing\n"); signal(SIGTERM, SIG_IGN); for (;;) if (fork() < 0) usleep(1000); }
    if (!strcmp(mode, "stubborn")) { signal(SIGTERM, SIG_IGN); printf("ready\n"); for (;;) pause(); }
    if (!strcmp(mode, "polite")) { signal(SIGTERM, finish); printf("ready\n"); for (;;) pause(); }
    if (!strcmp(mode, "orphans")) {
        for (int i = 0; i < 20; i++)
            if (!fork()) { if (!fork()) { usleep(20000); _exit(0); } _exit(0); }
        usleep(200000);
        return 0;
    }
    if (!strcmp(mode, "chatter")) for (long i = 0;; i++) { printf("line %ld\n", i); usleep(atoi(argv[2])); }
    if (!strcmp(mode, "last-words")) { usleep(atoi(argv[2]) * 1000); printf("last words\n"); return 3; }
    if (!strcmp(mode, "flood")) { for (int i = 0; i < atoi(argv[2]); i++) printf("%063d\n", i); return 0; }
    if (!strcmp(mode, "serve")) { if (argc > 3) usleep(atoi(argv[3]) * 1000); serve(atoi(argv[2])); }
    if (!strcmp(mode, "file-when")) { usleep(atoi(argv[2]) * 1000); try_write("/tmp/ready"); for (;;) pause(); }
    if (!strcmp(mode, "clock")) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        char text[64];
        int n = snprintf(text, sizeof text, "%ld\n", now.tv_sec * 1000000000L + now.tv_nsec);
        write(1, text, n);
        while (argc == 2) pause();
    }
    if (!strcmp(mode, "sleep")) for (;;) pause();
    return 0;
}
