/* A disk whose fsync takes longer, for one process: loaded by LD_PRELOAD in front of the C library (see fault_disk.py).
 * SLOW_SYNC_CONTROL names a file whose first four bytes are the microseconds that each fsync and fdatasync waits. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile const uint32_t *delay_us;

__attribute__((constructor)) static void find_control(void) {
  const char *path = getenv("SLOW_SYNC_CONTROL");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *seen = mmap(NULL, sizeof(uint32_t), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (seen != MAP_FAILED) delay_us = seen;
}

static void dawdle(void) {
  uint32_t us = delay_us ? *delay_us : 0;
  if (!us) return;
  struct timespec rest = {us / 1000000, (long)(us % 1000000) * 1000};
  while (nanosleep(&rest, &rest)) {
  }
}

int fsync(int file) {
  static int (*real)(int);
  if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  dawdle();
  return real(file);
}

int fdatasync(int file) {
  static int (*real)(int);
  if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  dawdle();
  return real(file);
}
