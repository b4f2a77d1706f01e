/* Holds a root in ways that only C or the kernel's own calls can: hold KIND [DIRECTORY]. Prints `ready`, then stays. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *kind, *place;
static char path[4096];

static void must(int good, const char *what) {
    if (!good) { perror(what); exit(1); }
}

static const char *in(const char *name) {
    snprintf(path, sizeof path, "%s/%s", place, name);
    return path;
}

static void ready(void) { must(write(1, "ready\n", 6) == 6, "write"); }

static void stay(void) { for (;;) pause(); }

static int file(void) {
    int descriptor = open(in("held"), O_CREAT | O_RDWR, 0600);
    must(descriptor >= 0, path);
    return descriptor;
}

static void put(const char *file, const char *text) {
    int descriptor = open(file, O_WRONLY);
    must(descriptor >= 0 && write(descriptor, text, strlen(text)) == (ssize_t)strlen(text), file);
    close(descriptor);
}

/* Without maps of its own ids, no file can be created there. */
static void own_namespace(void) {
    char users[64], groups[64];
    snprintf(users, sizeof users, "%d %d 1\n", getuid(), getuid());
    snprintf(groups, sizeof groups, "%d %d 1\n", getgid(), getgid());
    must(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0, "unshare");
    put("/proc/self/uid_map", users);
    put("/proc/self/setgroups", "deny");
    put("/proc/self/gid_map", groups);
}

static void *thread(void *unused) {
    (void)unused;
    if (!strcmp(kind, "thread-cwd")) must(unshare(CLONE_FS) == 0 && chdir(place) == 0, "thread's directory");
    if (!strcmp(kind, "thread-file")) { must(unshare(CLONE_FILES) == 0, "unshare"); file(); }
    if (!strcmp(kind, "thread-namespace")) must(unshare(CLONE_FS | CLONE_NEWNS) == 0, "unshare");
    ready();
    stay();
    return NULL;
}

static void in_flight(int descriptor) {
    int pair[2];
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && sendmsg(pair[0], &message, 0) == 1, "sendmsg");
    close(descriptor);
}

static void ring(int descriptor) {
    char parameters[120] = {0};
    int ring = syscall(425, 4, parameters);
    must(ring >= 0, "io_uring_setup");
    must(syscall(427, ring, 2, &descriptor, 1) == 0, "io_uring_register");
    close(descriptor);
}

static void bound(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, in("socket"), sizeof address.sun_path - 1);
    must(bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address) == 0, "bind");
}

static void mappings(void) {
    int descriptor = file();
    must(ftruncate(descriptor, 2 * 4096) == 0, "ftruncate");
    for (int count = 0; count < 60000; count++)
        must(mmap(NULL, 4096, count % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED, "mmap");
    must(mmap(NULL, 4096, PROT_READ, MAP_SHARED, descriptor, 0) != MAP_FAILED, "mmap");
    close(descriptor);
}

static void many_mounts(void) {
    char target[64];
    own_namespace();
    must(mount("many", "/tmp", "tmpfs", 0, "") == 0, "mount");
    for (int count = 0; count < 20000; count++) {
        snprintf(target, sizeof target, "/tmp/%d", count % 100);
        mkdir(target, 0700);
        must(mount("/tmp", target, "", MS_BIND, "") == 0, target);
    }
}

/* Keep nothing but a bind of one directory of the image: no label and no loop device is left in this namespace. */
static void only_a_bind(void) {
    own_namespace();
    must(mount("new", "/tmp", "tmpfs", 0, "") == 0, "mount");
    must(mkdir("/tmp/kept", 0700) == 0 && mkdir("/tmp/old", 0700) == 0, "mkdir");
    must(mount(place, "/tmp/kept", "", MS_BIND, "") == 0, place);
    must(syscall(SYS_pivot_root, "/tmp", "/tmp/old") == 0 && chdir("/") == 0, "pivot_root");
    must(umount2("/old", MNT_DETACH) == 0, "umount");
}

static void chain(void) {
    signal(SIGTERM, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    ready();
    for (;;) {
        usleep(500);
        pid_t child = fork();
        if (child > 0) _exit(0);
        if (child < 0) usleep(100);
    }
}

static void killer(void) {
    ready();
    for (;;) kill(-1, SIGKILL);
}

int main(int count, char **words) {
    pthread_t other;
    must(count > 1, "usage");
    kind = words[1];
    place = count > 2 ? words[2] : "";
    if (!strcmp(kind, "main-exited")) must(chdir(place) == 0, place);
    if (!strcmp(kind, "thread-namespace")) must(unshare(CLONE_NEWUSER) == 0, "unshare");
    if (!strcmp(kind, "main-exited") || !strncmp(kind, "thread-", 7)) {
        must(pthread_create(&other, NULL, thread, NULL) == 0, "pthread_create");
        if (!strcmp(kind, "main-exited")) pthread_exit(NULL);
        stay();
    }
    if (!strcmp(kind, "in-flight")) in_flight(file());
    else if (!strcmp(kind, "io_uring")) ring(file());
    else if (!strcmp(kind, "bound")) bound();
    else if (!strcmp(kind, "mappings")) {
        for (int number = 1; number < 8 && fork(); number++) ;
        mappings();
    } else if (!strcmp(kind, "mounts")) {
        many_mounts();
        for (int number = 1; number < 8 && fork(); number++) ;
    } else if (!strcmp(kind, "only-a-bind")) only_a_bind();
    else if (!strcmp(kind, "chain")) { must(chdir(place) == 0, place); chain(); }
    else if (!strcmp(kind, "killer")) { must(chdir(place) == 0, place); killer(); }
    else if (!strcmp(kind, "namespace")) own_namespace();
    else if (strcmp(kind, "outside")) must(0, kind);
    ready();
    stay();
}
