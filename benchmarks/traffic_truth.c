/* The truth about a connection, noted packet by packet from what their senders mean; its rows are in traffic_rows.c. */
#include "traffic.h"

enum { ATTEMPT_S = 75, IDLE_S = 124 * 60, CLOSING_S = 60, TIME_WAIT_S = 60, LINGER_S = 10 };

void truth_reset(Connection *c)
{
    c->first_seen = c->last_seen = c->first_packet = 0;
    c->syn_first = c->syn_last = c->synack_first = c->synack_last = c->handshake_done = NEVER;
    c->syn_count = c->synack_count = 0;
    c->rtt_server = c->rtt_client = c->rtt_base = c->rtt_server_at = c->rtt_client_at = NEVER;
    c->quality_server = c->quality_client = Q_NONE;
    c->closer_seen = c->rst_by = c->time_wait_side = -1;
    c->rst_ttl = 0;
    c->first_fin = c->first_fin_acked = c->rst_seen = c->closed_at = c->time_wait_start = NEVER;
    c->rst_rejected = c->packets_after_close = 0;
    c->first_fin_resent = false;
    for (int i = 0; i < 2; i++) {
        End *e = &c->end[i];
        e->syn_at = e->fin_at = e->first_payload = NEVER;
        e->packets = e->ip_bytes = e->payload_bytes = e->unique_bytes = e->pure_acks = 0;
        e->retransmitted_segments = e->retransmitted_bytes = e->out_of_order_segments = e->keep_alives = 0;
        e->zero_windows = e->duplicate_acks = e->capture_duplicates = e->fins = e->rsts = e->payload_after_fin = e->acked = 0;
        e->fin_position = e->last_window = -1;
        e->timed_end = e->timed_at = e->samples = e->rtt_min = e->rtt_max = e->rtt_sum = 0;
        e->rtt_squares = 0;
    }
}

int64_t packet_ip_bytes(const Connection *c, const Packet *p)
{
    int64_t size = (c->ip_version == 4 ? 40 : 60) + p->payload_bytes;
    if (p->flags & SYN)
        size += c->end[p->from].options_len;
    else if (c->timestamps && !(p->flags & RST))
        size += 12;
    return size;
}

static void note_opening(Connection *c, const Packet *p)
{
    End *e = &c->end[p->from];
    if (p->flags & SYN && e->syn_at == NEVER)
        e->syn_at = p->at;
    if (p->meaning == M_SYN && p->from == CLIENT) {
        if (c->syn_first == NEVER)
            c->syn_first = p->at;
        c->syn_last = p->at;
        c->syn_count++;
    }
    if (p->meaning == M_SYNACK) {
        if (c->synack_first == NEVER)
            c->synack_first = p->at;
        c->synack_last = p->at;
        c->synack_count++;
    }
    if (p->rtt_from[0] != NEVER) {
        c->rtt_base = p->rtt_from[0];
        c->rtt_server = p->at - c->rtt_base;
        c->rtt_server_at = p->at;
        c->quality_server = p->quality[0];
    }
    if (p->rtt_from[1] != NEVER) {
        c->rtt_client = p->at - p->rtt_from[1];
        c->rtt_client_at = p->at;
        c->quality_client = p->quality[1];
    }
    if (p->opens)
        c->handshake_done = p->at;
}

static void note_payload(Connection *c, const Packet *p)
{
    End *e = &c->end[p->from];
    e->payload_bytes += p->payload_bytes;
    if (p->meaning == M_KEEP_ALIVE || !p->payload_bytes)
        return;
    if (e->first_payload == NEVER)
        e->first_payload = p->at;
    if (c->closer_seen == !p->from)
        e->payload_after_fin += p->payload_bytes;
    if (p->meaning == M_AGAIN || p->meaning == M_FIN_AGAIN) {
        e->retransmitted_segments++;
        e->retransmitted_bytes += p->payload_bytes;
    } else {
        e->unique_bytes += p->payload_bytes;
        e->out_of_order_segments += p->meaning == M_LATE;
    }
}

/* One timed segment in each direction (Karn): an acknowledgement ends the timing, anything sent again breaks it off. */
static void note_timing(Connection *c, const Packet *p)
{
    End *e = &c->end[p->from], *peer = &c->end[!p->from];
    if (p->meaning == M_AGAIN || p->meaning == M_LATE || p->meaning == M_FIN_AGAIN)
        e->timed_end = 0;
    if (p->flags & ACK && peer->timed_end && p->ack >= peer->timed_end) {
        int64_t rtt = p->at - peer->timed_at;
        peer->rtt_min = peer->samples && peer->rtt_min < rtt ? peer->rtt_min : rtt;
        peer->rtt_max = peer->samples && peer->rtt_max > rtt ? peer->rtt_max : rtt;
        peer->rtt_sum += rtt;
        peer->rtt_squares += (unsigned __int128)((uint64_t)rtt) * (uint64_t)rtt;
        peer->samples++;
        peer->timed_end = 0;
    }
    if ((p->meaning == M_DATA || p->meaning == M_FIN) && p->payload_bytes && !e->timed_end) {
        e->timed_end = p->offset + p->payload_bytes + (p->flags & FIN ? 1 : 0);
        e->timed_at = p->at;
    }
}

static void note_acks(Connection *c, const Packet *p)
{
    End *e = &c->end[p->from], *peer = &c->end[!p->from];
    bool dup = p->meaning == M_DUP_ACK;
    if (dup && e->last_window == p->window)
        e->duplicate_acks++;
    e->pure_acks += p->meaning == M_ACK || dup;
    e->keep_alives += p->meaning == M_KEEP_ALIVE;
    e->zero_windows += p->window == 0;
    if (p->flags & ACK) {
        e->last_window = p->window;
        if (p->ack > peer->acked)
            peer->acked = p->ack;
    }
}

static void note_close(Connection *c, const Packet *p)
{
    End *e = &c->end[p->from];
    e->rsts += (p->flags & RST) != 0;
    e->fins += (p->flags & FIN) != 0;
    c->rst_rejected += p->meaning == M_BAD_RST;
    if (p->meaning == M_FIN) {
        e->fin_at = p->at;
        e->fin_position = p->offset + p->payload_bytes;
        if (c->closer_seen < 0) {
            c->closer_seen = (int8_t)p->from;
            c->first_fin = p->at;
        }
    }
    bool acked = c->closer_seen >= 0 && c->end[c->closer_seen].acked > c->end[c->closer_seen].fin_position;
    if (acked && c->first_fin_acked == NEVER)
        c->first_fin_acked = p->at;
    if (p->meaning == M_FIN_AGAIN && p->from == c->closer_seen)
        c->first_fin_resent = true;
    if (p->meaning == M_RST && c->rst_seen == NEVER) {
        c->rst_by = (int8_t)p->from;
        c->rst_seen = p->at;
        c->rst_ttl = p->ttl ? p->ttl : e->ttl;
    }
}

/* The record's deadline after a packet: SPEC's table of timeouts with its defaults. */
static void note_deadline(Connection *c, const Packet *p)
{
    bool opens = p->flags & SYN && (p->from == CLIENT || p->flags & ACK);
    switch (p->after.phase) {
    case P_OPENING:
    case P_HALF_OPEN:
        if (opens)
            c->deadline = p->at + ATTEMPT_S * NS_PER_S;
        break;
    case P_BOTH_FINS: c->deadline = p->at + CLOSING_S * NS_PER_S; break;
    case P_CLOSED:
        if (c->now.phase != P_CLOSED || p->meaning == M_FIN_AGAIN)
            c->deadline = p->at + TIME_WAIT_S * NS_PER_S;
        break;
    case P_RESET:
        if (p->flags & RST)
            c->deadline = p->at + LINGER_S * NS_PER_S;
        break;
    default:
        if (p->meaning != M_BAD_RST)
            c->deadline = p->at + IDLE_S * NS_PER_S;
    }
}

void truth_note(Connection *c, const Packet *p)
{
    End *e = &c->end[p->from];
    Situation before = c->now;
    bool syn_again = p->meaning == M_SYN && e->syn_at != NEVER;
    if (!c->first_packet) {
        c->first_packet = wire_number();
        c->first_file = wire_file();
        c->first_seen = p->at;
    }
    c->last_seen = p->at;
    e->packets++;
    e->ip_bytes += packet_ip_bytes(c, p);
    if (before.phase == P_CLOSED || (before.phase == P_RESET && p->after.phase != P_OPENING))
        c->packets_after_close++;
    note_opening(c, p);
    note_payload(c, p);
    if (!(p->flags & (SYN | RST))) {
        note_timing(c, p);
        note_acks(c, p);
    } else if (p->flags & SYN && p->flags & ACK) {
        e->last_window = p->window;
        c->end[!p->from].acked = 1;
    }
    note_close(c, p);
    note_deadline(c, p);
    c->now = p->after;
    if (c->closed_at == NEVER && before.phase != c->now.phase && (c->now.phase == P_CLOSED || c->now.phase == P_RESET))
        c->closed_at = p->at;
    if (c->time_wait_side < 0)
        for (int i = 0; i < 2; i++)
            if (c->now.state[i] == TIME_WAIT) {
                c->time_wait_side = c->now.state[!i] == TIME_WAIT ? 2 : (int8_t)i;
                c->time_wait_start = p->at;
            }
    intervals_note(c, p, &before, syn_again);
}

/* A copy counts in the record that lives on its ends (every copy is far from its deadline), and moves nothing. */
void truth_copy(Connection *c, int from, int64_t at, int64_t ip_bytes)
{
    End *e = &c->end[from];
    e->packets++;
    e->ip_bytes += ip_bytes;
    e->capture_duplicates++;
    intervals_copy(at > c->last_seen ? at : c->last_seen, ip_bytes);
}
