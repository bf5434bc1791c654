/* The traffic generator: a simulation of TCP connections as a tap between client and server sees them.
 *
 * A connection is played in episodes: an opening, exchanges of data, a close (traffic_opening.c, traffic_data.c,
 * traffic_closing.c). An episode writes its packets into a plan, each with the instant at which it passes the tap and
 * with what its sender means by it. The event loop (traffic.c) plays all plans in the order of time, writes each packet
 * (traffic_wire.c) and notes in the connection's truth what was meant (traffic_truth.c). Nothing in the truth is read back from packets or computed from
 * 32-bit sequence numbers: positions in a stream are 64-bit offsets from the end's SYN (SYN 0, first byte 1).
 */
#ifndef TRAFFIC_H
#define TRAFFIC_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)
#define NEVER INT64_MIN

enum { CLIENT, SERVER };

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10 };

/* The states of RFC 9293 section 3.3.2. */
enum {
    CLOSED, LISTEN, SYN_SENT, SYN_RECEIVED, ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, CLOSING, LAST_ACK, TIME_WAIT,
    STATE_COUNT
};

/* What the sender means by a packet. */
enum {
    M_SYN,        /* a SYN, first or resent */
    M_SYNACK,     /* a SYN-ACK, first or resent */
    M_ACK,        /* nothing but an acknowledgement */
    M_DUP_ACK,    /* the same acknowledgement again, because a segment arrived out of order */
    M_DATA,       /* payload that the tap sees for the first time, at the end of the stream (a FIN may go with it) */
    M_AGAIN,      /* a resend of payload that passed the tap before */
    M_LATE,       /* payload that passes the tap for the first time, after later payload */
    M_KEEP_ALIVE, /* a probe one below the end of the stream */
    M_FIN,        /* the first FIN of this end */
    M_FIN_AGAIN,  /* a resend of it */
    M_RST,        /* a reset that its target takes */
    M_BAD_RST,    /* a reset that its target must ignore */
};

/* Where the connection stands. */
enum {
    P_OPENING, P_HALF_OPEN, P_OPEN, P_ONE_FIN, P_HALF_CLOSED, P_BOTH_FINS, P_CLOSED, P_RESET, P_GONE,
};

enum { HS_COMPLETE, HS_UNANSWERED, HS_REFUSED, HS_HALF_OPEN, HS_ABORTED, HS_PENDING };
enum { Q_CLEAN, Q_MATCHED, Q_AMBIGUOUS, Q_NONE };
enum { C_4WAY, C_3WAY, C_SIMULTANEOUS, C_HALF_CLOSED, C_UNANSWERED, C_RST, C_RST_AFTER_FIN, C_OPEN, C_NULL };
enum { END_FIN, END_RST, END_IDLE, END_ATTEMPT, END_REUSE, END_INPUT };

/* What holds after a packet. */
typedef struct {
    uint8_t state[2];
    uint8_t phase, handshake, close;
} Situation;

/* One planned packet. */
typedef struct {
    int64_t at;         /* ns since 1970, at the tap */
    int64_t echo;       /* instant of the peer's packet that the timestamp echo names; NEVER: the last one received */
    int64_t rtt_from[2];/* M_SYN..: instants that rtt_server_ns and rtt_client_ns of this answer count from, or NEVER */
    int64_t offset;     /* position of the first byte in the sender's stream */
    int64_t ack;        /* position of the next byte that the sender expects; -1: no ACK flag */
    uint32_t payload_bytes;
    uint16_t window;    /* the header's field */
    uint8_t from, flags, meaning;
    uint8_t quality[2]; /* of the two RTTs */
    uint8_t ttl;        /* 0: the sender's own; else that of an appliance on the way */
    bool lost;          /* behind the tap: the peer never gets it */
    bool zero_seq;      /* the reset of a closed port: sequence number 0 */
    bool opens;         /* completes the handshake */
    Situation after;
} Packet;

#define PLAN_PACKETS 16
typedef struct {
    int count, next;
    Packet packets[PLAN_PACKETS];
} Plan;

/* One end: what it is, where its stream stands, and the truth about what it sent. */
typedef struct {
    uint8_t ip[16];
    uint16_t port;
    uint8_t ttl, window_scale, options_len, timestamps_at;
    bool has_mss, has_scale, has_sack, has_timestamps, dont_fragment;
    uint16_t mss, syn_window, window, ip_id;
    uint32_t isn, clock_offset_ms, echo_ms;
    uint8_t options[40];
    int64_t rtt;             /* ns from the tap to this end and back */
    int64_t snd, rcv;        /* planner: next position to send, next expected */
    /* truth */
    int64_t option_kinds;
    int64_t syn_at;          /* its first SYN or SYN-ACK; NEVER: none */
    int64_t fin_at, first_payload;
    int64_t packets, ip_bytes, payload_bytes, unique_bytes, pure_acks, retransmitted_segments, retransmitted_bytes;
    int64_t out_of_order_segments, keep_alives, zero_windows, duplicate_acks, fins, rsts, payload_after_fin;
    int64_t capture_duplicates;
    int64_t acked;           /* highest position that the peer acknowledged */
    int64_t fin_position;    /* of its FIN; -1: none */
    int32_t last_window;     /* field of its last segment with ACK; -1: none */
    int64_t timed_end, timed_at; /* the one timed segment (Karn); timed_end 0: none */
    int64_t samples, rtt_min, rtt_max, rtt_sum;
    unsigned __int128 rtt_squares;
} End;

typedef struct {
    uint8_t ip_version;
    bool timestamps;         /* both offered them */
    bool sim_open;
    bool in_use;
    uint8_t episodes_left;   /* 255: for ever */
    uint8_t stage;           /* event loop: what comes next */
    uint8_t close_kind, closer;
    uint32_t turn;           /* longlived: position in the cycle of data and ACK */
    int64_t episode_start;
    Plan *plan;
    Situation now, planned;
    End end[2];
    /* truth */
    int64_t first_seen, last_seen, first_packet, deadline;
    int first_file;
    int64_t syn_first, syn_last, syn_count, synack_first, synack_last, synack_count, handshake_done;
    int64_t rtt_server, rtt_client, rtt_base, rtt_server_at, rtt_client_at;
    uint8_t quality_server, quality_client;
    int8_t closer_seen, rst_by, time_wait_side; /* -1: none, 2: both */
    uint8_t rst_ttl;
    int64_t first_fin, first_fin_acked, rst_seen, rst_rejected, closed_at, packets_after_close, time_wait_start;
    bool first_fin_resent;
} Connection;

typedef struct {
    uint64_t seed;
    int64_t packets, connections_open, span_ns;
    uint32_t snaplen;
    int files;
    enum { PAYLOAD_FULL, PAYLOAD_SMALL, PAYLOAD_NONE } payload;
    enum { MIX_STANDARD, MIX_CHURN, MIX_FLOOD, MIX_LONGLIVED } mix;
    double ipv6_share;
    double duplicates;       /* share of packets that the capture holds twice */
    double random_syns;      /* longlived: share of packets that are SYNs of no connection of the play */
    bool microseconds;       /* in the file, instead of nanoseconds */
    double time_scale;       /* of round trips, below 1 where the span leaves less time than they need */
    const char *out, *truth, *intervals;
} Options;

extern Options options;

/* traffic_random.c */
uint64_t random_u64(void);
uint64_t random_next(uint64_t *state); /* of a sequence apart */
int64_t random_below(int64_t bound);
bool chance(double share);
double random_exponential(double mean);
void random_seed(uint64_t seed);

/* traffic_ends.c */
void connection_start(Connection *c, uint64_t number, bool same_ends);

/* traffic_opening.c, traffic_data.c, traffic_closing.c */
void plan_opening(Connection *c, int64_t at, bool plain);
void plan_exchange(Connection *c, int64_t at);
void plan_longlived(Connection *c, int64_t at);
void plan_close(Connection *c, int64_t at);

/* traffic_flood.c */
void flood_syn(int64_t at);

/* traffic_wire.c */
void wire_open(void);
void wire_write(Connection *c, const Packet *p);
void wire_append(int64_t at, const uint8_t *frame, size_t captured, size_t wire);
void wire_close(void);
int64_t wire_number(void);   /* of the last packet, from 1, in its file */
int wire_file(void);

/* traffic_copies.c */
void copies_seed(uint64_t seed);
void copies_take(Connection *c, const Packet *p, const uint8_t *frame, size_t captured, size_t wire, size_t headers);
void copies_until(int64_t at);

/* traffic_truth.c */
void truth_reset(Connection *c);
void truth_note(Connection *c, const Packet *p);
void truth_copy(Connection *c, int from, int64_t at, int64_t ip_bytes);
int64_t packet_ip_bytes(const Connection *c, const Packet *p);

/* traffic_rows.c */
void truth_open(void);
void truth_end(Connection *c, int reason, int64_t at);
void truth_close(void);

/* traffic_intervals.c */
void intervals_open(int64_t first);
void intervals_note(const Connection *c, const Packet *p, const Situation *before, bool syn_again);
void intervals_copy(int64_t at, int64_t ip_bytes);
void intervals_end(const Connection *c, int64_t at);
void intervals_close(void);

void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
