/* send: sends a capture's Ethernet frames through an interface, once or again and again, at a rate or as fast as it can.
 *
 * Each time it begins anew with the capture, the connections are others: one address of a packet has grown by the number
 * of the pass and the other one shrunk by it, in their last 16 bits and in the arithmetic of the Internet checksum
 * (RFC 1071), so that the checksums of IP and TCP, which cover both, stay what they were. Which of the two grows is told
 * by the order of the addresses, the same for both directions of a connection.
 *
 * At the end one line of JSON: frames that the kernel took, frames that it refused, seconds. A frame is refused where the
 * peer's queue is full; it is not sent again unless --retry.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <math.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef PACKET_QDISC_BYPASS
#define PACKET_QDISC_BYPASS 20
#endif

enum { AT_ONCE = 256, HEADERS = 54, TICK_NS = 1000000, MOST_PASSES = 65534 };

static volatile sig_atomic_t stopped;
static const uint8_t *capture, *capture_end;
static uint64_t sent, refused;
static uint32_t pass;
static bool retry;

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("send: ", stderr);
    vfprintf(stderr, format, arguments);
    putc('\n', stderr);
    va_end(arguments);
    exit(2);
}

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static double now_s(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void open_capture(const char *path)
{
    int file = open(path, O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about))
        fail("%s: %s", path, strerror(errno));
    uint32_t magic = 0;
    if (about.st_size >= 24 + 16) {
        void *memory = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
        if (memory == MAP_FAILED)
            fail("%s: %s", path, strerror(errno));
        capture = memory;
        capture_end = capture + about.st_size;
        memcpy(&magic, capture, 4);
    }
    if (magic != 0xa1b2c3d4 && magic != 0xa1b23c4d)
        fail("%s is no pcap of this machine's byte order that holds packets", path);
    close(file);
}

/* word + more in ones' complement; more is below 0xffff. */
static void grow(uint8_t *word, uint32_t more)
{
    uint32_t sum = (uint32_t)(word[0] << 8 | word[1]) + more;
    sum = (sum & 0xffff) + (sum >> 16);
    word[0] = (uint8_t)(sum >> 8);
    word[1] = (uint8_t)sum;
}

/* A copy of the frame's headers with the addresses of this pass; false where it has none that can be changed. */
static bool readdress(const uint8_t *frame, uint32_t length, uint8_t *copy)
{
    uint32_t kind = length >= HEADERS ? (uint32_t)(frame[12] << 8 | frame[13]) : 0;
    if (!pass || (kind != 0x0800 && kind != 0x86dd))
        return false;
    uint32_t first = kind == 0x0800 ? 26 : 22, bytes = kind == 0x0800 ? 4 : 16;
    memcpy(copy, frame, HEADERS);
    bool ordered = memcmp(frame + first, frame + first + bytes, bytes) < 0;
    grow(copy + first + bytes - 2, ordered ? pass : 0xffff - pass);
    grow(copy + first + 2 * bytes - 2, ordered ? 0xffff - pass : pass);
    return true;
}

/* Sends up to `most` frames from `at` on; returns where it came to. */
static const uint8_t *send_some(int out, const uint8_t *at, uint64_t most)
{
    static uint8_t copies[AT_ONCE][HEADERS];
    static struct iovec parts[AT_ONCE][2];
    static struct mmsghdr messages[AT_ONCE];
    unsigned count = 0;
    while (count < AT_ONCE && count < most && capture_end - at >= 16) {
        uint32_t length;
        memcpy(&length, at + 8, 4);
        if ((uint64_t)(capture_end - at) < 16 + (uint64_t)length)
            break;
        const uint8_t *frame = at + 16;
        uint32_t changed = readdress(frame, length, copies[count]) ? HEADERS : 0;
        parts[count][0] = (struct iovec){copies[count], changed};
        parts[count][1] = (struct iovec){(void *)(frame + changed), length - changed};
        messages[count].msg_hdr = (struct msghdr){.msg_iov = parts[count], .msg_iovlen = 2};
        at = frame + length;
        count++;
    }
    for (unsigned done = 0; done < count && !stopped;) {
        int taken = sendmmsg(out, messages + done, count - done, 0);
        if (taken > 0) {
            sent += (unsigned)taken;
            done += (unsigned)taken;
        } else if (errno == ENOBUFS || errno == EAGAIN) {
            if (!retry) {
                refused++;
                done++;
            }
        } else if (errno != EINTR) {
            fail("cannot send: %s", strerror(errno));
        }
    }
    return count ? at : capture_end;
}

/* How many packets are due `t` seconds after the beginning, where the rate swings by half in `wave` seconds. */
static uint64_t due_at(double t, double rate, double wave)
{
    double swing = wave > 0 ? 0.5 * wave / (2 * M_PI) * (1 - cos(2 * M_PI * t / wave)) : 0;
    return (uint64_t)(rate * (t + swing));
}

static const char USAGE[] =
    "send [OPTIONS] FILE IFACE: sends the frames of a pcap through an interface\n\n"
    "  --rate N      packets a second; without it as fast as it can\n"
    "  --wave S      let the rate swing between half and one and a half of N, once in S seconds\n"
    "  --seconds S   begin anew with the capture until S seconds are over, each time with other addresses\n"
    "  --passes N    or N times, at most 65534 (1)\n"
    "  --retry       send a frame again that the kernel has refused\n";

static int socket_of(const char *interface)
{
    int out = socket(AF_PACKET, SOCK_RAW, 0), yes = 1;
    if (out < 0)
        fail("no packet socket: %s", strerror(errno));
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(interface)};
    if (!to.sll_ifindex || bind(out, (struct sockaddr *)&to, sizeof to))
        fail("%s: %s", interface, strerror(errno));
    setsockopt(out, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes);
    return out;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"rate", 1, 0, 'r'},   {"wave", 1, 0, 'w'}, {"seconds", 1, 0, 's'},
                                          {"passes", 1, 0, 'p'}, {"retry", 0, 0, 'y'}, {0, 0, 0, 0}};
    double rate = 0, wave = 0, seconds = 0;
    uint32_t passes = 0;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'r')
            rate = atof(optarg);
        else if (option == 'w')
            wave = atof(optarg);
        else if (option == 's')
            seconds = atof(optarg);
        else if (option == 'p')
            passes = (uint32_t)atoi(optarg);
        else if (option == 'y')
            retry = true;
        else
            fail("wrong option\n%s", USAGE);
    }
    if (argc - optind != 2)
        fail("two words are needed\n%s", USAGE);
    if (rate < 0 || wave < 0 || seconds < 0 || passes > MOST_PASSES)
        fail("a number is too small or too large\n%s", USAGE);
    passes = passes ? passes : seconds > 0 ? MOST_PASSES : 1;
    open_capture(argv[optind]);
    int out = socket_of(argv[optind + 1]);
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    double begin = now_s();
    const uint8_t *at = capture + 24;
    while (!stopped) {
        double passed = now_s() - begin;
        if (seconds > 0 && passed >= seconds)
            break;
        uint64_t due = rate > 0 ? due_at(passed, rate, wave) : UINT64_MAX, done = sent + refused;
        if (due <= done) {
            nanosleep(&(struct timespec){.tv_nsec = TICK_NS}, NULL);
            continue;
        }
        at = send_some(out, at, due - done);
        if (capture_end - at < 16) {
            if (++pass == passes)
                break;
            at = capture + 24;
        }
    }
    printf("{\"sent\": %llu, \"refused\": %llu, \"seconds\": %.3f}\n", (unsigned long long)sent, (unsigned long long)refused,
           now_s() - begin);
    return 0;
}
