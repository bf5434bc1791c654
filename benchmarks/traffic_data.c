/* Episodes: exchanges of data, with losses on both sides of the tap, probes and full buffers. */
#include "traffic_plan.h"

/* A few segments, acknowledged in pairs. */
static void flow(Connection *c, int64_t at, int from)
{
    int segments = 1 + (int)random_below(4);
    int64_t last_ack = 0;
    for (int i = 0; i < segments; i++) {
        data(c, at, from, segment_size(c));
        arrives(c, from);
        if (i % 2 || i == segments - 1) {
            int64_t answer = at + trip(c, !from);
            last_ack = answer > last_ack ? answer : last_ack + 1;
            ack(c, last_ack, !from);
        }
        at += 1 + random_below(20 * US);
    }
}

/* A request, and a response that acknowledges it. */
static void request(Connection *c, int64_t at, int from)
{
    data(c, at, from, segment_size(c));
    arrives(c, from);
    at += trip(c, !from);
    data(c, at, !from, segment_size(c));
    arrives(c, !from);
    ack(c, at + trip(c, from), from);
}

/* One of several segments does not arrive at once. `behind`: lost behind the tap; else before it, so that the tap sees
 * it for the first time when it is sent again. The receiver repeats its acknowledgement for each later segment. */
static void loss(Connection *c, int64_t at, int from, bool behind)
{
    int segments = 2 + (int)random_below(4), victim = (int)random_below(behind ? segments : segments - 1);
    Packet missing = {0};
    int64_t answer = 0;
    for (int i = 0; i < segments; i++) {
        Packet *p = data(c, at, from, segment_size(c));
        if (i == victim) {
            missing = *p;
            if (behind)
                p->lost = true;
            else
                c->plan->count--;
        }
        if (i < victim)
            arrives(c, from);
        if (i != victim) {
            int64_t next = at + trip(c, !from);
            answer = next > answer ? next : answer + 1;
            say(c, answer, !from, ACK, i < victim ? M_ACK : M_DUP_ACK);
        }
        at += 1 + random_below(20 * US);
    }
    at = (answer > at ? answer : at) + (segments - victim > 3 ? trip(c, from) : retransmission_timeout(c));
    resend(c, at, &missing, behind ? M_AGAIN : M_LATE);
    arrives(c, from);
    ack(c, at + trip(c, !from), !from);
}

/* Two segments overtake each other before the tap. */
static void swap(Connection *c, int64_t at, int from)
{
    Packet first = *data(c, at, from, segment_size(c));
    c->plan->count--;
    data(c, at, from, segment_size(c));
    int64_t answer = at + trip(c, !from);
    say(c, answer, !from, ACK, M_DUP_ACK);
    at += 1 + random_below(2000);
    resend(c, at, &first, M_LATE);
    arrives(c, from);
    int64_t next = at + trip(c, !from);
    ack(c, next > answer ? next : answer + 1, !from);
}

/* The tap misses a segment that arrives. */
static void missed(Connection *c, int64_t at, int from)
{
    int segments = 2 + (int)random_below(2);
    for (int i = 0; i < segments; i++) {
        data(c, at, from, segment_size(c));
        arrives(c, from);
        if (i == 0)
            c->plan->count--;
        at += 1 + random_below(20 * US);
    }
    ack(c, at + trip(c, !from), !from);
}

/* A segment is sent again although it was acknowledged: the acknowledgement was lost or late. */
static void needless(Connection *c, int64_t at, int from)
{
    Packet old = *data(c, at, from, segment_size(c));
    arrives(c, from);
    int64_t answer = at + trip(c, !from);
    ack(c, answer, !from)->lost = true;
    at = answer + retransmission_timeout(c);
    resend(c, at, &old, M_AGAIN);
    ack(c, at + trip(c, !from), !from);
}

static void keep_alive(Connection *c, int64_t at, int from)
{
    Packet *p = say(c, at, from, ACK, M_KEEP_ALIVE);
    p->offset--;
    if (c->end[from].snd > 1 && chance(0.3))
        p->payload_bytes = 1; /* the last byte again, as some systems do */
    ack(c, at + trip(c, !from), !from);
}

/* The receiver's buffer is full for a while; the sender may probe. */
static void zero_window(Connection *c, int64_t at, int from)
{
    data(c, at, from, segment_size(c));
    arrives(c, from);
    at += trip(c, !from);
    ack(c, at, !from)->window = 0;
    if (chance(0.5)) {
        at += trip(c, from) + (int64_t)(200e6 * options.time_scale);
        say(c, at, from, ACK, M_KEEP_ALIVE)->offset--;
        at += trip(c, !from);
        ack(c, at, !from)->window = 0;
    }
    ack(c, at + trip(c, !from) + 1, !from);
}

/* Somebody on the way, or with old news, sends a reset that fits neither the peer's ACK nor its window. */
static void blind_reset(Connection *c, int64_t at, int from)
{
    Packet *p = say(c, at, from, RST, M_BAD_RST);
    p->offset = c->end[!from].rcv - 100000 - random_below(1000000);
}

void plan_exchange(Connection *c, int64_t at)
{
    int from = chance(0.5) ? CLIENT : SERVER;
    if (options.payload == PAYLOAD_NONE) {
        ack(c, at, from);
        ack(c, at + trip(c, !from), !from);
        return;
    }
    int64_t draw = random_below(100);
    if (draw < 40)
        flow(c, at, from);
    else if (draw < 75)
        request(c, at, from);
    else if (draw < 80)
        loss(c, at, from, true);
    else if (draw < 84)
        loss(c, at, from, false);
    else if (draw < 87)
        swap(c, at, from);
    else if (draw < 89)
        missed(c, at, from);
    else if (draw < 92)
        needless(c, at, from);
    else if (draw < 96)
        keep_alive(c, at, from);
    else if (draw < 99)
        zero_window(c, at, from);
    else
        blind_reset(c, at, from);
    plan_sort(c->plan);
}

/* The longlived mix: data and its ACK in turn, one packet for each call. */
void plan_longlived(Connection *c, int64_t at)
{
    int from = c->turn >> 1 & 1;
    bool answers = c->turn++ & 1;
    if (options.payload == PAYLOAD_NONE || answers) {
        ack(c, at, answers ? !from : from);
    } else {
        data(c, at, from, segment_size(c));
        arrives(c, from);
    }
}
