/* Episodes: openings, with every outcome that two ends and lost packets can give. */
#include "traffic_plan.h"

static Packet *syn(Connection *c, int64_t at)
{
    Packet *p = say(c, at, CLIENT, SYN, M_SYN);
    p->offset = 0;
    p->after.state[CLIENT] = c->planned.state[CLIENT] = SYN_SENT;
    return p;
}

/* A SYN-ACK that answers the SYN of instant `of` with the given quality (NEVER: a repeated answer). */
static Packet *synack(Connection *c, int64_t at, int64_t of, int quality, int64_t echo)
{
    Packet *p = say(c, at, SERVER, SYN | ACK, M_SYNACK);
    p->offset = 0;
    p->ack = 1;
    p->echo = echo;
    p->rtt_from[0] = of;
    p->quality[0] = (uint8_t)quality;
    if (c->planned.phase == P_OPENING) {
        c->planned.state[SERVER] = SYN_RECEIVED;
        c->planned.phase = P_HALF_OPEN;
        c->planned.handshake = HS_HALF_OPEN;
    }
    p->after = c->planned;
    c->end[SERVER].snd = c->end[SERVER].rcv = 1;
    return p;
}

static void is_open(Connection *c, Packet *p)
{
    c->planned = (Situation){{ESTABLISHED, ESTABLISHED}, P_OPEN, HS_COMPLETE, C_OPEN};
    p->after = c->planned;
    p->opens = true;
}

/* The ACK that completes the handshake; `of` is the instant of the SYN-ACK that it answers. */
static void handshake_ack(Connection *c, int64_t at, int64_t of, int quality, int64_t echo, bool with_data)
{
    c->end[CLIENT].snd = c->end[CLIENT].rcv = 1;
    Packet *p;
    if (with_data) {
        p = data(c, at, CLIENT, segment_size(c));
        arrives(c, CLIENT);
    } else {
        p = ack(c, at, CLIENT);
    }
    p->rtt_from[1] = of;
    p->quality[1] = (uint8_t)(with_data ? Q_AMBIGUOUS : quality);
    p->echo = echo;
    is_open(c, p);
    if (with_data)
        ack(c, at + trip(c, SERVER), SERVER);
}

static int resent_quality(const Connection *c)
{
    return c->timestamps ? Q_MATCHED : Q_AMBIGUOUS;
}

/* The SYN's resend times, counted from the first one: 1 s, then doubled (RFC 6298 section 5). */
static int64_t syn_delay(int resends)
{
    return ((INT64_C(1) << resends) - 1) * NS_PER_S + resends * random_below(NS_PER_MS);
}

static int64_t syn_copies(Connection *c, int64_t at, int copies)
{
    int64_t last = at;
    for (int i = 0; i < copies; i++) {
        last = at + syn_delay(i);
        syn(c, last)->lost = i + 1 < copies;
    }
    return last;
}

static void open_plain(Connection *c, int64_t at)
{
    bool with_data = options.payload != PAYLOAD_NONE && chance(0.03);
    int64_t answer = at + trip(c, SERVER);
    syn(c, at);
    synack(c, answer, at, Q_CLEAN, NEVER);
    handshake_ack(c, answer + trip(c, CLIENT), answer, Q_CLEAN, NEVER, with_data);
}

/* The first SYNs are lost behind the tap. */
static void open_lost_syn(Connection *c, int64_t at)
{
    int64_t last = syn_copies(c, at, 2 + (int)random_below(3));
    int64_t answer = last + trip(c, SERVER);
    synack(c, answer, last, resent_quality(c), last);
    handshake_ack(c, answer + trip(c, CLIENT), answer, Q_CLEAN, NEVER, false);
}

/* The server is slow: its answer to the first SYN passes the resent one, which it then answers as well. */
static void open_slow(Connection *c, int64_t at)
{
    int64_t second = at + syn_delay(1);
    int64_t answer = second + 1000 + random_below(30 * NS_PER_MS);
    int64_t done = answer + trip(c, CLIENT);
    int64_t again = done + 1000 + random_below(50 * NS_PER_MS);
    syn(c, at);
    syn(c, second);
    synack(c, answer, c->timestamps ? at : second, resent_quality(c), at);
    handshake_ack(c, done, answer, Q_CLEAN, answer, false);
    synack(c, again, NEVER, Q_NONE, second);
    ack(c, again + trip(c, CLIENT), CLIENT);
}

/* SYN-ACKs are lost behind the tap, so both ends send again. */
static void open_lost_synack(Connection *c, int64_t at)
{
    int64_t answer = at + trip(c, SERVER);
    syn(c, at);
    synack(c, answer, at, Q_CLEAN, NEVER)->lost = true;
    int64_t second = at + syn_delay(1);
    if (second <= answer)
        second = answer + 1000;
    if (chance(0.5))
        syn(c, second);
    int64_t again = second + trip(c, SERVER);
    synack(c, again, NEVER, Q_NONE, NEVER);
    handshake_ack(c, again + trip(c, CLIENT), again, resent_quality(c), again, false);
}

/* The last ACK is lost behind the tap: the server sends its SYN-ACK again. */
static void open_lost_ack(Connection *c, int64_t at)
{
    int64_t answer = at + trip(c, SERVER), done = answer + trip(c, CLIENT);
    int64_t again = answer + syn_delay(1) > done ? answer + syn_delay(1) : done + 1000;
    syn(c, at);
    synack(c, answer, at, Q_CLEAN, NEVER);
    handshake_ack(c, done, answer, Q_CLEAN, NEVER, false);
    synack(c, again, NEVER, Q_NONE, NEVER);
    ack(c, again + trip(c, CLIENT), CLIENT);
}

/* RFC 9293 Figure 7: both SYNs cross; the SYN-ACKs repeat them. Only with timestamps, and the client's SYN-ACK at least
 * one tick of its millisecond clock after its SYN, so that the echo tells which of the two copies was answered. */
static void open_simultaneous(Connection *c, int64_t at)
{
    int64_t theirs = at + 1000 + random_below(c->end[SERVER].rtt / 2 + 1);
    int64_t first = theirs + trip(c, CLIENT) + NS_PER_MS, second = at + trip(c, SERVER);
    if (second <= first)
        second = first + 1 + random_below(c->end[SERVER].rtt);
    c->sim_open = true;
    syn(c, at);
    Packet *p = say(c, theirs, SERVER, SYN, M_SYN);
    p->after.state[SERVER] = c->planned.state[SERVER] = SYN_SENT;

    p = say(c, first, CLIENT, SYN | ACK, M_SYNACK);
    c->planned.state[CLIENT] = SYN_RECEIVED;
    c->planned.phase = P_HALF_OPEN;
    c->planned.handshake = HS_HALF_OPEN;
    p->after = c->planned;
    p->ack = 1;
    p->echo = theirs;
    p->rtt_from[1] = theirs;
    p->quality[1] = Q_CLEAN;

    p = say(c, second, SERVER, SYN | ACK, M_SYNACK);
    p->ack = 1;
    p->echo = at;
    p->rtt_from[0] = at;
    p->quality[0] = Q_MATCHED;
    is_open(c, p);
    for (int i = 0; i < 2; i++)
        c->end[i].snd = c->end[i].rcv = 1;
}

static void open_complete(Connection *c, int64_t at)
{
    switch (random_below(40)) {
    case 0: open_lost_syn(c, at); break;
    case 1: open_slow(c, at); break;
    case 2: open_lost_synack(c, at); break;
    case 3: open_lost_ack(c, at); break;
    case 4:
        if (c->timestamps && chance(0.2)) {
            open_simultaneous(c, at);
            break;
        } /* fall through */
    default: open_plain(c, at);
    }
}

static void open_refused(Connection *c, int64_t at)
{
    int tries = chance(0.3) ? 3 : 1; /* some systems try again with the same ISN */
    for (int i = 0; i < tries; i++) {
        c->planned.phase = P_OPENING;
        syn(c, at);
        c->end[SERVER].rcv = 1;
        int64_t answer = at + trip(c, SERVER);
        c->planned.handshake = HS_REFUSED;
        c->planned.state[CLIENT] = CLOSED;
        Packet *p = reset(c, answer, SERVER, ACK);
        p->zero_seq = true;
        if (chance(0.2))
            p->ttl = 63;
        p->window = 0;
        at = answer + 500 * NS_PER_MS;
    }
}

static void open_aborted(Connection *c, int64_t at)
{
    int64_t answer = at + trip(c, SERVER), end = answer + trip(c, CLIENT);
    int kind = (int)random_below(3);
    syn(c, at);
    c->end[CLIENT].snd = 1;
    if (kind == 2) { /* the client gives up before any answer */
        c->planned.handshake = HS_ABORTED;
        c->planned.state[CLIENT] = CLOSED;
        reset(c, at + random_below(2 * NS_PER_S) + 1, CLIENT, 0);
        return;
    }
    synack(c, answer, at, Q_CLEAN, NEVER);
    c->planned.handshake = HS_ABORTED;
    c->planned.state[CLIENT] = CLOSED;
    c->planned.state[SERVER] = LISTEN;
    if (kind == 0)
        reset(c, end, CLIENT, 0);
    else
        reset(c, end, SERVER, ACK);
}

static void open_half(Connection *c, int64_t at)
{
    int64_t answer = at + trip(c, SERVER);
    syn(c, at);
    synack(c, answer, at, Q_CLEAN, NEVER)->lost = true;
    int resends = (int)random_below(6);
    for (int i = 1; i <= resends; i++) {
        int64_t again = answer + syn_delay(i);
        if (chance(0.3))
            syn(c, again - 1000);
        synack(c, again, NEVER, Q_NONE, NEVER)->lost = true;
    }
}

/* How the connection opens; `plain`: completely, and without losses. */
void plan_opening(Connection *c, int64_t at, bool plain)
{
    bool flood = options.mix == MIX_FLOOD;
    int64_t draw = random_below(1000);
    if (plain)
        open_plain(c, at);
    else if (draw < (flood ? 400 : 25))
        syn_copies(c, at, flood && !chance(0.1) ? 1 : 1 + (int)random_below(7));
    else if (draw < (flood ? 700 : 40))
        open_half(c, at);
    else if (draw < (flood ? 800 : 70))
        open_refused(c, at);
    else if (draw < (flood ? 850 : 90))
        open_aborted(c, at);
    else
        open_complete(c, at);
    plan_sort(c->plan);
}
