/* What memory itself allows: nanoseconds to load and change `lines` random cache lines for each of many packets, all of
 * a batch prefetched before the first is touched, as synfin does. What a tracker computes comes on top.
 *
 * Usage: lines [MEGABYTES]      of memory that the lines lie in (160: half a million connections) */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BATCH = 256, BATCHES = 20000, MOST = 8, LINE = 64 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Nanoseconds a packet. */
static double walk(uint8_t *memory, uint64_t places, int lines) {
    uint64_t state = 88172645463325252ULL;
    double begin = now();
    for (int batch = 0; batch < BATCHES; batch++) {
        static uint8_t *at[BATCH * MOST];
        for (int i = 0; i < BATCH * lines; i++) {
            at[i] = memory + next(&state) % places * LINE;
            __builtin_prefetch(at[i], 1, 3);
        }
        for (int i = 0; i < BATCH * lines; i++)
            ++*at[i];
    }
    return (now() - begin) * 1e9 / ((double)BATCH * BATCHES);
}

int main(int argc, char **argv) {
    uint64_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 160) << 20;
    uint8_t *memory;
    if (bytes == 0 || posix_memalign((void **)&memory, (size_t)1 << 21, bytes) != 0) {
        fprintf(stderr, "lines: no memory for %s MB\n", argc > 1 ? argv[1] : "160");
        return 2;
    }
    madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, 0, bytes);
    printf("| lines a packet | ns a packet in %llu MB | in 16 KB |\n| ---: | ---: | ---: |\n", (unsigned long long)bytes >> 20);
    for (int lines = 1; lines <= MOST; lines++)
        printf("| %d | %.0f | %.0f |\n", lines, walk(memory, bytes / LINE, lines), walk(memory, 256, lines));
    free(memory);
    return 0;
}
