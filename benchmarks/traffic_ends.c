/* The two ends of a connection: names, options, windows, distances from the tap. */
#include "traffic.h"

#include <string.h>

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* The options of a SYN in Linux's order, filled up with NOPs; wire_write sets the timestamps. */
static void options_build(End *e)
{
    uint8_t *p = e->options;
    if (e->has_mss) {
        p[0] = 2, p[1] = 4, put16(p + 2, e->mss), p += 4;
        e->option_kinds |= 1 << 2;
    }
    if (e->has_sack) {
        p[0] = 4, p[1] = 2, p += 2;
        e->option_kinds |= 1 << 4;
    }
    if (e->has_timestamps) {
        memset(p, 0, 10);
        e->timestamps_at = (uint8_t)(p + 2 - e->options);
        p[0] = 8, p[1] = 10, p += 10;
        e->option_kinds |= 1 << 8;
    }
    if (e->has_scale) {
        *p++ = 1;
        e->option_kinds |= 1 << 1;
        p[0] = 3, p[1] = 3, p[2] = e->window_scale, p += 3;
        e->option_kinds |= 1 << 3;
    }
    while ((p - e->options) % 4) {
        *p++ = 1;
        e->option_kinds |= 1 << 1;
    }
    e->options_len = (uint8_t)(p - e->options);
}

static void end_address(End *e, bool ipv6, int side, uint32_t host)
{
    memset(e->ip, 0, sizeof e->ip);
    if (ipv6) {
        static const uint8_t prefix[] = {0x20, 0x01, 0x0d, 0xb8};
        memcpy(e->ip, prefix, sizeof prefix);
        e->ip[5] = (uint8_t)(side + 1);
        put16(e->ip + 14, host);
    } else {
        e->ip[0] = 10, e->ip[1] = (uint8_t)(side * 100);
        put16(e->ip + 2, host);
    }
}

/* The port and address of client `number`: no two connections share both. */
static void end_names(Connection *c, uint64_t number)
{
    enum { HOSTS = 5003, SERVERS = 211, PORTS = 28000 };
    static const uint16_t services[] = {80, 443, 443, 443, 22, 5432, 6379, 8080};
    bool ipv6 = chance(options.ipv6_share);
    c->ip_version = ipv6 ? 6 : 4;
    end_address(&c->end[CLIENT], ipv6, CLIENT, (uint32_t)(number % HOSTS) + 1);
    end_address(&c->end[SERVER], ipv6, SERVER, (uint32_t)random_below(SERVERS) + 1);
    c->end[CLIENT].port = (uint16_t)(32768 + number / HOSTS % PORTS);
    c->end[SERVER].port = services[random_below(8)];
}

static void end_start(End *e, const End *peer, bool ipv6)
{
    static const uint8_t initial_ttl[] = {64, 64, 64, 128, 255};
    static const uint16_t mss[] = {1460, 1460, 1460, 1400, 1380, 536};
    uint32_t old_isn = e->isn;
    /* A part of the ISNs lies so close to the wrap that the first bytes, or the SYN itself, pass it. */
    e->isn = chance(0.2) ? (uint32_t)-random_below(5000) : (uint32_t)random_u64();
    if (e->isn == old_isn)
        e->isn += 77777;
    e->ttl = (uint8_t)(initial_ttl[random_below(5)] - 1 - random_below(20));
    e->has_mss = !chance(0.03);
    e->mss = (uint16_t)(mss[random_below(6)] - (ipv6 ? 20 : 0));
    e->has_scale = (!peer || peer->has_scale) && !chance(0.1);
    e->window_scale = e->has_scale ? (uint8_t)(5 + random_below(6)) : 0;
    e->has_sack = (!peer || peer->has_sack) && !chance(0.1);
    e->has_timestamps = (!peer || peer->has_timestamps) && !chance(0.15);
    e->dont_fragment = !chance(0.1);
    e->syn_window = (uint16_t)(20000 + random_below(45000));
    e->ip_id = (uint16_t)random_u64();
    e->clock_offset_ms = (uint32_t)random_u64();
    e->echo_ms = 0;
    e->snd = e->rcv = 0;
    e->option_kinds = 0;
    options_build(e);
    /* Round trips from 50 us to 100 ms, evenly over the orders of magnitude. */
    double rtt = 50e3;
    for (int64_t doublings = random_below(12); doublings; doublings--)
        rtt *= 2;
    e->rtt = (int64_t)(rtt * (1 + (double)random_below(1000) / 1000) * options.time_scale) + 2000;
}

/* Draws both ends; with `same_ends` only what a new connection between the same two sockets draws anew. */
void connection_start(Connection *c, uint64_t number, bool same_ends)
{
    End *client = &c->end[CLIENT], *server = &c->end[SERVER];
    if (!same_ends)
        end_names(c, number);
    end_start(client, NULL, c->ip_version == 6);
    end_start(server, client, c->ip_version == 6);
    c->timestamps = client->has_timestamps && server->has_timestamps;
    for (int i = 0; i < 2; i++) {
        bool scaled = client->has_scale && server->has_scale;
        c->end[i].window = scaled ? (uint16_t)(65535 >> (c->end[i].window_scale - 2)) : (uint16_t)(40000 + random_below(25000));
    }
    c->planned = (Situation){{CLOSED, LISTEN}, P_OPENING, HS_UNANSWERED, C_NULL};
    c->now = c->planned;
    c->now.phase = P_GONE; /* until the first packet */
    c->sim_open = false;
    c->closer = chance(0.6) ? CLIENT : SERVER;
    c->turn = 0;
}
