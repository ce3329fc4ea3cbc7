/* A disk, and a clock, that misbehave on request: preloaded into the gateway and into Valkey by the chaos runs.

   Writes go through to the real file, so reads, mmap and other processes see what they would see in the page cache.
   Before each write the bytes it replaces are kept in a side file, one per inode; a successful fsync forgets what came
   before it. So after kill -9 a side file holds exactly what a power failure may take back: see chaos_disk.py, which
   does that. What stdio writes, renames, and new directory entries count as durable at once.

   CHAOS_DIR: only files below it: databases, and all of appendonlydir | CHAOS_SIDE: where the side files go
   CHAOS_CONTROL: a file laid out as struct control, written by the harness while we run */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
  uint32_t delay_us; /* each fsync of ours takes up to this much longer */
  uint32_t eio_in;   /* the n-th fsync from now fails with EIO, until then all of indexes do; 0: none */
  uint32_t full;     /* files of ours do not grow any more: ENOSPC */
  uint32_t failures; /* how often EIO or ENOSPC was answered */
  int64_t clock_ms;  /* added to the wall clock */
  uint64_t syncs;    /* how many fsyncs of ours there were */
};
struct record { uint64_t at, size_before; uint32_t old, fresh; };
struct file { dev_t dev; ino_t ino; int side; uint64_t end; int index; };
enum { FILES = 64, PATH = 512 };
#define HEAD sizeof(uint64_t) /* a side file begins with the offset of its first record that counts */

static struct file files[FILES];
static int used;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static struct control calm, *control = &calm;
static char dir[PATH], side[PATH];

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int), (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

static void lock(void) { pthread_mutex_lock(&turn); }
static void unlock(void) { pthread_mutex_unlock(&turn); }

__attribute__((constructor)) static void begin(void) {
  if (real_write) return;
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  real_write = dlsym(RTLD_NEXT, "write");
  const char *d = getenv("CHAOS_DIR"), *s = getenv("CHAOS_SIDE"), *c = getenv("CHAOS_CONTROL");
  if (!d || !s || !c) return;
  snprintf(dir, PATH, "%s/", d); /* copied: servers that set their title overwrite the environment */
  snprintf(side, PATH, "%s", s);
  int fd = open(c, O_RDWR | O_CLOEXEC);
  void *map = fd < 0 ? MAP_FAILED : mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) abort();
  control = map;
  close(fd);
  pthread_atfork(lock, unlock, unlock);
}

static int is_ours(const char *path) {
  if (strncmp(path, dir, strlen(dir))) return 0;
  const char *name = strrchr(path, '/') + 1;
  if (strstr(path, "/appendonlydir/")) return 1;
  return strstr(name, ".db") && !strstr(name, "-shm") && !strstr(name, ".lock");
}

/* Indexes of the log: SQLite's own checkpoints of them keep silent about a failed fsync, and do it again. */
static int is_index(const char *path) {
  const char *name = strrchr(path, '/') + 1;
  return !strncmp(name, "index.db", 8) || !strncmp(name, "console.db", 10);
}

/* The file behind a descriptor, if it is one of ours; locked by the caller. */
static struct file *file_of(int fd, struct stat *st) {
  if (!*dir || fstat(fd, st) || !S_ISREG(st->st_mode)) return NULL;
  for (int i = 0; i < used; i++)
    if (files[i].ino == st->st_ino && files[i].dev == st->st_dev) return &files[i];
  char link[64], path[PATH];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, PATH - 1);
  if (n < 0) return NULL;
  path[n] = 0;
  if (!is_ours(path)) return NULL;
  if (used == FILES) abort();
  struct file *f = &files[used++];
  f->dev = st->st_dev;
  f->ino = st->st_ino;
  f->index = is_index(path);
  char undo[PATH + 32];
  snprintf(undo, sizeof undo, "%s/%lu.undo", side, (unsigned long)st->st_ino);
  f->side = open(undo, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  struct stat kept;
  if (f->side < 0 || fstat(f->side, &kept)) abort();
  f->end = kept.st_size > (off_t)HEAD ? (uint64_t)kept.st_size : HEAD;
  uint64_t first = HEAD;
  if (pread(f->side, &first, HEAD, 0) != HEAD || first > f->end) {
    first = HEAD;
    if (real_pwrite(f->side, &first, HEAD, 0) != HEAD) abort();
  }
  return f;
}

/* Remember what a write of `fresh` bytes at `at` (or a truncation to `at`) takes away. */
static void remember(struct file *f, int fd, uint64_t at, uint64_t gone, uint32_t fresh, uint64_t size) {
  if (at + gone > size) gone = size > at ? size - at : 0;
  struct record *r = malloc(sizeof *r + gone);
  if (!r) abort();
  *r = (struct record){at, size, gone, fresh};
  if (gone) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int reading = open(path, O_RDONLY | O_CLOEXEC); /* ours may be open for writing only */
    if (reading < 0 || pread(reading, r + 1, gone, at) != (ssize_t)gone) abort();
    close(reading);
  }
  size_t bytes = sizeof *r + gone;
  if (real_pwrite(f->side, r, bytes, f->end) != (ssize_t)bytes) abort();
  f->end += bytes;
  free(r);
}

static int is_full(uint64_t end, uint64_t size) {
  if (!control->full || end <= size) return 0;
  __atomic_add_fetch(&control->failures, 1, __ATOMIC_RELAXED);
  errno = ENOSPC;
  return 1;
}

ssize_t write(int fd, const void *bytes, size_t n) {
  if (!real_write) begin();
  if (!*dir) return real_write(fd, bytes, n);
  struct stat st;
  lock();
  struct file *f = file_of(fd, &st);
  ssize_t done = -1;
  if (!f) {
    unlock();
    return real_write(fd, bytes, n);
  }
  uint64_t at = fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
  if (!is_full(at + n, st.st_size)) {
    remember(f, fd, at, n, n, st.st_size);
    done = real_write(fd, bytes, n);
  }
  unlock();
  return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off_t at) {
  if (!real_write) begin();
  struct stat st;
  lock();
  struct file *f = file_of(fd, &st);
  ssize_t done = -1;
  if (!f)
    done = real_pwrite(fd, bytes, n, at);
  else if (!is_full(at + n, st.st_size)) {
    remember(f, fd, at, n, n, st.st_size);
    done = real_pwrite(fd, bytes, n, at);
  }
  unlock();
  return done;
}
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) { return pwrite64(fd, bytes, n, at); }

int ftruncate64(int fd, off_t size) {
  if (!real_write) begin();
  struct stat st;
  lock();
  struct file *f = file_of(fd, &st);
  if (f) remember(f, fd, size, st.st_size > size ? st.st_size - size : 0, 0, st.st_size);
  int done = real_ftruncate(fd, size);
  unlock();
  return done;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, int (*real)(int)) {
  struct stat st;
  lock();
  struct file *f = file_of(fd, &st);
  uint64_t upto = f ? f->end : 0;
  int index = f && f->index;
  unlock();
  if (!f) return real(fd);
  uint32_t wait_us = control->delay_us;
  if (wait_us) {
    struct timespec now;
    real_clock_gettime(CLOCK_MONOTONIC, &now);
    usleep(now.tv_nsec / 1000 * 2654435761u % wait_us);
  }
  if (control->eio_in && (index || !__atomic_sub_fetch(&control->eio_in, 1, __ATOMIC_RELAXED))) {
    __atomic_add_fetch(&control->failures, 1, __ATOMIC_RELAXED);
    errno = EIO;
    return -1;
  }
  int done = real(fd);
  if (done) return done;
  __atomic_add_fetch(&control->syncs, 1, __ATOMIC_RELAXED);
  lock();
  f = file_of(fd, &st); /* it may have moved meanwhile */
  if (f->end == upto) { /* cut first: killed in between, the first record lies behind the end, so none counts */
    if (real_ftruncate(f->side, HEAD)) abort();
    f->end = upto = HEAD;
  }
  if (real_pwrite(f->side, &upto, HEAD, 0) != HEAD) abort();
  unlock();
  return 0;
}
int fsync(int fd) {
  if (!real_write) begin();
  return synced(fd, real_fsync);
}
int fdatasync(int fd) {
  if (!real_write) begin();
  return synced(fd, real_fdatasync);
}

int unlink(const char *path) { /* its inode may soon be another file's */
  if (!real_write) begin();
  struct stat st;
  lock();
  if (*dir && !stat(path, &st))
    for (int i = 0; i < used; i++)
      if (files[i].ino == st.st_ino && files[i].dev == st.st_dev) {
        uint64_t first = HEAD;
        if (real_ftruncate(files[i].side, 0) || real_pwrite(files[i].side, &first, HEAD, 0) != HEAD) abort();
        close(files[i].side);
        files[i] = files[--used];
      }
  unlock();
  return real_unlink(path);
}

int clock_gettime(clockid_t id, struct timespec *now) {
  if (!real_clock_gettime) real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  int done = real_clock_gettime(id, now);
  if (!done && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
    int64_t ns = now->tv_nsec + control->clock_ms % 1000 * 1000000;
    now->tv_sec += control->clock_ms / 1000 + (ns >= 1000000000) - (ns < 0);
    now->tv_nsec = (ns + 1000000000) % 1000000000;
  }
  return done;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *out) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (out) *out = exact.tv_sec;
  return exact.tv_sec;
}
