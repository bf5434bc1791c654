"""The reasons for which tcptrace and synfin differ: rules over packets, see classes.py, with tcptrace's side of the argument."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from synfin.verify.classes import Class
from synfin.verify.points import ACK, BYTE_COUNTERS, MARKS, PACKET_COLUMNS, ROUND_TRIPS, SYN, Point
from synfin.verify.tshark_classes import TSHARK_CLASSES

_HOLDS = {one.name: one.holds for one in TSHARK_CLASSES}
_FLAGS = ("syns", "syn", "synack", "fin", "rst")
_OPTIONS = ("mss", "window_scale", "sack_permitted", "timestamps")
_INSTANTS = ("first_seen", "last_seen")


def _skipped(point: Point) -> bool:
    return bool(point.packet and not point.step and point.skip)


def _divided(point: Point) -> bool:
    """Is the fraction of the second that of the packet, divided by a thousand once more?"""
    if not (point.packet and point.step):
        return False
    time = point.step.segment.time
    return point.packet.time == time - time % 10**9 + time % 10**9 // 10**6 * 1000


def _extension(point: Point) -> bool:
    """Are some 8 bytes or more between the IPv6 header and the TCP header taken for payload?"""
    if point.step is None or point.step.segment.ip_version != 6:
        return False
    extra = point.theirs - point.ours
    return extra > 0 and extra % 8 == 0 and point.step.segment.ip_bytes >= 40 + 20 + point.theirs


def _silence(point: Point) -> int:
    """Nanoseconds by tcptrace's clock since the packet before."""
    before = [one.packet.time for one in point.points if one.packet and one.number < point.number]
    return abs(point.packet.time - before[-1]) if before and point.packet else 0


def _same_numbers(earlier: Point, point: Point) -> bool:
    """Did an earlier segment of the same end carry some of the sequence numbers?"""
    if not (earlier.step and point.step) or earlier.number >= point.number:
        return False
    one, other = earlier.step.segment, point.step.segment
    return (other.seq - one.seq) % 2**32 < one.payload or (one.seq - other.seq) % 2**32 < other.payload


def _any(holds: Callable[[Point], bool]) -> Callable[[Point], bool]:
    return lambda point: any(holds(one) for one in point.points or (point,))


TCPTRACE_CLASSES: tuple[Class, ...] = (
    # --- Packets that only one of the two takes for TCP between these ends ------------------------------------------------
    Class(
        "skipped",
        (*PACKET_COLUMNS, *_INSTANTS, "border"),
        _skipped,
        "synfin skips the packet by name (a header that is cut or contradicts itself, both ends the same); tcptrace counts what "
        "it makes of its bytes.",
    ),
    Class(
        "other_ends",
        (*PACKET_COLUMNS, *_INSTANTS, "border"),
        lambda p: p.packet is not None and p.step is None and p.number in p.seen.steps,
        "tcptrace reads the packet as a connection of other ends than synfin: it takes the bytes behind an IPv6 extension "
        "header, or an outer header, for the TCP header.",
    ),
    Class(
        "not_shown",
        (*PACKET_COLUMNS, *_INSTANTS, "border"),
        lambda p: p.packet is None and p.step is not None,
        "tcptrace does not show the packet: it reads no tunnels, no MPLS, few link layers and IPv6 extension headers, and drops "
        "what a capture cut short before the end of the TCP options.",
    ),
    Class(
        "extension_header",
        ("payload_bytes",),
        _extension,
        "tcptrace takes IPv6 extension headers before the TCP header for payload behind it.",
    ),
    Class(
        "fragment",
        ("payload_bytes",),
        lambda p: p.step is not None and p.step.fragment,
        "The first of several IP fragments: tcptrace does not know how much payload it carries.",
    ),
    Class(
        "jumbogram",
        ("payload_bytes",),
        lambda p: p.theirs == 0 and p.ours > 65535,
        "A jumbogram (RFC 2675): IPv6's own length field holds 0, and tcptrace goes by it.",
    ),
    Class(
        "beside_misread",
        MARKS,
        lambda p: any(one.packet and one.step and one.packet.length != one.step.segment.payload for one in p.points),
        "tcptrace takes a wrong length of payload from a packet of this end (extension headers, fragments), and judges others by it.",
    ),
    # --- Flags and marks --------------------------------------------------------------------------------------------------
    Class(
        "flags_overruled",
        _FLAGS,
        lambda p: (
            p.theirs > p.ours
            and p.step is not None
            and (p.step.segment.kind == "rst" or (p.column == "fin" and p.step.segment.kind in ("syn", "synack")))
        ),
        "A segment with contradicting flags: synfin judges RST, then SYN, then FIN (RFC 9293 section 3.10.7); tcptrace counts "
        "each bit.",
    ),
    Class(
        "byte_counter",
        BYTE_COUNTERS,
        lambda _: False,  # seen in the sum, see explain.py
        "tcptrace counts SYN, FIN and RST in 8 bits: 256 of them are none.",
    ),
    Class(
        "odd_syn",
        ("syns", "syn", "synack"),
        _HOLDS["odd_syn"],
        "A SYN or SYN-ACK that opens nothing here (RFC 9293 section 3.10.7): it counts in `odd_syns`; tcptrace counts every SYN "
        "bit.",
    ),
    Class(
        "server_syn",
        ("syns",),
        _HOLDS["server_syn"],
        "A SYN of the end that did not open first; `syn_count` counts the client's.",
    ),
    Class(
        "odd_segment",
        ("fin", *MARKS),
        _HOLDS["odd_segment"],
        "A segment outside its target's window or outside the attempt: its receiver would not take it. It counts in "
        "`odd_segments` and enters no other account; tcptrace looks at no window.",
    ),
    Class(
        "syn_resend",
        ("retransmitted", "out_of_order"),
        _HOLDS["syn_resend"],
        "A resent SYN or SYN-ACK, or one that shares its sequence number with what came before: `retransmitted_segments` is "
        "about payload; tcptrace marks every segment that takes sequence numbers.",
    ),
    Class(
        "fin_resend",
        ("retransmitted", "out_of_order"),
        _HOLDS["fin_resend"],
        "A FIN without payload that is resent or fills a hole: `retransmitted_segments` and `out_of_order_segments` are about "
        "payload; tcptrace marks every segment that takes sequence numbers.",
    ),
    Class(
        "rst_payload",
        ("retransmitted", "out_of_order"),
        lambda p: p.theirs > p.ours and p.kind == "rst",
        "A RST with payload or further flags: it enters no sequence account of synfin.",
    ),
    Class(
        "keep_alive",
        ("retransmitted",),
        lambda p: p.theirs > p.ours and p.raised("keep_alives"),
        "A keep-alive with one byte that is acknowledged already (RFC 9293 section 3.8.4). synfin counts it in `keep_alives`; "
        "to tcptrace it is a resend.",
    ),
    Class(
        "window_probe",
        ("retransmitted", "out_of_order"),
        lambda p: p.step is not None and p.step.segment.payload == 1 and p.ours > p.theirs,
        "A single byte towards a window of 0: tcptrace counts it as a probe and not as data; synfin counts its byte as sent, and "
        "as resent when it comes again.",
    ),
    Class(
        "after_window_probe",
        ("retransmitted", "out_of_order"),
        lambda p: any(
            one.number < p.number and one.step and one.step.segment.payload == 1 and one.packet and not one.packet.marks
            for one in p.points
        ),
        "A byte of this way was sent in a probe of a window of 0, which tcptrace does not enter among the bytes sent.",
    ),
    Class(
        "window_without_ack",
        ("zero_windows",),
        lambda p: p.ours > p.theirs and p.step is not None and not p.step.segment.flags & ACK,
        "A segment without ACK that announces a window of 0: tcptrace takes no window from it.",
    ),
    Class(
        "turned_round",
        ("retransmitted",),
        lambda p: p.theirs > p.ours and (p.below_nxt or 0) <= 0 and any(_same_numbers(one, p) for one in p.points),
        "The way has carried 4 GiB, and its sequence numbers come round again: tcptrace still remembers the bytes of the turn "
        "before and takes new ones for their repetition.",
    ),
    Class(
        "shown_by_empty",
        ("retransmitted", "out_of_order"),
        lambda p: (
            p.raised("retransmitted", "out_of_order")
            and (p.below_nxt or 0) > 0
            and not p.marked("retransmission", "out_of_order")
        ),
        "Payload below the sequence number of an earlier segment without payload, or of the capture's first: somebody has sent "
        "it before, or it is late. tcptrace knows only bytes that it has seen.",
    ),
    Class(
        "mark_of_both",
        ("retransmitted", "out_of_order"),
        lambda p: p.raised("retransmitted", "out_of_order") and p.marked("retransmission", "out_of_order"),
        "A segment below the highest number sent, some of whose bytes are new: tcptrace counts it as out of order, and as a "
        "resend where it has seen others of them; synfin as the one or the other, and knows also bytes that only an empty "
        "segment or an acknowledgement has shown.",
    ),
    Class(
        "beside_odd",
        MARKS,
        _any(lambda p: _skipped(p) or p.raised("odd_segments", "odd_syns") or p.kind == "rst"),
        "tcptrace judged the segment by others of the same end that synfin leaves out of its sequence account: skipped packets, "
        "segments outside the window, RSTs.",
    ),
    # --- Values -----------------------------------------------------------------------------------------------------------
    Class(
        "lone_timestamp",
        (*_INSTANTS, *ROUND_TRIPS),
        _HOLDS["lone_timestamp"],
        "A lone timestamp more than an hour ahead of its neighbours (`time_outliers`): synfin takes the clock's time instead.",
    ),
    Class(
        "divided_twice",
        (*_INSTANTS, *ROUND_TRIPS),
        _any(_divided),
        "A capture in nanoseconds: tcptrace divides the fraction of a second by a thousand that libpcap has already divided, and "
        "so shortens every time below a second to its thousandth.",
    ),
    Class(
        "beyond_the_clock",
        (*_INSTANTS, *ROUND_TRIPS),
        _any(lambda p: bool(p.step and not 0 < p.step.stamp < 2**31 * 10**9)),
        "A timestamp that 31 bits of seconds do not hold, or 0, which tcptrace takes for none.",
    ),
    Class(
        "file_order",
        _INSTANTS,
        lambda p: any(
            one.packet and other.packet and one.packet.time > other.packet.time for one, other in pairwise(p.points)
        ),
        "The packets are not in the order of time. tcptrace takes the first and last packet in the file; `first_seen` and "
        "`last_seen` are the smallest and largest timestamps.",
    ),
    Class(
        "scale_not_agreed",
        ("window_scale",),
        lambda p: p.difference.theirs == 0,
        "The end offered a window scale and its peer did not (or its SYN is not there), so none is used (RFC 7323 section 2.2): "
        "tcptrace shows 0, synfin what was offered.",
    ),
    Class(
        "cut_options",
        _OPTIONS,
        _HOLDS["cut_options"],
        "The capture cut the SYN inside the option: synfin reads whole options; tcptrace shows what is left of it.",
    ),
    Class(
        "odd_options",
        _OPTIONS,
        _HOLDS["odd_options"],
        "The SYN's options hold a wrong length or an option twice. synfin reads up to a length that cannot be, takes the last of "
        "a kind, and none of the wrong size; tcptrace reads on.",
    ),
    Class(
        "answered_copy",
        _OPTIONS,
        _HOLDS["answered_copy"],
        "An end sent several different SYNs or SYN-ACKs. synfin describes the one that was answered, tcptrace the last one.",
    ),
    Class(
        "several_syns",
        _OPTIONS,
        lambda p: sum(bool(one.packet and one.packet.flags & SYN) for one in p.points) > 1,
        "The end's SYNs do not carry the same options; tcptrace adds them up.",
    ),
    Class(
        "refused",
        ("rtt_syn",),
        lambda p: p.by_rule and p.mine.get("handshake") in ("refused", "aborted", "half_open", "unreachable"),
        "tcptrace takes the RST that refuses or aborts an attempt for an answer that tells the round trip; synfin counts only a segment "
        "of an end that opens.",
    ),
    Class(
        "not_timed",
        ("rtt_syn",),
        lambda p: (
            p.by_rule
            and p.difference.ours == "0.0"
            and "none" in (p.mine.get("rtt_server_quality"), p.mine.get("rtt_client_quality"))
        ),
        "tcptrace measures between any SYN and an acknowledgement of it; synfin says `none` where the capture began after the "
        "handshake or shows it in another order.",
    ),
    Class(
        "other_answer",
        ("rtt_syn",),
        lambda p: (
            p.by_rule
            and "0.0" not in (p.difference.ours, p.difference.theirs)
            and _any(lambda one: one.raised("odd_segments", "odd_syns") or bool(one.skip))(p)
        ),
        "tcptrace ends the round trip at an acknowledgement that synfin skips by name or does not take for an answer.",
    ),
    Class(
        "resent_or_joined",
        ("rtt_syn",),
        lambda p: p.by_rule and p.difference.theirs == "0.0",
        "tcptrace measures a SYN only where it was sent once, without data, and acknowledged alone; synfin takes the copy "
        "that was answered, also by a segment that acknowledges more, and says so in `rtt_*_quality`.",
    ),
    # --- Where a connection begins ----------------------------------------------------------------------------------------
    Class(
        "connection_by_syn",
        ("border",),
        lambda p: p.begins == (False, True) and p.packet is not None and bool(p.packet.flags & SYN),
        "tcptrace begins a connection with a SYN after a FIN or RST, whether that was valid or not; synfin where the old record "
        "is finished or the new SYN is proven.",
    ),
    Class(
        "long_silence",
        ("border",),
        lambda p: p.begins == (False, True) and (_silence(p) > 240 * 10**9 or _HOLDS["lone_timestamp"](p)),
        "More than 240 s from one packet to the next: tcptrace begins a connection; synfin goes on within `idle_timeout`, and "
        "takes a lone timestamp far ahead for an error.",
    ),
    Class(
        "before_proof",
        ("border",),
        _HOLDS["before_proof"],
        "A SYN that needs proof is held: what comes before the proof stays with the old record, and the new one begins with the "
        "SYN. tcptrace begins with the SYN.",
    ),
    Class(
        "each_way_alone",
        ("border",),
        lambda p: all(0 in [way["packets"] for way in life.ways] for life in p.difference.others),
        "tcptrace makes a connection of each way alone, and so of none a complete one.",
    ),
    Class(
        "without_syn",
        ("border",),
        lambda p: p.begins == (False, True) and not any(one.packet and one.packet.flags & SYN for one in p.points),
        "The capture holds no SYN of the connection. tcptrace begins such a connection again after a pause or a FIN; synfin goes "
        "on within `idle_timeout`.",
    ),
    Class(
        "record_ended",
        ("border",),
        lambda p: p.begins == (True, False) and p.ended in ("idle", "attempt_timeout", "fin", "rst", "reuse"),
        "The record before had ended: its deadline had passed, it was closed and its linger over, or a new SYN was proven. "
        "tcptrace knows no deadlines.",
    ),
    Class(
        "near_a_loss",
        ("rtt_samples", "rtt_min", "rtt_max"),
        lambda p: not p.by_rule and any(one.marked("retransmission", "out_of_order") for one in p.points),
        "Segments of this way came again or out of order. Around them tcptrace leaves out further segments, by rules that are "
        "not repeated here to the last one.",
    ),
    Class(
        "each_segment",
        ("rtt_samples", "rtt_min", "rtt_max"),
        lambda p: p.by_rule,
        "tcptrace measures every segment, SYN and FIN included, whose end is acknowledged exactly, unless it or one below it was "
        "sent again; synfin times one data segment at a time and takes the first acknowledgement at or past its end (RFC 6298 "
        "section 3). The value is that of tcptrace's rule over these packets.",
    ),
)
TCPTRACE_ARGUMENTS = {one.name: one.argument for one in TCPTRACE_CLASSES}
