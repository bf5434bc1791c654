/* The truth of the interval table: one TSV row for each second in which something is or happens. */
#include "traffic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SLICES = 10, SLICE_NS = 100000000 };
enum { G_CONNECTIONS = 9, G_OPENING, G_HALF_OPEN, G_HALF_CLOSED, GAUGES }; /* before them one for each state */
enum {
    N_SYNS, N_SYN_RESENDS, N_SYNACKS, N_COMPLETED, N_REFUSED, N_UNANSWERED, N_HALF_OPEN_EXPIRED, N_ABORTED, N_CLOSED_FIN,
    N_CLOSED_RST, N_PACKETS, N_IP_BYTES, N_RETRANSMITTED, N_COPIES, COUNTS
};

static const char *const gauge_names[] = {
    "syn_sent", "syn_received", "established", "fin_wait_1", "fin_wait_2", "close_wait", "closing", "last_ack",
    "time_wait", "connections", "opening", "half_open", "half_closed"};
static const char *const count_names[] = {
    "syns", "syn_resends", "synacks", "completed", "refused", "unanswered", "half_open_expired", "aborted", "closed_fin",
    "closed_rst", "packets", "ip_bytes", "retransmitted_segments", "capture_duplicates"};

typedef struct {
    int64_t change[SLICES][GAUGES]; /* of each gauge within each slice */
    int64_t counts[COUNTS];
} Second;

static Second *seconds;
static int64_t origin, used, room;

static Second *second_at(int64_t at, int *slice)
{
    int64_t index = at / NS_PER_S - origin;
    if (index >= room) {
        int64_t more = index + index / 2 + 16;
        seconds = realloc(seconds, (size_t)more * sizeof *seconds);
        if (!seconds)
            fail("out of memory for %lld seconds", (long long)more);
        memset(seconds + room, 0, (size_t)(more - room) * sizeof *seconds);
        room = more;
    }
    if (index >= used)
        used = index + 1;
    *slice = (int)(at % NS_PER_S / SLICE_NS);
    return seconds + index;
}

static void add_situation(int64_t *change, const Situation *s, int sign)
{
    for (int i = 0; i < 2; i++)
        if (s->state[i] >= SYN_SENT)
            change[s->state[i] - SYN_SENT] += sign;
    if (s->phase <= P_BOTH_FINS)
        change[G_CONNECTIONS] += sign;
    if (s->phase == P_OPENING)
        change[G_OPENING] += sign;
    if (s->phase == P_HALF_OPEN)
        change[G_HALF_OPEN] += sign;
    if (s->phase == P_HALF_CLOSED)
        change[G_HALF_CLOSED] += sign;
}

void intervals_open(int64_t first)
{
    origin = first / NS_PER_S;
}

void intervals_note(const Connection *c, const Packet *p, const Situation *before, bool syn_again)
{
    if (!options.intervals)
        return;
    int slice;
    Second *s = second_at(p->at, &slice);
    const Situation *after = &p->after;
    add_situation(s->change[slice], before, -1);
    add_situation(s->change[slice], after, 1);
    s->counts[N_PACKETS]++;
    s->counts[N_IP_BYTES] += packet_ip_bytes(c, p);
    s->counts[N_SYNS] += p->meaning == M_SYN;
    s->counts[N_SYN_RESENDS] += syn_again;
    s->counts[N_SYNACKS] += p->meaning == M_SYNACK;
    s->counts[N_RETRANSMITTED] += p->payload_bytes && (p->meaning == M_AGAIN || p->meaning == M_FIN_AGAIN);
    if (before->handshake != after->handshake) {
        s->counts[N_COMPLETED] += after->handshake == HS_COMPLETE;
        s->counts[N_REFUSED] += after->handshake == HS_REFUSED;
        s->counts[N_ABORTED] += after->handshake == HS_ABORTED;
    }
    s->counts[N_CLOSED_FIN] += before->phase != P_CLOSED && after->phase == P_CLOSED;
    s->counts[N_CLOSED_RST] += before->close != after->close && (after->close == C_RST || after->close == C_RST_AFTER_FIN);
}

void intervals_copy(int64_t at, int64_t ip_bytes)
{
    if (!options.intervals)
        return;
    int slice;
    Second *s = second_at(at, &slice);
    s->counts[N_PACKETS]++;
    s->counts[N_IP_BYTES] += ip_bytes;
    s->counts[N_COPIES]++;
}

/* The record ends at a deadline or by reuse, and leaves the gauges. */
void intervals_end(const Connection *c, int64_t at)
{
    if (!options.intervals)
        return;
    int slice;
    Second *s = second_at(at, &slice);
    add_situation(s->change[slice], &c->now, -1);
    s->counts[N_UNANSWERED] += c->now.handshake == HS_UNANSWERED;
    s->counts[N_HALF_OPEN_EXPIRED] += c->now.handshake == HS_HALF_OPEN;
}

void intervals_close(void)
{
    if (!options.intervals)
        return;
    FILE *out = fopen(options.intervals, "w");
    if (!out)
        fail("cannot write %s: %s", options.intervals, strerror(errno));
    fputs("interval_start\tinterval_ns\tcomplete", out);
    for (int g = 0; g < GAUGES; g++)
        fprintf(out, "\t%s", gauge_names[g]);
    fputs("\topening_peak\thalf_open_peak\ttime_wait_peak\tmidstream", out);
    for (int n = 0; n < COUNTS; n++)
        fprintf(out, "\t%s", count_names[n]);
    putc('\n', out);
    int64_t now[GAUGES] = {0};
    for (int64_t i = 0; i < used; i++) {
        static const int peaked[] = {G_OPENING, G_HALF_OPEN, TIME_WAIT - SYN_SENT};
        int64_t peak[3] = {0};
        bool any = false;
        for (int slice = 0; slice < SLICES; slice++) {
            for (int g = 0; g < GAUGES; g++) {
                now[g] += seconds[i].change[slice][g];
                any |= now[g] != 0;
            }
            for (int k = 0; k < 3; k++)
                if (now[peaked[k]] > peak[k])
                    peak[k] = now[peaked[k]];
        }
        for (int n = 0; n < COUNTS; n++)
            any |= seconds[i].counts[n] != 0;
        if (!any)
            continue;
        fprintf(out, "%lld\t%lld\t%d", (long long)((origin + i) * NS_PER_S), (long long)NS_PER_S, i + 1 < used);
        for (int g = 0; g < GAUGES; g++)
            fprintf(out, "\t%lld", (long long)now[g]);
        fprintf(out, "\t%lld\t%lld\t%lld\t0", (long long)peak[0], (long long)peak[1], (long long)peak[2]);
        for (int n = 0; n < N_COPIES; n++)
            fprintf(out, "\t%lld", (long long)seconds[i].counts[n]);
        putc('\t', out);
        if (options.duplicates > 0)
            fprintf(out, "%lld", (long long)seconds[i].counts[N_COPIES]);
        putc('\n', out);
    }
    if (fclose(out))
        fail("cannot write %s: %s", options.intervals, strerror(errno));
    free(seconds);
}
