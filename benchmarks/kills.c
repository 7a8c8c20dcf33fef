/* Ends a process at one of its file operations: loaded before libc's own functions (LD_PRELOAD).
 *
 * Every call that changes what lies under one of the watched folders is counted, whichever library
 * makes it. `kills_arm` says at which one the process is killed: before it, after it or, for a
 * write, in its middle. Only benchmarks/kills.py uses this.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BEFORE = 0, AFTER = 1, WITHIN = 2 };

static long wanted, counted;
static int armed, when, log_file = -1, n_roots;
static char roots[4][PATH_MAX];
static unsigned char written_to[1 << 16]; /* open files under the roots, by number */

void kills_arm(long operation, int moment, int log, const char *first, const char *second)
{
    wanted = operation, when = moment, log_file = log, counted = 0, n_roots = 2;
    snprintf(roots[0], PATH_MAX, "%s", first);
    snprintf(roots[1], PATH_MAX, "%s", second);
    armed = 1;
}

long kills_disarm(void)
{
    armed = 0;
    return counted;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int watched(int folder, const char *path)
{
    char whole[2 * PATH_MAX + 2] = "", link[64];
    if (!armed || path == NULL) return 0;
    if (path[0] != '/') {
        ssize_t n;
        if (folder == AT_FDCWD) strcpy(link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        n = readlink(link, whole, PATH_MAX);
        if (n < 0) return 0;
        whole[n] = '/', whole[n + 1] = 0;
    }
    strncat(whole, path, PATH_MAX);
    for (int i = 0; i < n_roots; i++)
        if (strncmp(whole, roots[i], strlen(roots[i])) == 0) return 1;
    return 0;
}

static void end(void)
{
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Count an operation; whether it's the one. */
static int reached(const char *name, const char *path)
{
    char text[PATH_MAX + 64];
    if (__sync_add_and_fetch(&counted, 1) != wanted) return 0;
    int n = snprintf(text, sizeof text, "%s %s", name, path ? path : "");
    if (log_file >= 0 && n > 0) {
        armed = 0;
        if (write(log_file, text, (size_t)n) < 0) errno = 0;
    }
    if (when == BEFORE) end();
    return 1;
}

static int named(const char *name, int file)
{
    char link[64], path[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n > 0) path[n] = 0;
    return reached(name, path);
}

#define OPERATION(type, name, parameters, arguments, condition, path)          \
    type name parameters                                                       \
    {                                                                          \
        int hit = (condition) ? reached(#name, path) : 0;                      \
        type result = REAL(name) arguments;                                    \
        if (hit) end();                                                        \
        return result;                                                         \
    }

#define AT(path) watched(AT_FDCWD, path)
OPERATION(int, rename, (const char *a, const char *b), (a, b), AT(a) || AT(b), b)
OPERATION(int, renameat, (int d, const char *a, int e, const char *b), (d, a, e, b),
          watched(d, a) || watched(e, b), b)
OPERATION(int, link, (const char *a, const char *b), (a, b), AT(b), b)
OPERATION(int, symlink, (const char *a, const char *b), (a, b), AT(b), b)
OPERATION(int, unlink, (const char *a), (a), AT(a), a)
OPERATION(int, unlinkat, (int d, const char *a, int f), (d, a, f), watched(d, a), a)
OPERATION(int, rmdir, (const char *a), (a), AT(a), a)
OPERATION(int, mkdir, (const char *a, mode_t m), (a, m), AT(a), a)
OPERATION(int, mkdirat, (int d, const char *a, mode_t m), (d, a, m), watched(d, a), a)
OPERATION(int, chmod, (const char *a, mode_t m), (a, m), AT(a), a)
OPERATION(int, fchmodat, (int d, const char *a, mode_t m, int f), (d, a, m, f), watched(d, a), a)
OPERATION(int, truncate, (const char *a, off_t n), (a, n), AT(a), a)

#define OPEN(name, folder, parameters, arguments)                              \
    int name parameters                                                        \
    {                                                                          \
        mode_t mode = 0;                                                       \
        if (flags & (O_CREAT | O_TMPFILE)) {                                   \
            va_list rest;                                                      \
            va_start(rest, flags);                                             \
            mode = va_arg(rest, mode_t);                                       \
            va_end(rest);                                                      \
        }                                                                      \
        int changes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);         \
        int mine = changes && watched(folder, path);                           \
        int hit = mine ? reached(#name, path) : 0;                             \
        int file = REAL(name) arguments;                                       \
        if (hit) end();                                                        \
        if (file >= 0 && file < (int)sizeof written_to) written_to[file] = (unsigned char)mine; \
        return file;                                                           \
    }
OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPEN(openat64, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))

#define MINE(file) (armed && (file) >= 0 && (file) < (int)sizeof written_to && written_to[file])

#define WRITE(name, parameters, arguments, half)                               \
    ssize_t name parameters                                                    \
    {                                                                          \
        int hit = MINE(file) ? named(#name, file) : 0;                         \
        size_t whole = size;                                                   \
        if (hit && when == WITHIN) size = half;                                \
        ssize_t result = REAL(name) arguments;                                 \
        if (hit) end();                                                        \
        size = whole;                                                          \
        return result;                                                         \
    }
WRITE(write, (int file, const void *from, size_t size), (file, from, size), size / 2)
WRITE(pwrite, (int file, const void *from, size_t size, off_t at), (file, from, size, at), size / 2)
WRITE(pwrite64, (int file, const void *from, size_t size, off_t at), (file, from, size, at),
      size / 2)

#define FILE_OPERATION(name, parameters, arguments)                            \
    int name parameters                                                        \
    {                                                                          \
        int hit = MINE(file) ? named(#name, file) : 0;                         \
        int result = REAL(name) arguments;                                     \
        if (hit) end();                                                        \
        return result;                                                         \
    }
FILE_OPERATION(ftruncate, (int file, off_t n), (file, n))
FILE_OPERATION(ftruncate64, (int file, off_t n), (file, n))
FILE_OPERATION(posix_fallocate, (int file, off_t a, off_t n), (file, a, n))
FILE_OPERATION(fchmod, (int file, mode_t m), (file, m))

ssize_t writev(int file, const struct iovec *parts, int n)
{
    int hit = MINE(file) ? named("writev", file) : 0;
    ssize_t result = REAL(writev)(file, parts, hit && when == WITHIN ? (n + 1) / 2 : n);
    if (hit) end();
    return result;
}

int close(int file)
{
    if (file >= 0 && file < (int)sizeof written_to) written_to[file] = 0;
    return REAL(close)(file);
}
