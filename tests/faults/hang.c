/* A disk that hangs: preloaded, it holds up every write below $HANG_DIR for as long as the file $HANG_SWITCH exists. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void hold_up(int fd) {
    const char *dir = getenv("HANG_DIR"), *hangs = getenv("HANG_SWITCH");
    char link[64], path[4096];
    ssize_t len;

    if (dir == NULL || hangs == NULL || access(hangs, F_OK) != 0) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    len = readlink(link, path, sizeof path - 1);
    if (len <= 0) return;
    path[len] = 0;
    if (strncmp(path, dir, strlen(dir)) != 0) return;
    while (access(hangs, F_OK) == 0) usleep(10000);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t len) { hold_up(fd); return REAL(write)(fd, bytes, len); }
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) { hold_up(fd); return REAL(pwrite)(fd, bytes, len, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) { hold_up(fd); return REAL(pwrite64)(fd, bytes, len, at); }
int fdatasync(int fd) { hold_up(fd); return REAL(fdatasync)(fd); }
int fsync(int fd) { hold_up(fd); return REAL(fsync)(fd); }
int ftruncate64(int fd, off64_t len) { hold_up(fd); return REAL(ftruncate64)(fd, len); }
