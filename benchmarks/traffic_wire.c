/* Packets as bytes: Ethernet, IPv4 or IPv6, TCP, in little-endian pcap files (magic 0xa1b23c4d, or 0xa1b2c3d4 with
 * microseconds). */
#include "traffic.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20, RECORD_MOST = 16 + 18 + 40 + 60 + 2000, PATTERN_BYTES = 1 << 18, ETHERNET_LEAST = 60 };

static uint8_t buffer[BUFFER_BYTES + RECORD_MOST];
static size_t filled;
static int fd = -1, file = -1;
static int64_t in_file, per_file;
/* Payload is a piece of one random pattern (longer than deflate's window, so that it does not compress away), and the
 * sums of its 16-bit words make the checksum of a piece cost nothing. */
static uint8_t pattern[PATTERN_BYTES];
static uint64_t pattern_sums[PATTERN_BYTES / 2 + 1];

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v & 0xffff);
}

static void put32_little(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static void flush(void)
{
    for (size_t done = 0; done < filled;) {
        ssize_t n = write(fd, buffer + done, filled - done);
        if (n < 0 && errno != EINTR)
            fail("cannot write %s: %s", options.out, strerror(errno));
        done += n > 0 ? (size_t)n : 0;
    }
    filled = 0;
}

/* The name of file `number`: NAME.pcap, or NAME-00000.pcap and so on in a set. */
static void file_name(char *name, size_t size, int number)
{
    size_t stem = strlen(options.out);
    if (stem > 5 && !strcmp(options.out + stem - 5, ".pcap"))
        stem -= 5;
    if (options.files > 1)
        snprintf(name, size, "%.*s-%05d.pcap", (int)stem, options.out, number);
    else
        snprintf(name, size, "%s", options.out);
}

static void next_file(void)
{
    char name[4096];
    if (fd >= 0) {
        flush();
        close(fd);
    }
    file_name(name, sizeof name, ++file);
    fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0)
        fail("cannot write %s: %s", name, strerror(errno));
    const uint32_t header[] = {options.microseconds ? 0xa1b2c3d4 : 0xa1b23c4d, 2 | 4 << 16, 0, 0, options.snaplen, 1 /* LINKTYPE_ETHERNET */};
    for (int i = 0; i < 6; i++, filled += 4)
        put32_little(buffer + filled, header[i]);
    in_file = 0;
}

void wire_open(void)
{
    for (int i = 0; i < PATTERN_BYTES; i += 8) {
        uint64_t r = random_u64();
        memcpy(pattern + i, &r, 8);
    }
    for (int i = 0; i < PATTERN_BYTES / 2; i++)
        pattern_sums[i + 1] = pattern_sums[i] + ((unsigned)pattern[2 * i] << 8 | pattern[2 * i + 1]);
    per_file = (options.packets + options.files - 1) / options.files;
    next_file();
}

void wire_close(void)
{
    flush();
    if (close(fd))
        fail("cannot write %s: %s", options.out, strerror(errno));
}

int64_t wire_number(void)
{
    return in_file;
}

int wire_file(void)
{
    return file;
}

/* Sum of 16-bit words for the Internet checksum (RFC 1071); `size` is even. */
static uint64_t words(const uint8_t *p, size_t size)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i += 2)
        sum += (unsigned)p[i] << 8 | p[i + 1];
    return sum;
}

static uint16_t checksum(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* What the sender's millisecond clock shows in a timestamp option (RFC 7323 section 3). */
static uint32_t timestamp_value(const End *e, int64_t at)
{
    return e->clock_offset_ms + (uint32_t)(at / NS_PER_MS);
}

static size_t options_write(const Connection *c, const Packet *p, uint8_t *out, uint32_t value)
{
    const End *from = &c->end[p->from], *to = &c->end[!p->from];
    uint32_t echo = p->echo == NEVER ? from->echo_ms : timestamp_value(to, p->echo);
    uint8_t *times = NULL;
    size_t size = 0;
    if (p->flags & SYN) {
        size = from->options_len;
        memcpy(out, from->options, size);
        times = from->has_timestamps ? out + from->timestamps_at : NULL;
    } else if (c->timestamps && !(p->flags & RST)) {
        static const uint8_t aligned[] = {1, 1, 8, 10};
        size = 12;
        memcpy(out, aligned, sizeof aligned);
        times = out + 4;
    }
    if (times) {
        put32(times, value);
        put32(times + 4, p->flags & ACK ? echo : 0);
    }
    return size;
}

/* The IP header, its payload's length known; returns its size and adds the TCP pseudo-header to `sum`. */
static size_t ip_write(Connection *c, const Packet *p, uint8_t *ip, size_t tcp_bytes, uint64_t *sum)
{
    End *from = &c->end[p->from], *to = &c->end[!p->from];
    size_t address = c->ip_version == 4 ? 4 : 16, header = c->ip_version == 4 ? 20 : 40;
    uint8_t *addresses = ip + (c->ip_version == 4 ? 12 : 8);
    uint8_t ttl = p->ttl ? p->ttl : from->ttl;
    memset(ip, 0, header);
    memcpy(addresses, from->ip, address);
    memcpy(addresses + address, to->ip, address);
    if (c->ip_version == 4) {
        ip[0] = 0x45;
        put16(ip + 2, (unsigned)(header + tcp_bytes));
        put16(ip + 4, from->ip_id++);
        ip[6] = from->dont_fragment ? 0x40 : 0;
        ip[8] = ttl;
        ip[9] = 6;
        put16(ip + 10, checksum(words(ip, header)));
    } else {
        ip[0] = 0x60;
        ip[3] = p->ttl != 0; /* an appliance has a flow label of its own; else its RST would be a copy of the end's */
        put16(ip + 4, (unsigned)tcp_bytes);
        ip[6] = 6;
        ip[7] = ttl;
    }
    *sum += words(addresses, 2 * address) + 6 + tcp_bytes;
    return header;
}

/* Puts the header before a record whose bytes stand in the buffer. */
static void finish_record(int64_t at, size_t captured, size_t wire)
{
    uint8_t *record = buffer + filled;
    put32_little(record, (uint32_t)(at / NS_PER_S));
    put32_little(record + 4, (uint32_t)(at % NS_PER_S / (options.microseconds ? 1000 : 1)));
    put32_little(record + 8, (uint32_t)captured);
    put32_little(record + 12, (uint32_t)wire);
    filled += 16 + captured;
    in_file++;
    if (filled >= BUFFER_BYTES)
        flush();
}

void wire_append(int64_t at, const uint8_t *frame, size_t captured, size_t wire)
{
    memcpy(buffer + filled + 16, frame, captured);
    finish_record(at, captured, wire);
}

void wire_write(Connection *c, const Packet *p)
{
    if (in_file == per_file && file + 1 < options.files)
        next_file();
    End *from = &c->end[p->from], *to = &c->end[!p->from];
    uint8_t *record = buffer + filled, *frame = record + 16, *ip = frame + 14;
    uint8_t *tcp = ip + (c->ip_version == 4 ? 20 : 40);
    uint32_t value = timestamp_value(from, p->at);
    size_t header = 20 + options_write(c, p, tcp + 20, value), size = header + p->payload_bytes;
    uint64_t sum = 0;

    for (int i = 0; i < 2; i++) { /* locally administered addresses, one for each end */
        memset(frame + 6 * i, 0, 5);
        frame[6 * i] = 2;
        frame[6 * i + 5] = (uint8_t)(p->from == i ? 2 : 1);
    }
    put16(frame + 12, c->ip_version == 4 ? 0x0800 : 0x86dd);
    size_t wire = 14 + ip_write(c, p, ip, size, &sum) + size;
    put16(tcp, from->port);
    put16(tcp + 2, to->port);
    put32(tcp + 4, p->zero_seq ? 0 : from->isn + (uint32_t)p->offset);
    put32(tcp + 8, p->flags & ACK ? to->isn + (uint32_t)p->ack : 0);
    tcp[12] = (uint8_t)(header / 4 << 4);
    tcp[13] = p->flags;
    put16(tcp + 14, p->window);
    put32(tcp + 16, 0);
    sum += words(tcp, header);
    if (p->payload_bytes) {
        size_t piece = (size_t)(p->at >> 3) % ((PATTERN_BYTES - 2000) / 2), whole = p->payload_bytes / 2;
        sum += pattern_sums[piece + whole] - pattern_sums[piece];
        if (p->payload_bytes % 2)
            sum += (unsigned)pattern[2 * (piece + whole)] << 8;
        memcpy(tcp + header, pattern + 2 * piece, p->payload_bytes);
    }
    put16(tcp + 16, checksum(sum));
    if (wire < ETHERNET_LEAST) {
        memset(frame + wire, 0, ETHERNET_LEAST - wire);
        wire = ETHERNET_LEAST;
    }
    size_t captured = wire < options.snaplen ? wire : options.snaplen;
    if (!p->lost)
        to->echo_ms = value;
    if (options.duplicates > 0)
        copies_take(c, p, frame, captured, wire, (size_t)(tcp - frame) + header);
    finish_record(p->at, captured, wire);
}
