/* What Cython cannot say: prefetch, 128-bit arithmetic, aligned memory. */
#ifndef SYNFIN_CORE_H
#define SYNFIN_CORE_H

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* The empty statement keeps gcc from dropping a function that does nothing but prefetch. */
static inline void prefetch_read(const void *p) {
    __builtin_prefetch(p, 0, 3);
    __asm__ volatile("");
}
static inline void prefetch_write(const void *p) {
    __builtin_prefetch(p, 1, 3);
    __asm__ volatile("");
}

/* Number of the highest bit that is set. Not for 0. */
static inline int highest_bit(uint64_t value) {
    return 63 - __builtin_clzll(value);
}

/* Odd constants of the mixing steps (the fractional part of the golden ratio, and arbitrary ones). */
static const uint64_t MIX_A = 0x9E3779B97F4A7C15ULL, MIX_B = 0xE7037ED1A0B428DBULL, MIX_C = 0x8EBC6AF09C88C6E3ULL,
                      MIX_D = 0xD6E8FEB86659FD93ULL;
static const uint64_t FNV_OFFSET = 0xCBF29CE484222325ULL, FNV_PRIME = 0x100000001B3ULL;

/* A time before every timestamp. */
static const int64_t NEVER = -INT64_MAX;

/* Folds the 128-bit product of two words: a fast mixing step whose result cannot be steered without the seed. */
static inline uint64_t mix64(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The kinds of TCP options that a bit each tells in a record (wide.pxd): 0 to 4, 8, 30, 34. */
static const uint64_t USUAL_KINDS = 0x1F | 1 << 8 | 1 << 30 | 1ULL << 34;

/* Bit fields, which Cython does not have; what they mean stands in flow.pxd. */
typedef struct {
    uint32_t timer_slot : 11, first_end : 1, direction : 3, ecn : 3, fast_open : 2, mptcp : 2, quality_server : 2,
        quality_client : 2, answer : 5, has_wide : 1;
} Choices;

/* What is too long a round trip for its usual place: all ones in 40 bits. */
static const int64_t LONG_RTT_NS = ((int64_t)1 << 40) - 1;

/* Adds a square to a sum of which 80 bits are kept. Returns what goes beyond them. */
static inline uint64_t add_square(uint64_t *low, uint16_t *high, uint64_t value) {
    unsigned __int128 sum = ((unsigned __int128)*high << 64) | *low;
    sum += (unsigned __int128)value * value;
    *low = (uint64_t)sum;
    *high = (uint16_t)(sum >> 64);
    return (uint64_t)(sum >> 80);
}

/* floor(sqrt(x)). A double's root is off by 2^12 at most; a step of Newton's brings that below 1 or 2. */
static inline uint64_t whole_root(unsigned __int128 x) {
    double estimate = __builtin_sqrt((double)x);
    uint64_t root = estimate < 0x1p64 ? (uint64_t)estimate : UINT64_MAX;
    unsigned __int128 better = root ? (root + x / root) / 2 : 0;
    root = better < UINT64_MAX ? (uint64_t)better : UINT64_MAX;
    while ((unsigned __int128)root * root > x)
        root--;
    while (root < UINT64_MAX && (unsigned __int128)(root + 1) * (root + 1) <= x)
        root++;
    return root;
}

/* floor(sqrt(count * squares - total^2) / count): the population standard deviation from exact sums, rounded down.
 * Beyond 128 bits (which takes 2^20 samples of tens of minutes each) the last digits are those of a long double. */
static inline int64_t exact_stddev(uint64_t count, uint64_t total, uint64_t squares_low, uint64_t squares_high) {
    typedef unsigned __int128 u128;
    u128 s = ((u128)squares_high << 64) | squares_low, product;
    if (count == 0)
        return 0;
    if (__builtin_mul_overflow(s, (u128)count, &product)) {
        long double mean = (long double)total / count, var = (long double)s / count - mean * mean;
        return var > 0 ? (int64_t)__builtin_sqrtl(var) : 0;
    }
    return (int64_t)(whole_root(product - (u128)total * total) / count);
}

static inline uint64_t big_endian_64(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? word : __builtin_bswap64(word);
}

/* 1 where the 16 bytes at a come after those at b, `if_equal` where they are equal. Without a branch: which end of a
 * connection sends next cannot be predicted. */
static inline int address_order(const uint8_t *a, const uint8_t *b, int if_equal) {
    uint64_t a0 = big_endian_64(a), b0 = big_endian_64(b), a1 = big_endian_64(a + 8), b1 = big_endian_64(b + 8);
    return (a0 > b0) | ((a0 == b0) & ((a1 > b1) | ((a1 == b1) & if_equal)));
}

/* Bytes of this process that lie in memory; where /proc does not tell, the most that ever did. */
static inline int64_t resident_bytes(void) {
    char text[64];
    struct rusage usage;
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    if (got > 0) {
        char *second;
        text[got] = 0;
        (void)strtoll(text, &second, 10);
        return strtoll(second, NULL, 10) * sysconf(_SC_PAGESIZE);
    }
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
#ifdef __APPLE__
    return usage.ru_maxrss;
#else
    return (int64_t)usage.ru_maxrss * 1024;
#endif
}

static inline void *aligned_block(size_t bytes) {
    void *p = NULL;
    return posix_memalign(&p, 64, bytes) == 0 ? p : NULL;
}

/* Large memory that is looked at here and there: with pages of 2 MiB, where the system gives them, an access rarely waits
 * for the page's address, too. Given back by free. */
static inline void *huge_block(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, (size_t)1 << 21, bytes) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

/* The same, zeroed; small ones without such pages. */
static inline void *zeroed_block(size_t bytes) {
    void *p;
    if (bytes < (size_t)1 << 21)
        return calloc(1, bytes);
    p = huge_block(bytes);
    if (p != NULL)
        memset(p, 0, bytes);
    return p;
}
#endif
