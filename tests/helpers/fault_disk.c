/* A disk that fails, below Python: preloaded, it stands before the C library's calls on the files of one folder.

   fault_disk(folder, kind, at, error, once) begins a fault; kind NONE ends it. Files elsewhere are as they are. What
   counts is the kind's own number: bytes for READ and WRITE, of all files together, and calls for the others. The fault
   comes at that number and stays, or comes once. SHORT is none: each call moves at most `at` bytes. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NONE, READ, WRITE, FSYNC, CLOSE, CREATE, RENAME, MKDIR, SHORT };

static char folder[PATH_MAX];
static int kind = NONE, fault = 0, once = 0;
static long at = 0, seen = 0, hits = 0;

void fault_disk(const char *in, int what, long number, int error, int only_once) {
    snprintf(folder, sizeof folder, "%s/", in);
    kind = what, at = number, fault = error, once = only_once, seen = 0, hits = 0;
}

long fault_disk_seen(void) { return seen; }

long fault_disk_hits(void) { return hits; }

static int path_is_here(const char *path) { return strncmp(path, folder, strlen(folder)) == 0; }

static int is_here(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 2);
    if (length < 0) return 0;
    path[length] = 0;
    return path_is_here(strcat(path, "/")); /* the folder itself, too */
}

static int fails(void) {
    if (once && hits) return 0;
    hits++;
    errno = fault;
    return 1;
}

/* Whether this call is the one that fails, by its number among those of its kind. */
static int call_fails(int what) { return kind == what && seen++ >= at && fails(); }

/* How many of these bytes go through: fewer before the fault, -1 for the fault itself. */
static ssize_t allowed(int what, int file, size_t size) {
    if (kind == NONE || !size || !is_here(file)) return size;
    if (kind == SHORT) return size > (size_t)at ? at : (ssize_t)size;
    if (kind != what) return size;
    long rest = at - seen;
    if (rest <= 0) return fails() ? -1 : (ssize_t)size;
    return (long)size < rest || (once && hits) ? (ssize_t)size : rest;
}

static ssize_t counted(int what, int file, ssize_t size) {
    int before = errno;
    if (size > 0 && kind == what && is_here(file)) seen += size;
    errno = before;
    return size;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MOVES(name, what, buffer)                                                                       \
    ssize_t name(int file, buffer data, size_t size) {                                                  \
        ssize_t most = allowed(what, file, size);                                                       \
        return most < 0 ? -1 : counted(what, file, REAL(name)(file, data, most));                       \
    }
#define MOVES_AT(name, what, buffer, place)                                                             \
    ssize_t name(int file, buffer data, size_t size, place where) {                                     \
        ssize_t most = allowed(what, file, size);                                                       \
        return most < 0 ? -1 : counted(what, file, REAL(name)(file, data, most, where));                \
    }

MOVES(read, READ, void *)
MOVES(write, WRITE, const void *)
MOVES_AT(pread, READ, void *, off_t)
MOVES_AT(pread64, READ, void *, off64_t)
MOVES_AT(pwrite, WRITE, const void *, off_t)
MOVES_AT(pwrite64, WRITE, const void *, off64_t)

/* What is to fail when it is read cannot be mapped, as on some FUSE drives. */
#define MAPS(name, place)                                                                               \
    void *name(void *start, size_t size, int protection, int flags, int file, place where) {            \
        if ((kind == READ || kind == SHORT) && file >= 0 && is_here(file)) return errno = ENODEV, MAP_FAILED; \
        return REAL(name)(start, size, protection, flags, file, where);                                 \
    }

MAPS(mmap, off_t)
MAPS(mmap64, off64_t)

ssize_t copy_file_range(int from, off64_t *begin, int to, off64_t *offset, size_t size, unsigned flags) {
    ssize_t read = allowed(READ, from, size), most = read < 0 ? read : allowed(WRITE, to, read);
    if (most < 0) return -1;
    most = REAL(copy_file_range)(from, begin, to, offset, most, flags);
    return counted(READ, from, counted(WRITE, to, most));
}

/* Space is not to be had at once: each write may be the one that finds the disk full. */
int fallocate(int file, int mode, off_t offset, off_t size) {
    if (kind != NONE && is_here(file)) return errno = EOPNOTSUPP, -1;
    return REAL(fallocate)(file, mode, offset, size);
}

int fsync(int file) { return is_here(file) && call_fails(FSYNC) ? -1 : REAL(fsync)(file); }

/* As on NFS: the file is closed, and only now the server says that it did not take what was written. */
int close(int file) {
    int flags = kind == CLOSE ? fcntl(file, F_GETFL) : -1;
    int failed = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY && is_here(file) && call_fails(CLOSE);
    int done = REAL(close)(file);
    return failed ? (errno = fault, -1) : done;
}

int rename(const char *from, const char *to) {
    return path_is_here(to) && call_fails(RENAME) ? -1 : REAL(rename)(from, to);
}

int mkdir(const char *path, mode_t mode) {
    return path_is_here(path) && call_fails(MKDIR) ? -1 : REAL(mkdir)(path, mode);
}

#define OPENS(name)                                                                                     \
    int name(const char *path, int flags, ...) {                                                        \
        va_list rest;                                                                                   \
        va_start(rest, flags);                                                                          \
        mode_t mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;   \
        va_end(rest);                                                                                   \
        if ((flags & O_CREAT) && path_is_here(path) && call_fails(CREATE)) return -1;                   \
        return REAL(name)(path, flags, mode);                                                           \
    }

OPENS(open)
OPENS(open64)
