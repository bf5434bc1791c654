/* traffic: writes a capture of simulated TCP connections, and the truth about them. See traffic.h.
 *
 * The event loop: a heap holds one event for each connection, the next packet of its plan or the instant at which it
 * is asked for its next episode; a finished one waits there for its record's deadline or to be opened again between
 * the same two sockets.
 */
#include "traffic.h"

#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define EPOCH_NS (INT64_C(1750000000) * NS_PER_S)
#define THINK_MOST_NS (3600 * NS_PER_S) /* below every idle timeout */

Options options = {.seed = 1, .packets = 100000, .connections_open = 1000, .span_ns = 10 * NS_PER_S, .snaplen = 262144,
                   .files = 1, .payload = PAYLOAD_SMALL, .mix = MIX_STANDARD, .ipv6_share = 0.1, .time_scale = 1};

enum { S_OPENING, S_OPEN, S_CLOSING, S_EXPIRES, S_REUSED };

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("traffic: ", stderr);
    vfprintf(stderr, format, arguments);
    putc('\n', stderr);
    va_end(arguments);
    exit(2);
}

static void *need(void *memory)
{
    if (!memory)
        fail("out of memory");
    return memory;
}

/* ---- connections and plans, in chunks that never move ---- */

enum { CHUNK = 1024 };
static Connection **chunks;
static uint32_t connection_count, *free_ids, free_count;
static Plan **free_plans;
static uint32_t free_plan_count, plan_count;

static Connection *connection(uint32_t id)
{
    return &chunks[id / CHUNK][id % CHUNK];
}

static uint32_t connection_new(void)
{
    if (free_count)
        return free_ids[--free_count];
    if (connection_count % CHUNK == 0) {
        size_t count = connection_count / CHUNK + 1;
        chunks = need(realloc(chunks, count * sizeof *chunks));
        chunks[count - 1] = need(calloc(CHUNK, sizeof **chunks));
        free_ids = need(realloc(free_ids, count * CHUNK * sizeof *free_ids));
    }
    return connection_count++;
}

static void connection_free(uint32_t id)
{
    connection(id)->in_use = false;
    free_ids[free_count++] = id;
}

static Plan *plan_new(void)
{
    if (!free_plan_count) {
        plan_count += CHUNK;
        free_plans = need(realloc(free_plans, plan_count * sizeof *free_plans));
        Plan *plans = need(malloc(CHUNK * sizeof *plans));
        for (int i = 0; i < CHUNK; i++)
            free_plans[free_plan_count++] = plans + i;
    }
    Plan *plan = free_plans[--free_plan_count];
    plan->count = plan->next = 0;
    return plan;
}

static void plan_free(Connection *c)
{
    free_plans[free_plan_count++] = c->plan;
    c->plan = NULL;
}

/* ---- the heap ---- */

typedef struct {
    int64_t at;
    uint32_t id;
} Event;

static Event *heap;
static uint32_t heap_count, heap_room;

static bool sooner(Event a, Event b)
{
    return a.at < b.at || (a.at == b.at && a.id < b.id);
}

static void heap_push(int64_t at, uint32_t id)
{
    if (heap_count == heap_room) {
        heap_room = heap_room ? heap_room * 2 : 4096;
        heap = need(realloc(heap, heap_room * sizeof *heap));
    }
    uint32_t i = heap_count++;
    Event event = {at, id};
    for (; i && sooner(event, heap[(i - 1) / 4]); i = (i - 1) / 4)
        heap[i] = heap[(i - 1) / 4];
    heap[i] = event;
}

/* Puts `event` in the place of the first one. */
static void heap_replace(Event event)
{
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 4 * i + 1, best = child;
        if (child >= heap_count)
            break;
        for (uint32_t k = child + 1; k < child + 4 && k < heap_count; k++)
            if (sooner(heap[k], heap[best]))
                best = k;
        if (!sooner(heap[best], event))
            break;
        heap[i] = heap[best];
        i = best;
    }
    heap[i] = event;
}

static void heap_pop(void)
{
    Event last = heap[--heap_count];
    if (heap_count)
        heap_replace(last);
}

/* ---- the play ---- */

static int64_t emitted, now, end_at;
static uint64_t connections_started;

static void emit(Connection *c, const Packet *p)
{
    now = p->at;
    copies_until(now);
    wire_write(c, p);
    truth_note(c, p);
    emitted++;
}

/* How long a connection is silent after `packets` packets, so that all of them together keep the span. */
static int64_t think(int64_t packets, int64_t since)
{
    double gap = (double)(end_at - now) / (double)(options.packets - emitted + 1) * (double)options.connections_open;
    double silent = random_exponential(gap > 0 ? gap * (double)packets : 0) - (double)(now - since);
    return silent < 10000 ? 10000 : silent > THINK_MOST_NS ? THINK_MOST_NS : (int64_t)silent;
}

static uint8_t episodes(void)
{
    double count = random_exponential(options.mix == MIX_CHURN || options.mix == MIX_FLOOD ? 1.5 : 8);
    return count > 200 ? 200 : (uint8_t)count;
}

static void start(uint32_t id, bool same_ends)
{
    Connection *c = connection(id);
    c->in_use = true;
    c->stage = S_OPENING;
    c->episodes_left = episodes();
    connection_start(c, connections_started, same_ends);
    connections_started += !same_ends;
    truth_reset(c);
}

static void play_episode(Connection *c, int64_t at)
{
    c->plan = plan_new();
    c->episode_start = at;
    if (c->stage == S_OPENING)
        plan_opening(c, at, options.mix == MIX_LONGLIVED);
    else if (c->episodes_left) {
        c->episodes_left--;
        plan_exchange(c, at);
    } else {
        c->stage = S_CLOSING;
        plan_close(c, at);
    }
}

/* Only what nobody doubts to be over may be opened again at once: a close, a reset, an attempt. */
static bool may_reuse(const Connection *c)
{
    return c->now.phase == P_CLOSED || c->now.phase == P_RESET || c->now.phase <= P_HALF_OPEN;
}

/* The first event's connection has played its last packet; another one takes its place among the open ones. */
static void finish(uint32_t id)
{
    Connection *c = connection(id);
    int64_t reuse = now + NS_PER_MS + random_below(c->deadline - now);
    bool reused = may_reuse(c) && chance(0.05) && reuse < c->deadline;
    c->stage = reused ? S_REUSED : S_EXPIRES;
    heap_replace((Event){reused ? reuse : c->deadline, id});
    uint32_t next = connection_new();
    start(next, false);
    heap_push(now + think(3, now), next);
}

static void play_packet(uint32_t id)
{
    Connection *c = connection(id);
    Plan *plan = c->plan;
    emit(c, &plan->packets[plan->next++]);
    if (plan->next < plan->count) {
        heap_replace((Event){plan->packets[plan->next].at, id});
        return;
    }
    int64_t packets = plan->count;
    plan_free(c);
    if (c->stage != S_CLOSING && c->now.phase == P_OPEN) {
        c->stage = S_OPEN;
        if (options.mix == MIX_LONGLIVED)
            heap_pop();
        else
            heap_replace((Event){now + think(packets, c->episode_start), id});
    } else {
        finish(id);
    }
}

static void play_event(Event event)
{
    Connection *c = connection(event.id);
    copies_until(event.at);
    if (c->stage == S_EXPIRES) {
        truth_end(c, END_IDLE, event.at);
        connection_free(event.id);
        heap_pop();
        return;
    }
    if (c->stage == S_REUSED) {
        truth_end(c, END_REUSE, event.at);
        start(event.id, true);
    }
    if (!c->plan) {
        play_episode(c, event.at);
        if (c->plan->packets[0].at > event.at) {
            heap_replace((Event){c->plan->packets[0].at, event.id});
            return;
        }
    }
    play_packet(event.id);
}

/* Warm-up: connections start one after the other; then those that finish are replaced. */
static void play_heap(int64_t begin)
{
    double share = 3.5 * (double)options.connections_open / (double)options.packets;
    int64_t warm_up = (int64_t)((share < 0.5 ? share : 0.5) * (double)options.span_ns);
    int64_t started = 0, next = begin;
    while (emitted < options.packets && (heap_count || started < options.connections_open)) {
        if (started < options.connections_open && (!heap_count || next <= heap[0].at)) {
            uint32_t id = connection_new();
            start(id, false);
            heap_push(next, id);
            started++;
            next = begin + (int64_t)((double)warm_up * (double)started / (double)options.connections_open)
                 + random_below(warm_up / options.connections_open + 1);
            continue;
        }
        play_event(heap[0]);
    }
}

/* The longlived mix after its warm-up: each packet belongs to another connection than the one before. */
static void play_longlived(void)
{
    Plan plan;
    int64_t begin = now, left = options.packets - emitted;
    uint32_t id = 0, next = (uint32_t)random_below(connection_count);
    for (int64_t i = 0; i < left; i++) {
        id = next;
        next = (uint32_t)random_below(connection_count);
        if (next == id && connection_count > 1)
            next = (id + 1) % connection_count;
        const char *ahead = (const char *)connection(next);
        for (size_t line = 0; line < sizeof(Connection); line += 64)
            __builtin_prefetch(ahead + line, 1);
        Connection *c = connection(id);
        int64_t at = begin + (int64_t)((double)(end_at - begin) * (double)(i + 1) / (double)left);
        at = at > now ? at : now;
        if (options.random_syns > 0 && chance(options.random_syns)) {
            flood_syn(at);
            emitted++;
            now = at;
            continue;
        }
        plan.count = 0;
        c->plan = &plan;
        plan_longlived(c, at);
        c->plan = NULL;
        emit(c, &plan.packets[0]);
    }
}

/* The input ends: deadlines up to the last packet have passed, everything else is cut. */
static void play_end(void)
{
    while (heap_count && heap[0].at <= now) {
        Event event = heap[0];
        heap_pop();
        if (connection(event.id)->stage == S_EXPIRES) {
            truth_end(connection(event.id), END_IDLE, event.at);
            connection(event.id)->in_use = false;
        }
    }
    for (uint32_t id = 0; id < connection_count; id++)
        if (connection(id)->in_use && connection(id)->first_packet)
            truth_end(connection(id), END_INPUT, now);
}

/* ---- the command line ---- */

static int choice(const char *value, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (!strcmp(value, names[i]))
            return i;
    fail("'%s' is not one of the choices; see --help", value);
}

static double real(const char *value, double least, double most)
{
    char *end;
    double number = strtod(value, &end);
    if (*end || end == value || !(number >= least && number <= most))
        fail("'%s' is not a number from %g to %g", value, least, most);
    return number;
}

static void usage(void)
{
    puts("traffic: writes a pcap of simulated TCP connections, and the truth about them\n\n"
         "  -o FILE                    the capture (nanosecond pcap); required\n"
         "  --truth FILE               TSV, one row for each expected record\n"
         "  --intervals FILE           TSV, one row for each second\n"
         "  --seed N                   the same seed, the same bytes (1)\n"
         "  --packets N                (100000)\n"
         "  --connections-open K       open at once from the end of warm-up to the end (1000)\n"
         "  --span SECONDS             of capture time (10)\n"
         "  --snaplen BYTES            (262144)\n"
         "  --files N                  a rotated set: FILE-00000.pcap and so on (1)\n"
         "  --payload full|small|none  (small)\n"
         "  --mix standard|churn|flood|longlived\n"
         "                             churn: short connections; flood: most attempts fail; longlived: K connections\n"
         "                             open, then each packet belongs to another one of them (standard)\n"
         "  --ipv6-share P             from 0 to 1 (0.1)\n"
         "  --random-syns P            longlived: share of packets that are SYNs from random addresses, without truth (0)\n"
         "  --microseconds             the same capture with microseconds, for programs that know no others\n"
         "  --duplicates P             share of packets that stand in the capture twice, beside --packets; in one file (0)");
    exit(0);
}

static void parse(int argc, char **argv)
{
    static const struct option known[] = {
        {"seed", 1, 0, 's'}, {"packets", 1, 0, 'n'}, {"connections-open", 1, 0, 'k'}, {"span", 1, 0, 't'},
        {"snaplen", 1, 0, 'l'}, {"files", 1, 0, 'f'}, {"payload", 1, 0, 'p'}, {"mix", 1, 0, 'm'},
        {"ipv6-share", 1, 0, '6'}, {"truth", 1, 0, 'r'}, {"intervals", 1, 0, 'i'}, {"duplicates", 1, 0, 'd'},
        {"random-syns", 1, 0, 'y'}, {"microseconds", 0, 0, 'u'}, {"help", 0, 0, 'h'}, {0}};
    static const char *const payloads[] = {"full", "small", "none", NULL};
    static const char *const mixes[] = {"standard", "churn", "flood", "longlived", NULL};
    for (int o; (o = getopt_long(argc, argv, "o:", known, NULL)) != -1;) {
        switch (o) {
        case 'o': options.out = optarg; break;
        case 'r': options.truth = optarg; break;
        case 'i': options.intervals = optarg; break;
        case 's': options.seed = (uint64_t)real(optarg, 0, 0x1p53); break;
        case 'n': options.packets = (int64_t)real(optarg, 1, 1e11); break;
        case 'k': options.connections_open = (int64_t)real(optarg, 1, 1e8); break;
        case 't': options.span_ns = (int64_t)(real(optarg, 1e-3, 1e8) * 1e9); break;
        case 'l': options.snaplen = (uint32_t)real(optarg, 14, 262144); break;
        case 'f': options.files = (int)real(optarg, 1, 99999); break;
        case 'p': options.payload = choice(optarg, payloads); break;
        case 'm': options.mix = choice(optarg, mixes); break;
        case '6': options.ipv6_share = real(optarg, 0, 1); break;
        case 'd': options.duplicates = real(optarg, 0, 1); break;
        case 'y': options.random_syns = real(optarg, 0, 1); break;
        case 'u': options.microseconds = true; break;
        case 'h': usage(); break;
        default: exit(2);
        }
    }
    if (!options.out || optind < argc)
        fail("-o FILE is required, and nothing beside the options; see --help");
    if (options.random_syns > 0 && (options.mix != MIX_LONGLIVED || options.truth || options.intervals || options.duplicates > 0))
        fail("--random-syns goes with --mix longlived, and without truth, intervals and duplicates");
    if (options.duplicates > 0 && options.snaplen < 80)
        fail("--duplicates needs whole TCP headers: --snaplen 80 or more");
    if (options.duplicates > 0 && options.files > 1)
        fail("--duplicates goes with one file: copies would make the files overlap in time");
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    /* Where a connection's packets follow each other faster than round trips of up to 0.2 s allow, those shrink. */
    double gap = (double)options.span_ns / (double)options.packets * (double)options.connections_open;
    options.time_scale = fmin(1, gap / 30e6);
    random_seed(options.seed);
    copies_seed(options.seed);
    wire_open();
    truth_open();
    now = EPOCH_NS + random_below(NS_PER_S);
    end_at = now + options.span_ns;
    intervals_open(now);
    play_heap(now);
    if (options.mix == MIX_LONGLIVED)
        play_longlived();
    play_end();
    wire_close();
    truth_close();
    intervals_close();
    return 0;
}
