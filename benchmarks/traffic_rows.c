/* The truth as TSV: one row for each record that a tracker should write.
 *
 * Instants and durations are nanoseconds, booleans 0 or 1, an empty field is null. A column whose name begins with `_`
 * is no column of the flow table.
 */
#include "traffic.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <math.h>
#include <string.h>

static FILE *rows;
static bool header; /* the columns' names are being written, not a row */
static bool first_field;

static void field(const char *name)
{
    if (!first_field)
        putc_unlocked('\t', rows);
    first_field = false;
    if (header)
        fputs_unlocked(name, rows);
}

static void number(const char *name, int64_t value)
{
    field(name);
    if (header || value == NEVER)
        return;
    char digits[24], *p = digits + sizeof digits;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do
        *--p = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        *--p = '-';
    fwrite_unlocked(p, 1, (size_t)(digits + sizeof digits - p), rows);
}

static void text(const char *name, const char *value)
{
    field(name);
    if (!header && value)
        fputs_unlocked(value, rows);
}

static const char *const side_names[] = {"client", "server", "both"};
static const char *const state_names[] = {
    "CLOSED", "LISTEN", "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING",
    "LAST-ACK", "TIME-WAIT"};
static const char *const handshake_names[] = {"complete", "unanswered", "refused", "half_open", "aborted", "pending"};
static const char *const quality_names[] = {"clean", "matched", "ambiguous", "none"};
static const char *const close_names[] = {
    "fin_4way", "fin_3way", "fin_simultaneous", "half_closed", "fin_unanswered", "rst", "rst_after_fin", "open", NULL};
static const char *const end_names[] = {"fin", "rst", "idle", "attempt_timeout", "reuse", "end_of_input"};

static int64_t between(int64_t from, int64_t to)
{
    return from == NEVER || to == NEVER || to < from ? NEVER : to - from;
}

static uint64_t fnv1a(uint64_t hash, const void *bytes, size_t count)
{
    for (const uint8_t *p = bytes; count--; p++)
        hash = (hash ^ *p) * UINT64_C(0x100000001b3);
    return hash;
}

/* FNV-1a over IP version, both ends (the smaller first), instant and sequence number of the first packet, which is always
 * the client's SYN; the top bit is cleared. */
static int64_t flow_id(const Connection *c)
{
    size_t address = c->ip_version == 4 ? 4 : 16;
    const End *a = &c->end[CLIENT], *b = &c->end[SERVER];
    int order = memcmp(a->ip, b->ip, address);
    int first = order < 0 || (order == 0 && a->port < b->port) ? CLIENT : SERVER;
    uint64_t hash = fnv1a(UINT64_C(0xcbf29ce484222325), &c->ip_version, 1), at = htobe64((uint64_t)c->first_seen);
    for (int i = 0; i < 2; i++) {
        const End *e = &c->end[i ? !first : first];
        uint16_t port = htons(e->port);
        hash = fnv1a(fnv1a(hash, e->ip, address), &port, sizeof port);
    }
    uint32_t seq = htonl(a->isn);
    hash = fnv1a(fnv1a(hash, &at, sizeof at), &seq, sizeof seq);
    return (int64_t)(hash & INT64_MAX);
}

static void write_identity(const Connection *c)
{
    static char names[2][INET6_ADDRSTRLEN];
    static const char *const ip[] = {"client_ip", "server_ip"}, *const port[] = {"client_port", "server_port"};
    number("_file", c->first_file);
    number("first_packet", c->first_packet);
    number("flow_id", flow_id(c));
    number("first_seen", c->first_seen);
    number("last_seen", c->last_seen);
    number("duration_ns", c->last_seen - c->first_seen);
    number("ip_version", c->ip_version);
    for (int i = 0; i < 2; i++) {
        if (!header)
            inet_ntop(c->ip_version == 4 ? AF_INET : AF_INET6, c->end[i].ip, names[i], sizeof names[i]);
        text(ip[i], names[i]);
        number(port[i], c->end[i].port);
    }
    text("record", "final");
    text("direction", "syn");
}

static void write_opening(const Connection *c, int reason)
{
    bool undecided = c->now.handshake == HS_UNANSWERED || c->now.handshake == HS_HALF_OPEN;
    text("handshake", handshake_names[undecided && reason == END_INPUT ? HS_PENDING : c->now.handshake]);
    number("simultaneous_open", c->sim_open && c->end[SERVER].syn_at != NEVER);
    number("split_open", 0);
    number("syn_first", c->syn_first);
    number("syn_last", c->syn_last);
    number("syn_count", c->syn_count);
    number("synack_first", c->synack_first);
    number("synack_last", c->synack_last);
    number("synack_count", c->synack_count);
    number("synack_isn_variants", c->synack_count ? 1 + (c->sim_open && c->synack_count > 1) : 0);
    number("handshake_done", c->handshake_done);
    number("rtt_server_ns", c->rtt_server);
    number("rtt_client_ns", c->rtt_client);
    number("rtt_handshake_ns", c->rtt_client == NEVER || c->rtt_server == NEVER ? NEVER : between(c->rtt_base, c->handshake_done));
    text("rtt_server_quality", quality_names[c->quality_server]);
    text("rtt_client_quality", quality_names[c->quality_client]);
    number("_rtt_server_at", c->rtt_server_at);
    number("_rtt_client_at", c->rtt_client_at);
    number("syn_backoff_ns", between(c->syn_first, c->rtt_base != NEVER ? c->rtt_base : c->syn_last));
    text("ecn", "none");
    text("fast_open", "none");
    text("mptcp", "none");
    number("syn_payload_bytes", 0);
    number("odd_syns", 0);
    number("odd_segments", 0);
}

static void write_closing(const Connection *c, int reason)
{
    bool tw_over = c->time_wait_side >= 0 && reason != END_INPUT;
    int closer = c->now.close == C_SIMULTANEOUS ? 2 : c->closer_seen;
    int64_t second = c->closer_seen < 0 ? NEVER : c->end[!c->closer_seen].fin_at;
    int64_t opened = c->first_fin != NEVER ? c->first_fin : c->rst_seen;
    int ended = c->now.phase == P_CLOSED ? END_FIN : c->now.phase == P_RESET ? END_RST : reason;
    text("close", close_names[c->now.close]);
    text("closer", closer < 0 ? NULL : side_names[closer]);
    text("rst_by", c->rst_by < 0 ? NULL : side_names[c->rst_by]);
    number("rst_seen", c->rst_seen);
    number("rst_ttl", c->rst_seen == NEVER ? NEVER : c->rst_ttl);
    number("rst_rejected", c->rst_rejected);
    text("client_state", state_names[c->now.state[CLIENT]]);
    text("server_state", state_names[c->now.state[SERVER]]);
    text("time_wait_side", c->time_wait_side < 0 ? NULL : side_names[c->time_wait_side]);
    number("time_wait_start", c->time_wait_start);
    text("time_wait_end", !tw_over ? NULL : reason == END_REUSE ? "reused" : "expired");
    number("fin_rtt_ns", c->first_fin_resent ? NEVER : between(c->first_fin, c->first_fin_acked));
    number("half_closed_ns", between(c->first_fin, second));
    number("payload_bytes_after_fin", c->end[0].payload_after_fin + c->end[1].payload_after_fin);
    number("close_duration_ns", c->now.close == C_NULL ? NEVER : between(opened, c->closed_at));
    number("packets_after_close", c->packets_after_close);
    text("end_reason", end_names[ended == END_IDLE && c->now.phase <= P_HALF_OPEN ? END_ATTEMPT : ended]);
}

/* The population standard deviation, rounded down: the root of (n * sum of squares - square of the sum), over n. */
static int64_t deviation(const End *e)
{
    unsigned __int128 n = (uint64_t)e->samples, sum = (uint64_t)e->rtt_sum;
    unsigned __int128 spread = n * e->rtt_squares - sum * sum;
    unsigned __int128 root = (unsigned __int128)sqrtl((long double)spread);
    while (root * root > spread)
        root--;
    while ((root + 1) * (root + 1) <= spread)
        root++;
    return (int64_t)(root / n);
}

static void write_end(const Connection *c, int side)
{
    const End *e = &c->end[side];
    bool seen = e->syn_at != NEVER;
    char name[64] = "";
    int64_t acked_bytes = e->acked - 1 - (e->fin_position >= 0 && e->acked > e->fin_position);
    int64_t missing = acked_bytes > e->unique_bytes ? acked_bytes - e->unique_bytes : 0;
    int64_t mean = e->samples ? e->rtt_sum / e->samples : NEVER;
    const struct { const char *name; int64_t value; } columns[] = {
        {"isn", seen ? e->isn : NEVER},
        {"mss", seen && e->has_mss ? e->mss : NEVER},
        {"window_scale", seen && e->has_scale ? e->window_scale : NEVER},
        {"syn_window", seen ? e->syn_window : NEVER},
        {"sack_permitted", seen ? e->has_sack : NEVER},
        {"timestamps", seen ? e->has_timestamps : NEVER},
        {"option_kinds", seen ? e->option_kinds : NEVER},
        {"ttl", seen ? e->ttl : NEVER},
        {"dont_fragment", seen && c->ip_version == 4 ? e->dont_fragment : NEVER},
        {"fin", e->fin_at},
        {"fin_count", e->fins},
        {"rst_count", e->rsts},
        {"packets", e->packets},
        {"ip_bytes", e->ip_bytes},
        {"payload_bytes", e->payload_bytes},
        {"unique_bytes", e->unique_bytes},
        {"pure_acks", e->pure_acks},
        {"retransmitted_segments", e->retransmitted_segments},
        {"retransmitted_bytes", e->retransmitted_bytes},
        {"out_of_order_segments", e->out_of_order_segments},
        {"missing_bytes", missing},
        {"keep_alives", e->keep_alives},
        {"zero_windows", e->zero_windows},
        {"duplicate_acks", e->duplicate_acks},
        {"capture_duplicates", options.duplicates > 0 ? e->capture_duplicates : NEVER},
        {"first_payload", e->first_payload},
    };
    const struct { const char *name; int64_t value; } far[] = {
        {"rtt_samples", e->samples},
        {"rtt_min_ns", e->samples ? e->rtt_min : NEVER},
        {"rtt_mean_ns", mean},
        {"rtt_max_ns", e->samples ? e->rtt_max : NEVER},
        {"rtt_stddev_ns", e->samples ? deviation(e) : NEVER},
    };
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        if (header)
            snprintf(name, sizeof name, "%s_%s", side_names[side], columns[i].name);
        number(name, columns[i].value);
    }
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) { /* the far side of what this end sent */
        if (header)
            snprintf(name, sizeof name, "%s_%s", side_names[!side], far[i].name);
        number(name, far[i].value);
    }
}

static void write_row(const Connection *c, int reason)
{
    first_field = true;
    write_identity(c);
    write_opening(c, reason);
    write_closing(c, reason);
    write_end(c, CLIENT);
    write_end(c, SERVER);
    number("first_response_ns", between(c->end[CLIENT].first_payload, c->end[SERVER].first_payload));
    putc_unlocked('\n', rows);
}

void truth_open(void)
{
    if (!options.truth)
        return;
    rows = fopen(options.truth, "w");
    if (!rows)
        fail("cannot write %s: %s", options.truth, strerror(errno));
    setvbuf(rows, NULL, _IOFBF, 1 << 20);
    Connection none = {0};
    header = true;
    write_row(&none, END_INPUT);
    header = false;
}

/* The record ends: at its deadline (END_IDLE), by reuse, or because the input ends. */
void truth_end(Connection *c, int reason, int64_t at)
{
    if (rows)
        write_row(c, reason);
    if (reason != END_INPUT)
        intervals_end(c, at);
}

void truth_close(void)
{
    if (rows && fclose(rows))
        fail("cannot write %s: %s", options.truth, strerror(errno));
}
