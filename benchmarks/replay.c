/* Makes the system calls that strace saw a step make, and nothing else: what the step would cost without Python.
 *
 * CALLS names a file of C statements that benchmarks/replay.py writes. Those in must() changed something there and must do so here.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/loop.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif

static char buffer[1 << 20];
static struct stat status;
static char device[32] = "/dev/loop0";

static void must(long result, int line) {
    if (result < 0) {
        fprintf(stderr, "call %d of the replay failed: %m\n", line);
        exit(1);
    }
}

static int free_device(int control) {
    int number = ioctl(control, LOOP_CTL_GET_FREE);
    snprintf(device, sizeof device, "/dev/loop%d", number);
    return number;
}

/* Somebody else may have taken the device meanwhile: then the next one, under the same descriptor. */
static int attach(int loop, int backing, const char *name) {
    struct loop_config config = {.fd = backing, .info = {.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR}};
    strncpy((char *)config.info.lo_file_name, name, LO_NAME_SIZE - 1);
    for (int attempt = 0; attempt < 50; attempt++) {
        if (ioctl(loop, LOOP_CONFIGURE, &config) == 0)
            return 0;
        int control = open("/dev/loop-control", O_RDWR);
        free_device(control);
        int other = open(device, O_RDONLY);
        dup2(other, loop);
        close(other);
        close(control);
    }
    return -1;
}

static int in_root(int root, const char *path) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return syscall(SYS_openat2, root, path, &how, sizeof how);
}

static int set_flags(int tree, int where, unsigned long flags) {
    struct mount_attr attributes = {.attr_set = flags, .propagation = MS_PRIVATE};
    return syscall(SYS_mount_setattr, tree, "", where, &attributes, sizeof attributes);
}

int main(void) {
#include CALLS
    return 0;
}
