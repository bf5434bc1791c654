/* Writing a plan: the packets that every episode is made of. */
#include "traffic_plan.h"

Packet *say(Connection *c, int64_t at, int from, unsigned flags, int meaning)
{
    if (c->plan->count == PLAN_PACKETS)
        fail("an episode has more than %d packets", PLAN_PACKETS);
    Packet *p = &c->plan->packets[c->plan->count++];
    End *e = &c->end[from];
    *p = (Packet){.at = at, .echo = NEVER, .rtt_from = {NEVER, NEVER}, .quality = {Q_NONE, Q_NONE}, .offset = e->snd,
                  .ack = flags & ACK ? e->rcv : -1, .window = flags & SYN ? e->syn_window : e->window,
                  .from = (uint8_t)from, .flags = (uint8_t)flags, .meaning = (uint8_t)meaning, .after = c->planned};
    return p;
}

void plan_sort(Plan *plan)
{
    for (int i = 1; i < plan->count; i++) {
        Packet p = plan->packets[i];
        int j = i;
        for (; j > 0 && plan->packets[j - 1].at > p.at; j--)
            plan->packets[j] = plan->packets[j - 1];
        plan->packets[j] = p;
    }
}

int64_t trip(const Connection *c, int side)
{
    return c->end[side].rtt + random_below(c->end[side].rtt / 4 + 1);
}

int64_t retransmission_timeout(const Connection *c)
{
    return (int64_t)(200e6 * options.time_scale) + 3 * (c->end[CLIENT].rtt + c->end[SERVER].rtt);
}

Packet *ack(Connection *c, int64_t at, int from)
{
    return say(c, at, from, ACK, M_ACK);
}

Packet *data(Connection *c, int64_t at, int from, uint32_t payload_bytes)
{
    Packet *p = say(c, at, from, ACK | PSH, M_DATA);
    p->payload_bytes = payload_bytes;
    c->end[from].snd += payload_bytes;
    return p;
}

void arrives(Connection *c, int from)
{
    c->end[!from].rcv = c->end[from].snd;
}

Packet *resend(Connection *c, int64_t at, const Packet *old, int meaning)
{
    Packet copy = *old;
    Packet *p = say(c, at, copy.from, copy.flags, meaning);
    p->offset = copy.offset;
    p->payload_bytes = copy.payload_bytes;
    return p;
}

/* At least 2: a single byte sent again could not be told from a keep-alive. */
uint32_t segment_size(const Connection *c)
{
    uint32_t mss = c->end[0].mss < c->end[1].mss ? c->end[0].mss : c->end[1].mss;
    uint32_t most = mss - (c->timestamps ? 12 : 0);
    if (options.payload == PAYLOAD_FULL)
        return chance(0.9) ? most : 2 + (uint32_t)random_below(most - 1);
    return 2 + (uint32_t)random_below(199);
}

Packet *reset(Connection *c, int64_t at, int from, unsigned flags)
{
    Packet *p = say(c, at, from, RST | flags, M_RST);
    c->planned.phase = P_RESET;
    p->after = c->planned;
    return p;
}
