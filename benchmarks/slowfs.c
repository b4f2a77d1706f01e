/* Serves read-only FUSE mounts of one directory, each operation delayed, as a parallel file system's server does.
 *
 *     slowfs SOURCE COUNTERS TRACE LATENCY RATE BANDWIDTH VALID THREADS DEVICE...
 *
 * COUNTERS and TRACE are descriptors (TRACE may be -1), and so is each DEVICE: an open /dev/fuse that is mounted. LATENCY
 * in nanoseconds; RATE in operations a second and BANDWIDTH in bytes a second are those of one server that all mounts
 * share (0: no bound). VALID is how many seconds the kernel may keep an answer, THREADS how many requests of one mount
 * are served at a time. `ready` is printed when the kernel has greeted every mount; the program ends when all are gone.
 *
 * COUNTERS is a memory that its reader has mapped too: for each mount 64 numbers, the operations by the request's code,
 * with the bytes that were read in the last one. Requests without a round trip are not counted and not delayed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CODES = 64, BYTES = CODES - 1, LARGEST = 1 << 20, REQUEST = 1 << 16, BUCKETS = 1 << 16, STACK = 1 << 18 };

struct node {
    uint64_t number;
    int path, file; /* descriptors: O_PATH, and one for reading, opened at the first use */
    dev_t device;
    ino_t inode;
    char *name;
    char *listing; /* a directory's entries as the kernel takes them, made at the first use */
    size_t length;
    struct node *next;
};

struct mount {
    int device;
    _Atomic uint64_t *counters;
};

static struct node **nodes; /* by number; 0 is none, FUSE_ROOT_ID the source */
static size_t known, room;
static struct node *buckets[BUCKETS];
static pthread_mutex_t tree = PTHREAD_MUTEX_INITIALIZER, queue = PTHREAD_MUTEX_INITIALIZER;
static int64_t latency, free_at;
static double rate, bandwidth;
static uint64_t valid;
static int trace, waiting;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Until this operation's turn at the shared server has come and gone, and the answer has travelled. */
static void delay(int64_t arrived, size_t bytes) {
    int64_t done = arrived;
    if (rate > 0 || bandwidth > 0) {
        pthread_mutex_lock(&queue);
        int64_t begin = free_at > arrived ? free_at : arrived;
        done = free_at = begin + (rate > 0 ? 1e9 / rate : 0) + (bandwidth > 0 ? bytes * 1e9 / bandwidth : 0);
        pthread_mutex_unlock(&queue);
    }
    done += latency;
    struct timespec until = {done / 1000000000LL, done % 1000000000LL};
    if (done > arrived)
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
        }
}

/* The node of a descriptor, which it takes; one per inode, so that a hard link is the same file to the kernel. */
static struct node *node_of(int path, const struct stat *status, const char *above, const char *name) {
    struct node **bucket = &buckets[(status->st_ino * 31 + status->st_dev) % BUCKETS];
    pthread_mutex_lock(&tree);
    struct node *node = *bucket;
    while (node && (node->inode != status->st_ino || node->device != status->st_dev))
        node = node->next;
    if (node) {
        close(path);
    } else {
        if (known == room) {
            room = room ? room * 2 : 1024;
            nodes = realloc(nodes, room * sizeof *nodes);
        }
        node = calloc(1, sizeof *node);
        if (!nodes || !node || asprintf(&node->name, "%s/%s", above, name) < 0)
            fail("memory");
        node->number = known;
        node->path = path;
        node->file = -1;
        node->device = status->st_dev;
        node->inode = status->st_ino;
        node->next = *bucket;
        *bucket = nodes[known++] = node;
    }
    pthread_mutex_unlock(&tree);
    return node;
}

static struct node *numbered(uint64_t number) {
    pthread_mutex_lock(&tree);
    struct node *node = number && number < known ? nodes[number] : NULL;
    pthread_mutex_unlock(&tree);
    return node;
}

static int opened(struct node *node) {
    pthread_mutex_lock(&tree);
    if (node->file < 0) {
        char link[32];
        snprintf(link, sizeof link, "/proc/self/fd/%d", node->path);
        node->file = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
    int result = node->file < 0 ? -errno : node->file;
    pthread_mutex_unlock(&tree);
    return result;
}

static int list(struct node *node) {
    int file = opened(node);
    if (file < 0)
        return file;
    pthread_mutex_lock(&tree);
    if (!node->listing) {
        char *text = NULL;
        size_t length = 0;
        FILE *out = open_memstream(&text, &length);
        DIR *directory = fdopendir(dup(file));
        if (!out || !directory)
            fail("directory");
        for (struct dirent *entry; (entry = readdir(directory));) {
            size_t size = strlen(entry->d_name);
            uint64_t end = ftell(out) + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + size);
            struct fuse_dirent head = {entry->d_ino, end, size, entry->d_type};
            fwrite(&head, FUSE_NAME_OFFSET, 1, out);
            fwrite(entry->d_name, 1, size, out);
            while ((uint64_t)ftell(out) < end)
                fputc(0, out);
        }
        closedir(directory);
        fclose(out);
        node->listing = text;
        node->length = length;
    }
    pthread_mutex_unlock(&tree);
    return 0;
}

/* As many whole entries of a listing as fit. */
static size_t part(const struct node *node, uint64_t offset, size_t size) {
    size_t taken = 0;
    while (offset + taken < node->length) {
        const struct fuse_dirent *entry = (const void *)(node->listing + offset + taken);
        size_t step = FUSE_DIRENT_SIZE(entry);
        if (taken + step > size)
            break;
        taken += step;
    }
    return taken;
}

static void attributes(const struct stat *status, struct fuse_attr *out) {
    *out = (struct fuse_attr){
        .ino = status->st_ino, .size = status->st_size, .blocks = status->st_blocks, .atime = status->st_atim.tv_sec,
        .mtime = status->st_mtim.tv_sec, .ctime = status->st_ctim.tv_sec, .atimensec = status->st_atim.tv_nsec,
        .mtimensec = status->st_mtim.tv_nsec, .ctimensec = status->st_ctim.tv_nsec, .mode = status->st_mode,
        .nlink = status->st_nlink, .uid = status->st_uid, .gid = status->st_gid, .rdev = status->st_rdev,
        .blksize = 4096,
    };
}

static int look_up(struct node *above, const char *name, struct fuse_entry_out *out) {
    struct stat status;
    *out = (struct fuse_entry_out){.entry_valid = valid, .attr_valid = valid};
    int path = openat(above->path, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (path < 0)
        return errno == ENOENT ? 0 : -errno; /* node 0: an absence that the kernel may keep too */
    if (fstat(path, &status) < 0) {
        close(path);
        return -errno;
    }
    attributes(&status, &out->attr);
    out->nodeid = node_of(path, &status, above->name, name)->number;
    return 0;
}

/* The answer's length, or an error; `body` points to where it is. */
static ssize_t answer(const struct fuse_in_header *request, char *space, const void **body) {
    const void *in = request + 1;
    struct node *node = numbered(request->nodeid);
    struct stat status;
    *body = space;
    if (request->opcode == FUSE_INIT) {
        const struct fuse_init_in *asked = in;
        *(struct fuse_init_out *)space = (struct fuse_init_out){
            .major = FUSE_KERNEL_VERSION, .minor = 31, .max_readahead = asked->max_readahead,
            .flags = asked->flags & (FUSE_ASYNC_READ | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS),
            .max_background = 64, .congestion_threshold = 48, .max_write = 4096, .time_gran = 1,
            .max_pages = LARGEST / 4096,
        };
        return sizeof(struct fuse_init_out);
    }
    if (!node)
        return -ESTALE;
    switch (request->opcode) {
    case FUSE_LOOKUP: {
        int result = look_up(node, in, (struct fuse_entry_out *)space);
        return result < 0 ? result : (ssize_t)sizeof(struct fuse_entry_out);
    }
    case FUSE_GETATTR:
        if (fstat(node->path, &status) < 0)
            return -errno;
        *(struct fuse_attr_out *)space = (struct fuse_attr_out){.attr_valid = valid};
        attributes(&status, &((struct fuse_attr_out *)space)->attr);
        return sizeof(struct fuse_attr_out);
    case FUSE_READLINK: {
        ssize_t length = readlinkat(node->path, "", space, 4096);
        return length < 0 ? -errno : length;
    }
    case FUSE_OPEN:
    case FUSE_OPENDIR: {
        int result = request->opcode == FUSE_OPEN ? opened(node) : list(node);
        uint32_t keep = request->opcode == FUSE_OPEN ? FOPEN_KEEP_CACHE : FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR;
        *(struct fuse_open_out *)space = (struct fuse_open_out){.open_flags = keep};
        return result < 0 ? result : (ssize_t)sizeof(struct fuse_open_out);
    }
    case FUSE_READ: {
        const struct fuse_read_in *wanted = in;
        int file = opened(node);
        if (file < 0)
            return file;
        ssize_t length = pread(file, space, wanted->size < LARGEST ? wanted->size : LARGEST, wanted->offset);
        return length < 0 ? -errno : length;
    }
    case FUSE_READDIR: {
        const struct fuse_read_in *wanted = in;
        *body = node->listing + wanted->offset;
        return part(node, wanted->offset, wanted->size);
    }
    case FUSE_STATFS:
        *(struct fuse_statfs_out *)space = (struct fuse_statfs_out){.st = {.bsize = 4096, .namelen = 255, .frsize = 4096}};
        return sizeof(struct fuse_statfs_out);
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_FLUSH:
        return 0;
    default:
        return -ENOSYS;
    }
}

static int costs(const struct fuse_in_header *request) {
    switch (request->opcode) {
    case FUSE_LOOKUP:
    case FUSE_GETATTR:
    case FUSE_READLINK:
    case FUSE_OPEN:
    case FUSE_OPENDIR:
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_STATFS:
        return 1;
    default:
        return 0;
    }
}

static void count(const struct mount *mount, const struct fuse_in_header *request, ssize_t length) {
    atomic_fetch_add(&mount->counters[request->opcode], 1);
    if (request->opcode == FUSE_READ && length > 0)
        atomic_fetch_add(&mount->counters[BYTES], length);
    struct node *node = numbered(request->nodeid);
    if (trace >= 0 && node) {
        const char *name = request->opcode == FUSE_LOOKUP ? (const char *)(request + 1) : "";
        const struct fuse_read_in *wanted = (const void *)(request + 1);
        uint64_t offset = request->opcode == FUSE_READ ? wanted->offset : 0;
        ssize_t bytes = request->opcode == FUSE_READ && length > 0 ? length : 0;
        dprintf(trace, "%u %lu %zd %s%s%s\n", request->opcode, offset, bytes, node->name, *name ? "/" : "", name);
    }
}

static void *serve(void *given) {
    const struct mount *mount = given;
    char *request = malloc(REQUEST), *space = malloc(LARGEST);
    if (!request || !space)
        fail("memory");
    prctl(PR_SET_TIMERSLACK, 1);
    for (;;) {
        ssize_t size = read(mount->device, request, REQUEST);
        if (size < 0 && errno == ENODEV)
            return NULL;
        if (size < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
            continue;
        if (size < 0)
            fail("/dev/fuse");
        const struct fuse_in_header *head = (const void *)request;
        if (head->opcode == FUSE_FORGET || head->opcode == FUSE_BATCH_FORGET || head->opcode == FUSE_INTERRUPT)
            continue;
        int64_t arrived = now();
        const void *body;
        ssize_t length = answer(head, space, &body);
        if (costs(head)) {
            count(mount, head, length);
            delay(arrived, head->opcode == FUSE_READ && length > 0 ? length : 0);
        }
        size_t sent = length < 0 ? 0 : length;
        struct fuse_out_header out = {sizeof out + sent, length < 0 ? length : 0, head->unique};
        struct iovec parts[] = {{&out, sizeof out}, {(void *)body, sent}};
        /* ENOENT: the process that asked was interrupted */
        if (writev(mount->device, parts, 2) < 0 && errno != ENOENT && errno != ENODEV)
            fail("answer");
        if (head->opcode == FUSE_INIT && __atomic_sub_fetch(&waiting, 1, __ATOMIC_ACQ_REL) == 0) {
            puts("ready");
            fflush(stdout);
        }
    }
}

int main(int count_of, char **words) {
    if (count_of < 10)
        return 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int mounts = count_of - 9, threads = atoi(words[8]);
    trace = atoi(words[3]);
    latency = atoll(words[4]);
    rate = atof(words[5]);
    bandwidth = atof(words[6]);
    valid = atoll(words[7]);
    waiting = mounts;
    size_t size = mounts * CODES * sizeof(uint64_t);
    _Atomic uint64_t *counters = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(words[2]), 0);
    struct stat status;
    int source = open(words[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (counters == MAP_FAILED || source < 0 || fstat(source, &status) < 0)
        fail(words[1]);
    known = FUSE_ROOT_ID;
    nodes = calloc(room = 1024, sizeof *nodes);
    node_of(source, &status, "", "");
    nodes[FUSE_ROOT_ID]->name[0] = 0;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK);
    pthread_t *all = calloc((size_t)mounts * threads, sizeof *all);
    for (int number = 0; number < mounts * threads; number++) {
        struct mount *mount = malloc(sizeof *mount);
        *mount = (struct mount){atoi(words[9 + number / threads]), counters + number / threads * CODES};
        if (pthread_create(&all[number], &small, serve, mount))
            fail("thread");
    }
    for (int number = 0; number < mounts * threads; number++)
        pthread_join(all[number], NULL);
    return 0;
}
