/* Counts what a process and its children do to files below one folder, and what they send to one port of this machine, and
 * kills them all at the n-th such event, or lets it fail.
 *
 * Preloaded, so that it sees Python, Arrow, safetensors, Blender and Rust alike. What to do stands in a file that all of them
 * map: the counter, the event to die at (0: none), whether a write is to be half done first, the port (0: none), what the event
 * fails with (0: it is fatal) and whether all that needs space after it fails, too, the folder.
 *   cc -shared -fPIC -O1 -o file_events.so file_events.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct orders {
    long count, fatal, half, port, error, lasting;
    char folder[2048];
    char trace[2048]; /* a file that gets a line for each event; empty: none */
};
static struct orders *orders;

__attribute__((constructor)) static void look(void) {
    const char *name = getenv("FILE_EVENTS");
    if (!name) return;
    int fd = syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *there = mmap(0, sizeof(struct orders), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (there != MAP_FAILED) orders = there;
}

static void whole(int dir, const char *path, char *out, size_t size) {
    char base[2048] = "", link[64];
    if (path && path[0] == '/') {
        snprintf(out, size, "%s", path);
        return;
    }
    if (dir == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
    base[n < 0 ? 0 : n] = 0;
    if (path && path[0]) snprintf(out, size, "%s/%s", base, path);
    else snprintf(out, size, "%s", base);
}

/* Count an event, and return whether it is the one to die at. */
static int counted(const char *what, const char *where) {
    char line[4400];
    long number = __atomic_add_fetch(&orders->count, 1, __ATOMIC_SEQ_CST);
    int fd = orders->trace[0] ? syscall(SYS_openat, AT_FDCWD, orders->trace, O_WRONLY | O_APPEND | O_CREAT, 0644) : -1;
    if (fd >= 0) {
        int n = snprintf(line, sizeof line, "%s %s\n", what, where);
        syscall(SYS_write, fd, line, n);
        syscall(SYS_close, fd);
    }
    int needs_space = !strcmp(what, "open") || !strcmp(what, "write") || !strcmp(what, "mkdir") || !strcmp(what, "link");
    return orders->fatal && (number == orders->fatal || (orders->lasting && needs_space && number > orders->fatal));
}
/* Return whether this is the event to die at. */
static int event(const char *what, int dir, const char *path) {
    if (!orders || !orders->folder[0]) return 0;
    char full[4200];
    whole(dir, path, full, sizeof full);
    if (strncmp(full, orders->folder, strlen(orders->folder))) return 0;
    return counted(what, full + strlen(orders->folder));
}
/* Return whether this is a message to the port, and the event to die at. */
static int sent(int fd) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    if (!orders || !orders->folder[0] || !orders->port || getpeername(fd, (struct sockaddr *)&peer, &size)) return 0;
    if (peer.ss_family != AF_INET || ntohs(((struct sockaddr_in *)&peer)->sin_port) != orders->port) return 0;
    return counted("send", "");
}
static int die(void) {
    if (orders->error) {
        errno = orders->error;
        return -1;
    }
    syscall(SYS_kill, 0, SIGKILL); /* the process group */
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}
#define AT(what, dir, path) do { if (event(what, dir, path)) return die(); } while (0)
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) { MODE if (WRITES(flags)) AT("open", AT_FDCWD, path); return NEXT(open)(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE if (WRITES(flags)) AT("open", AT_FDCWD, path); return NEXT(open64)(path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE if (WRITES(flags)) AT("open", dir, path); return NEXT(openat)(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE if (WRITES(flags)) AT("open", dir, path); return NEXT(openat64)(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { AT("open", AT_FDCWD, path); return NEXT(creat)(path, mode); }
FILE *fopen(const char *path, const char *how) { if (strpbrk(how, "wa+") && event("open", AT_FDCWD, path)) { die(); return 0; } return NEXT(fopen)(path, how); }
FILE *fopen64(const char *path, const char *how) { if (strpbrk(how, "wa+") && event("open", AT_FDCWD, path)) { die(); return 0; } return NEXT(fopen64)(path, how); }

ssize_t write(int fd, const void *data, size_t size) {
    if (fd > 2 && (event("write", fd, 0) || sent(fd))) { if (orders->half && !orders->error && size > 1) NEXT(write)(fd, data, size / 2); return die(); }
    return NEXT(write)(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    if (event("write", fd, 0)) { if (orders->half && !orders->error && size > 1) NEXT(pwrite)(fd, data, size / 2, at); return die(); }
    return NEXT(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    if (event("write", fd, 0)) { if (orders->half && !orders->error && size > 1) NEXT(pwrite64)(fd, data, size / 2, at); return die(); }
    return NEXT(pwrite64)(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (fd > 2 && (event("write", fd, 0) || sent(fd))) return die();
    return NEXT(writev)(fd, parts, count);
}
ssize_t send(int fd, const void *data, size_t size, int flags) {
    if (sent(fd)) { if (orders->half && !orders->error && size > 1) NEXT(send)(fd, data, size / 2, flags); return die(); }
    return NEXT(send)(fd, data, size, flags);
}
ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
    if (sent(fd)) return die();
    return NEXT(sendto)(fd, data, size, flags, to, length);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) { if (sent(fd)) return die(); return NEXT(sendmsg)(fd, message, flags); }
ssize_t sendfile(int out, int in, off_t *at, size_t size) { AT("write", out, 0); return NEXT(sendfile)(out, in, at, size); }
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) { AT("write", out, 0); return NEXT(sendfile64)(out, in, at, size); }
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) { AT("write", out, 0); return NEXT(copy_file_range)(in, from, out, to, size, flags); }

int rename(const char *from, const char *to) { AT("rename", AT_FDCWD, to); return NEXT(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { AT("rename", b, to); return NEXT(renameat)(a, from, b, to); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { AT("rename", b, to); return NEXT(renameat2)(a, from, b, to, flags); }
int link(const char *from, const char *to) { AT("link", AT_FDCWD, to); return NEXT(link)(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) { AT("link", b, to); return NEXT(linkat)(a, from, b, to, flags); }
int symlink(const char *from, const char *to) { AT("symlink", AT_FDCWD, to); return NEXT(symlink)(from, to); }
int symlinkat(const char *from, int b, const char *to) { AT("symlink", b, to); return NEXT(symlinkat)(from, b, to); }
int unlink(const char *path) { AT("unlink", AT_FDCWD, path); return NEXT(unlink)(path); }
int unlinkat(int dir, const char *path, int flags) { AT("unlink", dir, path); return NEXT(unlinkat)(dir, path, flags); }
int remove(const char *path) { AT("unlink", AT_FDCWD, path); return NEXT(remove)(path); }
int rmdir(const char *path) { AT("rmdir", AT_FDCWD, path); return NEXT(rmdir)(path); }
int mkdir(const char *path, mode_t mode) { AT("mkdir", AT_FDCWD, path); return NEXT(mkdir)(path, mode); }
int mkdirat(int dir, const char *path, mode_t mode) { AT("mkdir", dir, path); return NEXT(mkdirat)(dir, path, mode); }
int fsync(int fd) { AT("fsync", fd, 0); return NEXT(fsync)(fd); }
int fdatasync(int fd) { AT("fsync", fd, 0); return NEXT(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { AT("truncate", fd, 0); return NEXT(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { AT("truncate", fd, 0); return NEXT(ftruncate64)(fd, size); }
int truncate(const char *path, off_t size) { AT("truncate", AT_FDCWD, path); return NEXT(truncate)(path, size); }
int chmod(const char *path, mode_t mode) { AT("chmod", AT_FDCWD, path); return NEXT(chmod)(path, mode); }
int fchmod(int fd, mode_t mode) { AT("chmod", fd, 0); return NEXT(fchmod)(fd, mode); }
int fchmodat(int dir, const char *path, mode_t mode, int flags) { AT("chmod", dir, path); return NEXT(fchmodat)(dir, path, mode, flags); }
int utimensat(int dir, const char *path, const struct timespec times[2], int flags) { AT("touch", dir, path); return NEXT(utimensat)(dir, path, times, flags); }
int futimens(int fd, const struct timespec times[2]) { AT("touch", fd, 0); return NEXT(futimens)(fd, times); }
