/* Episodes: closes. */
#include "traffic_plan.h"

static void set_states(Connection *c, int closer, int closer_state, int other_state)
{
    c->planned.state[closer] = (uint8_t)closer_state;
    c->planned.state[!closer] = (uint8_t)other_state;
}

static Packet *fin(Connection *c, int64_t at, int from, int phase, int close)
{
    Packet *p = say(c, at, from, FIN | ACK, M_FIN);
    if (options.payload != PAYLOAD_NONE && chance(0.1)) {
        p->payload_bytes = segment_size(c);
        p->flags |= PSH;
    }
    c->end[from].snd += p->payload_bytes + 1;
    c->planned.phase = (uint8_t)phase;
    c->planned.close = (uint8_t)close;
    p->after = c->planned;
    return p;
}

/* The last ACK; sometimes it is lost behind the tap, and the peer's FIN comes again. */
static void last_ack(Connection *c, int64_t at, int from, const Packet *peer_fin)
{
    Packet old = *peer_fin;
    arrives(c, !from);
    c->planned.phase = P_CLOSED;
    Packet *p = ack(c, at, from);
    if (chance(0.06)) {
        p->lost = true;
        at += retransmission_timeout(c);
        resend(c, at, &old, M_FIN_AGAIN);
        ack(c, at + trip(c, from), from);
    }
}

/* FIN, and FINs sent again while nothing answers; the instant of the last one comes back in `at`. */
static Packet *first_fin(Connection *c, int64_t *at, int closer, int copies)
{
    set_states(c, closer, FIN_WAIT_1, ESTABLISHED);
    Packet *p = fin(c, *at, closer, P_ONE_FIN, C_UNANSWERED);
    Packet old = *p;
    p->lost = copies > 1;
    for (int i = 1; i < copies; i++) {
        *at += retransmission_timeout(c) << (i - 1);
        resend(c, *at, &old, M_FIN_AGAIN)->lost = i + 1 < copies;
    }
    return p;
}

static int64_t half_close(Connection *c, int64_t at, int closer)
{
    first_fin(c, &at, closer, chance(0.05) ? 2 : 1);
    arrives(c, closer);
    at += trip(c, !closer);
    set_states(c, closer, FIN_WAIT_2, CLOSE_WAIT);
    c->planned.phase = P_HALF_CLOSED;
    c->planned.close = C_HALF_CLOSED;
    ack(c, at, !closer);
    if (options.payload != PAYLOAD_NONE && chance(0.3)) {
        at += random_below(10 * NS_PER_MS) + 1;
        data(c, at, !closer, segment_size(c));
        arrives(c, !closer);
        at += trip(c, closer);
        ack(c, at, closer);
    }
    return at + 1 + (chance(0.5) ? random_below(100 * US) : random_below(200 * NS_PER_MS));
}

static void close_4way(Connection *c, int64_t at, int closer, bool answered)
{
    at = half_close(c, at, closer);
    set_states(c, closer, FIN_WAIT_2, LAST_ACK);
    Packet *p = fin(c, at, !closer, P_BOTH_FINS, C_4WAY);
    if (!answered) { /* the closer is gone: its last ACK never comes */
        Packet old = *p;
        p->lost = true;
        for (int i = 0; i < 3; i++) {
            at += retransmission_timeout(c) << i;
            resend(c, at, &old, M_FIN_AGAIN)->lost = true;
        }
        return;
    }
    set_states(c, closer, TIME_WAIT, CLOSED);
    last_ack(c, at + trip(c, closer), closer, p);
}

static void close_3way(Connection *c, int64_t at, int closer)
{
    first_fin(c, &at, closer, chance(0.05) ? 2 : 1);
    arrives(c, closer);
    at += trip(c, !closer);
    set_states(c, closer, FIN_WAIT_2, LAST_ACK);
    Packet *p = fin(c, at, !closer, P_BOTH_FINS, C_3WAY);
    set_states(c, closer, TIME_WAIT, CLOSED);
    last_ack(c, at + trip(c, closer), closer, p);
}

static void close_simultaneous(Connection *c, int64_t at, int closer)
{
    first_fin(c, &at, closer, 1);
    int64_t other = at + 1 + random_below(c->end[!closer].rtt / 2);
    set_states(c, closer, FIN_WAIT_1, FIN_WAIT_1);
    fin(c, other, !closer, P_BOTH_FINS, C_SIMULTANEOUS);
    int64_t answer = at + trip(c, !closer), last = other + trip(c, closer);
    if (answer <= other)
        answer = other + 1;
    if (last <= answer)
        last = answer + 1;
    arrives(c, closer);
    set_states(c, closer, FIN_WAIT_2, CLOSING);
    ack(c, answer, !closer);
    arrives(c, !closer);
    set_states(c, closer, TIME_WAIT, TIME_WAIT);
    c->planned.phase = P_CLOSED;
    ack(c, last, closer);
}

static void close_rst(Connection *c, int64_t at, int closer)
{
    set_states(c, closer, CLOSED, CLOSED);
    c->planned.close = C_RST;
    Packet *p = reset(c, at, closer, chance(0.5) ? ACK : 0);
    if (chance(0.1))
        p->ttl = (uint8_t)(c->end[closer].ttl - 7); /* an appliance in the client's or server's name */
    if (options.payload != PAYLOAD_NONE && chance(0.3)) { /* a segment under way meets no connection any more */
        at += 1 + random_below(c->end[!closer].rtt);
        data(c, at, !closer, segment_size(c));
        c->end[closer].snd = c->end[!closer].rcv;
        reset(c, at + trip(c, closer), closer, 0);
    }
}

static void close_rst_after_fin(Connection *c, int64_t at, int closer)
{
    int by = chance(0.7) ? !closer : closer;
    if (chance(0.5)) {
        at = half_close(c, at, closer);
    } else {
        first_fin(c, &at, closer, 1);
        at += trip(c, !closer);
    }
    set_states(c, closer, CLOSED, CLOSED);
    c->planned.close = C_RST_AFTER_FIN;
    reset(c, at, by, chance(0.5) ? ACK : 0);
}

/* How the connection closes, or that it does not. */
void plan_close(Connection *c, int64_t at)
{
    int closer = c->closer;
    int64_t draw = random_below(100);
    if (draw < 35)
        close_4way(c, at, closer, true);
    else if (draw < 60)
        close_3way(c, at, closer);
    else if (draw < 65)
        close_simultaneous(c, at, closer);
    else if (draw < 70)
        half_close(c, at, closer);
    else if (draw < 74)
        first_fin(c, &at, closer, 1 + (int)random_below(4));
    else if (draw < 86)
        close_rst(c, at, closer);
    else if (draw < 94)
        close_rst_after_fin(c, at, closer);
    else if (draw < 96)
        close_4way(c, at, closer, false);
    else
        ack(c, at, closer); /* stays open: nothing more is ever said */
    plan_sort(c->plan);
}
