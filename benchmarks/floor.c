/* floor: the least that a flow tracker could do with a capture. Reads a pcap in large pieces, walks its records, parses
 * Ethernet, IPv4 or IPv6 and TCP headers, finds the connection in a compact hash table, and adds one to its counter.
 * Its time is what synfin's is divided by: that ratio says more than packets per second on one machine.
 *
 * Lookups go in batches: headers of BATCH packets are parsed and the table's lines prefetched, then all are looked up,
 * so that memory latency is hidden. An IPv4 entry takes 16 bytes, an IPv6 entry 40.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { BATCH = 256, RECORD_HEADER = 16, RECORD_MOST = 262144 + RECORD_HEADER };

/* A connection's key in network byte order, the smaller end first; `count` 0 marks a free entry. */
typedef struct {
    uint64_t addresses;
    uint32_t ports, count;
} Entry4;

typedef struct {
    uint64_t addresses[4];
    uint32_t ports, count;
} Entry6;

typedef struct {
    uint64_t addresses[4]; /* IPv4: the first one */
    uint64_t hash;
    uint32_t ports;
    bool ipv6;
} Key;

typedef struct {
    uint64_t packets, tcp, payload_bytes, syns;
} Totals;

static Entry4 *table4;
static Entry6 *table6;
static uint64_t mask4, mask6, flows4, flows6;

static void stop(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void *pages(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        stop("memory");
    madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

static inline uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)(a ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xe7037ed1a0b428db));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash4(uint64_t addresses, uint32_t ports)
{
    return mix(addresses, ports);
}

static inline uint64_t hash6(const uint64_t *addresses, uint32_t ports)
{
    return mix(mix(addresses[0], addresses[1]) ^ ports, mix(addresses[2], addresses[3]));
}

/* ---- the tables: linear probing, at most half full ---- */

static void grow4(void)
{
    Entry4 *old = table4;
    uint64_t size = old ? mask4 + 1 : 0;
    mask4 = size ? 2 * size - 1 : (1 << 16) - 1;
    table4 = pages((mask4 + 1) * sizeof *table4);
    for (uint64_t i = 0; i < size; i++)
        if (old[i].count) {
            uint64_t slot = hash4(old[i].addresses, old[i].ports) & mask4;
            while (table4[slot].count)
                slot = (slot + 1) & mask4;
            table4[slot] = old[i];
        }
    if (old)
        munmap(old, size * sizeof *old);
}

static void grow6(void)
{
    Entry6 *old = table6;
    uint64_t size = old ? mask6 + 1 : 0;
    mask6 = size ? 2 * size - 1 : (1 << 12) - 1;
    table6 = pages((mask6 + 1) * sizeof *table6);
    for (uint64_t i = 0; i < size; i++)
        if (old[i].count) {
            uint64_t slot = hash6(old[i].addresses, old[i].ports) & mask6;
            while (table6[slot].count)
                slot = (slot + 1) & mask6;
            table6[slot] = old[i];
        }
    if (old)
        munmap(old, size * sizeof *old);
}

static inline void bump4(const Key *key)
{
    uint64_t slot = key->hash & mask4;
    while (table4[slot].count) {
        if (table4[slot].addresses == key->addresses[0] && table4[slot].ports == key->ports) {
            table4[slot].count++;
            return;
        }
        slot = (slot + 1) & mask4;
    }
    table4[slot] = (Entry4){key->addresses[0], key->ports, 1};
    if (2 * ++flows4 > mask4)
        grow4();
}

static inline void bump6(const Key *key)
{
    uint64_t slot = key->hash & mask6;
    while (table6[slot].count) {
        if (!memcmp(table6[slot].addresses, key->addresses, sizeof key->addresses) && table6[slot].ports == key->ports) {
            table6[slot].count++;
            return;
        }
        slot = (slot + 1) & mask6;
    }
    memcpy(table6[slot].addresses, key->addresses, sizeof key->addresses);
    table6[slot].ports = key->ports;
    table6[slot].count = 1;
    if (2 * ++flows6 > mask6)
        grow6();
}

/* ---- packets ---- */

static inline unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Header of TCP at `tcp`, `size` bytes announced by IP; false if it does not fit. */
static inline bool parse_tcp(const uint8_t *tcp, const uint8_t *end, unsigned size, Totals *totals)
{
    if (end - tcp < 20)
        return false;
    unsigned header = tcp[12] >> 4 << 2;
    if (header < 20 || header > size)
        return false;
    totals->payload_bytes += size - header;
    totals->syns += tcp[13] >> 1 & 1;
    return true;
}

static inline void key4(Key *key, const uint8_t *addresses, const uint8_t *tcp)
{
    uint64_t a = load32(addresses), b = load32(addresses + 4);
    uint32_t p = get16(tcp), q = get16(tcp + 2);
    bool swap = a > b || (a == b && p > q);
    key->ipv6 = false;
    key->addresses[0] = swap ? b << 32 | a : a << 32 | b;
    key->ports = swap ? q << 16 | p : p << 16 | q;
    key->hash = hash4(key->addresses[0], key->ports);
    __builtin_prefetch(&table4[key->hash & mask4], 1);
}

static inline void key6(Key *key, const uint8_t *addresses, const uint8_t *tcp)
{
    uint32_t p = get16(tcp), q = get16(tcp + 2);
    int order = memcmp(addresses, addresses + 16, 16);
    bool swap = order > 0 || (order == 0 && p > q);
    key->ipv6 = true;
    for (int i = 0; i < 4; i++)
        key->addresses[i] = load64(addresses + ((swap ? i ^ 2 : i) * 8));
    key->ports = swap ? q << 16 | p : p << 16 | q;
    key->hash = hash6(key->addresses, key->ports);
    __builtin_prefetch(&table6[key->hash & mask6], 1);
    __builtin_prefetch((const char *)(&table6[key->hash & mask6] + 1) - 1, 1);
}

/* The key of a frame of TCP in IP in Ethernet; false for all others. */
static inline bool parse(Key *key, const uint8_t *frame, const uint8_t *end, Totals *totals)
{
    const uint8_t *ip = frame + 14;
    if (end - ip < 40)
        return false;
    unsigned type = get16(frame + 12);
    if (type == 0x0800) {
        unsigned header = (ip[0] & 15) * 4, total = get16(ip + 2);
        const uint8_t *tcp = ip + header;
        if (ip[0] >> 4 != 4 || header < 20 || total < header || ip[9] != 6 || get16(ip + 6) & 0x1fff)
            return false;
        if (!parse_tcp(tcp, end, total - header, totals))
            return false;
        key4(key, ip + 12, tcp);
        return true;
    }
    if (type == 0x86dd) {
        if (ip[0] >> 4 != 6 || ip[6] != 6 || !parse_tcp(ip + 40, end, get16(ip + 4), totals))
            return false;
        key6(key, ip + 8, ip + 40);
        return true;
    }
    return false;
}

static inline void bump(const Key *keys, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (keys[i].ipv6)
            bump6(&keys[i]);
        else
            bump4(&keys[i]);
}

/* Walks all whole records in `p`..`end`; returns where the first incomplete one begins. */
static const uint8_t *walk(const uint8_t *p, const uint8_t *end, Totals *totals)
{
    static Key keys[BATCH];
    unsigned count = 0;
    while (end - p >= RECORD_HEADER) {
        uint32_t captured = load32(p + 8);
        if (captured > RECORD_MOST - RECORD_HEADER) {
            fputs("floor: a corrupt record\n", stderr);
            exit(2);
        }
        const uint8_t *frame = p + RECORD_HEADER;
        if (end - frame < (ptrdiff_t)captured)
            break;
        p = frame + captured;
        totals->packets++;
        if (!parse(&keys[count], frame, p, totals))
            continue;
        totals->tcp++;
        if (++count == BATCH) {
            bump(keys, BATCH);
            count = 0;
        }
    }
    bump(keys, count);
    return p;
}

int main(int argc, char **argv)
{
    const size_t piece = argc > 2 ? strtoul(argv[2], NULL, 0) : 1 << 18;
    if (argc < 2 || piece < 4096) {
        fputs("usage: floor CAPTURE.pcap [BYTES-PER-READ]\n", stderr);
        return 2;
    }
    int fd = open(argv[1], O_RDONLY);
    if (fd < 0)
        stop(argv[1]);
    uint8_t *buffer = pages(RECORD_MOST + piece);
    Totals totals = {0};
    size_t kept = 0;
    bool first = true;
    grow4();
    grow6();
    for (;;) {
        ssize_t n = read(fd, buffer + kept, piece);
        if (n < 0)
            stop(argv[1]);
        if (n == 0)
            break;
        const uint8_t *p = buffer, *end = buffer + kept + n;
        if (first) {
            if (end - p < 24 || (load32(p) != 0xa1b23c4d && load32(p) != 0xa1b2c3d4) || load32(p + 20) != 1) {
                fputs("floor: not a little-endian Ethernet pcap\n", stderr);
                return 2;
            }
            p += 24;
            first = false;
        }
        p = walk(p, end, &totals);
        kept = (size_t)(end - p);
        memmove(buffer, p, kept);
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
               + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("%llu packets, %llu tcp, %llu flows, %llu payload bytes, %llu syns, %.3f s cpu\n",
           (unsigned long long)totals.packets, (unsigned long long)totals.tcp, (unsigned long long)(flows4 + flows6),
           (unsigned long long)totals.payload_bytes, (unsigned long long)totals.syns, cpu);
    return 0;
}
