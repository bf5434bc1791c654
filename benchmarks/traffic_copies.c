/* What a span port adds: a packet that passes it twice stands twice in the capture. A copy differs from its first in
 * TTL, in VLAN tag, in both, or, where an IPv4 ID tells it, in nothing. Its timestamp is up to 50 ms later, and it comes
 * into the file up to 50 ms after its first, behind packets with later timestamps. */
#include "traffic.h"

#include <stdlib.h>
#include <string.h>

#define COPY_WINDOW_NS (50 * NS_PER_MS)

enum { ETHERNET = 14, TAG = 4, TTL4 = 8, SUM4 = 10, TTL6 = 7 };
enum { BY_TTL = 1, BY_VLAN = 2 }; /* what differs */

typedef struct {
    int64_t place, at;       /* where in the file it comes (ns), and its timestamp */
    uint64_t order;
    Connection *c;
    uint8_t from;
    uint32_t captured, wire, ip_bytes;
    uint8_t *frame;
} Copy;

static Copy *heap;
static size_t count, room;
static uint64_t taken, state;

static int64_t below(int64_t bound)
{
    return (int64_t)((unsigned __int128)random_next(&state) * (uint64_t)bound >> 64);
}

static bool sooner(const Copy *a, const Copy *b)
{
    return a->place < b->place || (a->place == b->place && a->order < b->order);
}

static void push(Copy copy)
{
    if (count == room) {
        room = room ? room * 2 : 1024;
        heap = realloc(heap, room * sizeof *heap);
        if (!heap)
            fail("out of memory for copies");
    }
    size_t i = count++;
    for (; i && sooner(&copy, &heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = copy;
}

static Copy pop(void)
{
    Copy first = heap[0], last = heap[--count];
    size_t i = 0;
    for (size_t child = 1; child < count; child = 2 * i + 1) {
        child += child + 1 < count && sooner(&heap[child + 1], &heap[child]);
        if (!sooner(&heap[child], &last))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return first;
}

void copies_seed(uint64_t seed)
{
    state = seed ^ UINT64_C(0xc0917ec0917ec091); /* apart from the traffic's, which stays what it is without copies */
}

/* The differences that let a tracker tell this copy; `headers` is the length of the frame's headers. */
static int differences(const Connection *c, const uint8_t *ip, size_t headers)
{
    bool has_id = c->ip_version == 4 && (ip[4] || ip[5]);
    bool cut = headers + TAG > options.snaplen; /* a tag would push options out of what is captured */
    int chosen = (int)below(4) & (cut ? BY_TTL : BY_TTL | BY_VLAN);
    return chosen || has_id ? chosen : BY_TTL;
}

void copies_take(Connection *c, const Packet *p, const uint8_t *frame, size_t captured, size_t wire, size_t headers)
{
    if ((double)(random_next(&state) >> 11) * 0x1p-53 >= options.duplicates)
        return;
    if (c->first_packet && c->deadline - p->at < NS_PER_S)
        return; /* its record may have ended when the copy comes */
    int64_t late = below(COPY_WINDOW_NS + 1);
    Copy copy = {.place = p->at + late, .at = p->at + below(late + 1), .order = taken++, .c = c, .from = p->from,
                 .ip_bytes = (uint32_t)packet_ip_bytes(c, p), .frame = malloc(captured + TAG)};
    if (!copy.frame)
        fail("out of memory for copies");
    int different = differences(c, frame + ETHERNET, headers);
    size_t tag = different & BY_VLAN ? TAG : 0;
    uint8_t *ip = copy.frame + ETHERNET + tag;
    memcpy(copy.frame, frame, 12);
    memcpy(copy.frame + 12 + tag, frame + 12, captured - 12);
    if (tag)
        memcpy(copy.frame + 12, (uint8_t[]){0x81, 0, 0, (uint8_t)(1 + below(200))}, TAG);
    if (different & BY_TTL && c->ip_version == 6)
        ip[TTL6]--;
    else if (different & BY_TTL) {
        /* RFC 1624: one off the upper byte of a word is as much on the sum's complement. */
        uint32_t sum = ((uint32_t)ip[SUM4] << 8 | ip[SUM4 + 1]) + 0x100;
        sum = (sum & 0xffff) + (sum >> 16);
        ip[TTL4]--;
        ip[SUM4] = (uint8_t)(sum >> 8);
        ip[SUM4 + 1] = (uint8_t)sum;
    }
    copy.captured = (uint32_t)(captured + tag < options.snaplen ? captured + tag : options.snaplen);
    copy.wire = (uint32_t)(wire + tag);
    push(copy);
}

/* Writes the copies whose place is before that of a packet at `at`. Those still waiting when the input ends are no part
 * of it. */
void copies_until(int64_t at)
{
    while (count && heap[0].place < at) {
        Copy copy = pop();
        wire_append(copy.at, copy.frame, copy.captured, copy.wire);
        free(copy.frame);
        truth_copy(copy.c, copy.from, copy.at, copy.ip_bytes);
    }
}
