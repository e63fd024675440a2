/* The python of the tools of a playbook, as a program of the sandbox: an image need have neither loader nor libraries for it.
 *
 * It stands where the tools have their python, and starts that one by the tools' own loader. The paths of the libraries are
 * arguments of the loader, since what python starts is the image's and must not see them. No C library, no loader: it is the
 * one program of the tools that the kernel starts by itself.
 */

#if defined(__x86_64__)
#define MULTIARCH "x86_64-linux-gnu"
#elif defined(__aarch64__)
#define MULTIARCH "aarch64-linux-gnu"
#else
#error "the tools of playbooks are not known on this processor"
#endif

#define TOOLS "/.kiln/ansible"

/* `kiln/loader` and `kiln/python` are links that are made when the tools are laid: their versions are in the names. The compiled
 * modules are kept in memory for one playbook; the tools can't be written. */
static const char *const before[] = {
    TOOLS "/kiln/loader",
    "--inhibit-cache",
    "--library-path",
    TOOLS "/usr/lib/" MULTIARCH ":" TOOLS "/lib/" MULTIARCH ":" TOOLS "/usr/lib:" TOOLS "/lib",
    "--argv0",
    TOOLS "/usr/bin/python3",
    TOOLS "/kiln/python",
    "-X",
    "pycache_prefix=/.kiln/tmp/compiled",
};

enum { BEFORE = sizeof before / sizeof *before };

/* Ansible gives its modules a handful. */
enum { ARGUMENTS_MAX = 4096 };

/* As a shell says that a program can't be started. */
enum { NOT_STARTED = 126 };

static const char *arguments[BEFORE + ARGUMENTS_MAX + 1];

static void run(char **environment) {
#if defined(__x86_64__)
    long result = 59;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(before[0]), "S"(arguments), "d"(environment)
                     : "rcx", "r11", "memory");
#else
    register long number __asm__("x8") = 221;
    register const char *path __asm__("x0") = before[0];
    register const char **all __asm__("x1") = arguments;
    register char **env __asm__("x2") = environment;
    __asm__ volatile("svc 0" : "+r"(path) : "r"(number), "r"(all), "r"(env) : "memory");
#endif
}

static void leave(void) {
#if defined(__x86_64__)
    long result = 231;
    __asm__ volatile("syscall" : "+a"(result) : "D"((long)NOT_STARTED) : "rcx", "r11", "memory");
#else
    register long number __asm__("x8") = 94;
    register long status __asm__("x0") = NOT_STARTED;
    __asm__ volatile("svc 0" : "+r"(status) : "r"(number) : "memory");
#endif
}

/* The kernel leaves the number of arguments, the arguments and the environment on the stack. */
__attribute__((used)) void launch(long *stack) {
    long count = *stack - 1;
    char **given = (char **)(stack + 2);
    if (count >= 0 && count <= ARGUMENTS_MAX) {
        for (long i = 0; i < BEFORE; i++)
            arguments[i] = before[i];
        for (long i = 0; i < count; i++)
            arguments[BEFORE + i] = given[i];
        arguments[BEFORE + count] = 0;
        run(given + count + 1);
    }
    leave();
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall launch\n\thlt\n");
#else
__asm__(".globl _start\n_start:\n\tmov x0, sp\n\tbl launch\n\tbrk 0\n");
#endif
