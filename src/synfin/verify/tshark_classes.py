"""The reasons for which tshark and synfin differ: rules over packets, see classes.py."""

from __future__ import annotations

from collections.abc import Callable

from synfin.verify.classes import Class
from synfin.verify.layers import undecoded
from synfin.verify.points import (
    FLAGS,
    MARKS,
    PACKET_COLUMNS,
    SYN,
    WHOLE_COLUMNS,
    Point,
    initial_rtt,
    rtt_shown,
    well_formed,
)
from synfin.verify.tshark_marks import TSHARK_MARKS

#: Columns that timestamps give.
INSTANTS = (
    "first_seen", "last_seen", "syn_time", "synack_time", "fin_time", "rst_time", "rtt_handshake", "wireshark_initial_rtt",
)  # fmt: skip


def _wrapped(theirs: int, ours: int) -> bool:
    """Do two instants differ by 32-bit overflow? A negative fraction is printed with its sign before the seconds."""
    if ours == theirs:
        return False
    fraction = -theirs % 1_000_000_000
    return any((ours - value) % 2**32 == 0 for value in (theirs, -theirs - 2 * fraction))


def _skipped(name: str) -> Callable[[Point], bool]:
    return lambda point: point.skip == name


TSHARK_CLASSES: tuple[Class, ...] = (
    # --- Packets that only one of the two takes for TCP -----------------------------------------------------------------
    Class(
        "not_decoded",
        (*PACKET_COLUMNS, "border"),
        lambda p: (
            p.packet is not None
            and p.skip is not None
            and p.skip.startswith(("link_type_", "not_", "bad_ip_header"))
            and (p.skip.startswith("link_type_") or bool(undecoded(p.packet.layers)))
        ),
        "The segment lies in a layer that synfin does not take apart; the packet is counted in the skips, by name. The "
        "layers that tshark names tell which one.",
    ),
    Class(
        "header_cut",
        (*PACKET_COLUMNS, "border"),
        _skipped("header_cut"),
        "The capture cut the packet inside its headers. tshark shows what is left of a TCP header; synfin takes a segment "
        "only with its sequence numbers and flags, and counts the skip `header_cut`.",
    ),
    Class(
        "bad_tcp_header",
        (*PACKET_COLUMNS, "border"),
        _skipped("bad_tcp_header"),
        "A data offset below 5 words or beyond the IP payload: no receiver takes such a segment (RFC 9293 section 3.1). "
        "tshark shows it as a bogus header and counts it; synfin counts the skip `bad_tcp_header`.",
    ),
    Class(
        "bad_ip_header",
        (*PACKET_COLUMNS, "border"),
        _skipped("bad_ip_header"),
        "An IP header that contradicts itself or its link layer: no receiver takes such a packet. tshark goes on with what "
        "the version field says; synfin counts the skip `bad_ip_header`.",
    ),
    Class(
        "same_ends",
        (*PACKET_COLUMNS, "border"),
        _skipped("same_ends"),
        "Both ends are the same address and port, so that neither way can be told; synfin counts the skip `same_ends`.",
    ),
    # --- Lengths --------------------------------------------------------------------------------------------------------
    Class(
        "first_fragment",
        ("payload_bytes",),
        lambda p: p.step is not None and p.step.fragment,
        "The first of several IP fragments. tshark gives no payload length before the packet is put together; synfin counts "
        "what this fragment carries itself.",
    ),
    Class(
        "length_beyond_frame",
        ("payload_bytes",),
        lambda p: p.step is not None and p.step.segment.ip_bytes > p.step.room,
        "The IP header announces more bytes than the frame had on the wire by the capture's own account: somebody cut the "
        "file and its lengths. synfin takes lengths from the IP header, tshark the smaller of the two.",
    ),
    Class(
        "check_sequence",
        ("payload_bytes",),
        lambda p: p.step is not None and p.step.segment.ip_bytes == p.step.room and p.ours - p.theirs == 4,
        "The IP packet ends where the frame ends. tshark takes the last 4 bytes of an Ethernet frame inside another for a "
        "check sequence that is not there, and with them payload; synfin takes lengths from the IP header.",
    ),
    # --- Flags ----------------------------------------------------------------------------------------------------------
    Class(
        "flags_overruled",
        FLAGS,
        lambda p: (
            p.step is not None
            and p.theirs > p.ours
            and (p.step.segment.kind == "rst" or (p.column == "fin" and p.step.segment.kind in ("syn", "synack")))
        ),
        "A segment with contradicting flags. synfin judges RST, then SYN, then FIN, as RFC 9293 section 3.10.7 does, and "
        "counts the first that holds; tshark counts each bit.",
    ),
    Class(
        "odd_syn",
        ("syn", "synack"),
        lambda p: p.raised("odd_syns"),
        "A SYN that opens nothing in this connection (an old duplicate, or one that nothing proves), or a SYN-ACK that does "
        "not acknowledge the SYN: a receiver drops it or answers with a challenge (RFC 9293 section 3.10.7). It counts in "
        "`odd_syns`; tshark counts every SYN bit.",
    ),
    Class(
        "server_syn",
        ("syn",),
        lambda p: p.step is not None and p.step.segment.kind == "syn" and p.step.from_server(p.seen),
        "A SYN of the end that did not open first (a simultaneous or split open). `syn_count` counts the client's SYNs.",
    ),
    Class(
        "odd_segment",
        ("fin", *MARKS),
        lambda p: p.raised("odd_segments"),
        "A segment outside its target's window, or outside the attempt (an answer that does not acknowledge the SYN): its "
        "receiver would not take it. It counts in `odd_segments` and enters no other account; tshark looks at no window.",
    ),
    Class(
        "rejected_rst",
        ("rst", "rst_time"),
        lambda p: p.raised("rst_rejected"),
        "A RST that is not acceptable (RFC 9293 section 3.5.3, RFC 5961 section 3.2). It counts, but `rst_seen` is the first "
        "RST that ends the connection; tshark does not check RSTs.",
    ),
    *TSHARK_MARKS,
    # --- Values ---------------------------------------------------------------------------------------------------------
    Class(
        "lone_timestamp",
        INSTANTS,
        lambda p: any(one.step is not None and one.step.stamp != one.step.segment.time for one in p.points or (p,)),
        "A lone timestamp more than an hour ahead of its neighbours: synfin counts it in `time_outliers` and takes the "
        "clock's time instead; tshark takes it as it is.",
    ),
    Class(
        "fraction_overflow",
        INSTANTS,
        lambda p: any(
            one.packet and one.step and _wrapped(one.packet.time, one.step.segment.time) for one in p.points or (p,)
        ),
        "The timestamp's fraction holds more than a second. tshark turns microseconds into nanoseconds in 32 bits, which "
        "wrap around; the two differ by a multiple of 2^32 ns.",
    ),
    Class(
        "beyond_2116",
        INSTANTS,
        lambda p: any(one.step and one.step.segment.time in (0, 2**62 - 1) for one in p.points or (p,)),
        "A timestamp before 1970 or after 2116 (a wrong resolution or a corrupt one) is taken for the nearer of the two.",
    ),
    Class(
        "cut_options",
        ("mss", "window_scale", "sack_permitted", "timestamps"),
        lambda p: p.cut and not p.difference.ours,
        "The capture cut the SYN inside the option: synfin reads whole options; the other tool shows what is left of it.",
    ),
    Class(
        "odd_options",
        ("mss", "window_scale", "sack_permitted", "timestamps"),
        lambda p: p.step is not None and not p.cut and not well_formed(p.step.segment.options),
        "The SYN's options hold a wrong length or an option twice. synfin reads up to a length that cannot be, takes the last of "
        "a kind, and none of the wrong size; the other tool reads on.",
    ),
    Class(
        "answered_copy",
        ("isn", "mss", "window_scale", "sack_permitted", "timestamps"),
        lambda p: p.step is not None and p.described is not None and p.described.number != p.number,
        "An end sent several different SYNs or SYN-ACKs. synfin describes the copy that was answered, which is the one that "
        "both ends go by; tshark's figure is the first one's.",
    ),
    # --- Where a connection begins ----------------------------------------------------------------------------------------
    Class(
        "stream_by_syn",
        ("border",),
        lambda p: p.begins == (False, True) and p.packet is not None and bool(p.packet.flags & SYN),
        "tshark opens a new stream on every SYN or SYN-ACK whose number is not its sender's first one, and on any after a FIN "
        "or RST, whether that was valid or not. synfin begins a record when the old one is finished or the new SYN is proven; "
        "else it is a resend or counts in `odd_syns`.",
    ),
    Class(
        "stream_by_route",
        ("border",),
        lambda p: (
            p.begins == (False, True)
            and p.packet is not None
            and bool({"ipv6.routing", "ipv6.dstopts"} & set(p.packet.layers.split(":")))
        ),
        "A routing header or a home address option names a further address. tshark tells streams apart by it, also where the "
        "addresses of the IPv6 header are the same; synfin goes by the IPv6 header.",
    ),
    Class(
        "before_proof",
        ("border",),
        lambda p: p.begins == (False, False) and p.later_record,
        "A SYN that needs proof is held: what comes before the proof stays with the old record, and the new one begins with the "
        "SYN. tshark opens its stream with the SYN.",
    ),
    Class(
        "record_ended",
        ("border",),
        lambda p: p.begins == (True, False) and p.ended in ("idle", "attempt_timeout", "fin", "rst"),
        "The record before had ended: its deadline had passed, or it was closed and its linger over. tshark knows no time: "
        "a stream lasts until a SYN with another number.",
    ),
    Class(
        "reuse",
        ("border",),
        lambda p: p.begins == (True, False) and p.ended == "reuse",
        "A new SYN of a finished connection, or a proven one, begins a record; by tshark's rule its number is that of the "
        "stream's first SYN, and the stream has shown neither RST nor FIN.",
    ),
    # --- The handshake's round trip -----------------------------------------------------------------------------------------
    Class(
        "negative",
        ("wireshark_initial_rtt", "rtt_handshake"),
        lambda p: (
            p.difference.ours is None
            and (p.difference.theirs or 0) < 0
            and (p.difference.theirs,) == (initial_rtt(p.points) or ())[:1]
        ),
        "Time runs backwards: the handshake's last segment is older than its SYN. tshark gives a negative round trip, synfin none.",
    ),
    Class(
        "zero_is_unset",
        ("rtt_handshake",),
        lambda p: p.difference.ours == 0,
        "All packets of the handshake have the same timestamp. tshark uses 0 for `not set`: it shows nothing, or takes a later "
        "segment with ACK.",
    ),
    Class(
        "rtt_without_handshake",
        ("rtt_handshake",),
        lambda p: p.difference.ours is None and p.mine.get("handshake") != "complete",
        "The handshake was not completed. tshark's figure ends at the first segment with ACK of either end, a RST that "
        "refuses the connection included.",
    ),
    Class(
        "rtt_one_half",
        ("rtt_handshake",),
        lambda p: (
            p.difference.ours is None
            and (
                None in (p.mine.get("rtt_server_ns"), p.mine.get("rtt_client_ns"))
                or "ambiguous" in (p.mine.get("rtt_server_quality"), p.mine.get("rtt_client_quality"))
            )
        ),
        "The capture holds one half of the handshake only, or one half cannot be told. tshark takes the first segment with "
        "ACK of either end for its end, also one that answers nothing.",
    ),
    Class(
        "rtt_other_syn",
        ("rtt_handshake",),
        lambda p: p.mine.get("syn_count", 0) > 1 and p.difference.theirs is not None,
        "A resent SYN. tshark measures from the last one before the first ACK; synfin from the one that was answered.",
    ),
    Class(
        "rtt_other_ack",
        ("rtt_handshake",),
        lambda p: p.difference.theirs is not None and p.difference.ours is not None,
        "tshark's figure ends at the first segment with ACK and without SYN, from either end; synfin's where both SYNs are "
        "acknowledged.",
    ),
    # --- As tshark says it ------------------------------------------------------------------------------------------------
    Class(
        "beside_undecoded",
        WHOLE_COLUMNS,
        lambda p: any(point.packet and not point.step and point.skip for point in p.points),
        "The stream holds packets that synfin skips by name (a layer that is not decoded, a header that is cut or contradicts "
        "itself).",
    ),
    Class(
        "before_last_frame",
        ("wireshark_completeness",),
        lambda p: p.difference.ours == p.completed,
        "tshark on one pass prints for each frame what the frames before it set: what the stream's last frame adds is "
        "missing.",
    ),
    Class(
        "announced_stream",
        ("wireshark_completeness",),
        lambda p: p.difference.ours == p.completed | 1,
        "A control connection (FTP) announced the stream, so that it is not new to tshark with its SYN.",
    ),
    Class(
        "data_of_reuse",
        ("wireshark_completeness",),
        lambda p: (
            p.difference.ours == p.completed | 8
            and p.points[0].marked("reused_ports")
            and bool(p.points[0].packet.length)
        ),
        "The stream begins with a SYN that takes over the ports of an earlier one and carries data: tshark misses these data.",
    ),
    Class(
        "length_of_fragment",
        ("wireshark_completeness",),
        lambda p: (
            (p.difference.ours | 8) == (p.completed | 8)
            and any(
                one.step and one.step.segment.payload and one.packet and one.packet.length is None for one in p.points
            )
        ),
        "A segment carries payload whose length tshark does not know (a first fragment, lengths beyond the frame): its data are "
        "missing in tshark's completeness.",
    ),
    Class(
        "not_shown",
        ("wireshark_initial_rtt", "rtt_handshake"),
        lambda p: p.difference.theirs is None and initial_rtt(p.points) is not None and not rtt_shown(p.points),
        "tshark prints the initial round trip only beside other analysis of a later frame with a whole header, and this stream has none.",
    ),
    Class(
        "rtt_without_syn",
        ("rtt_handshake",),
        lambda p: p.difference.theirs is None and p.difference.ours is not None,
        "tshark measures only in a stream that it saw begin with a SYN.",
    ),
)

#: Reasons that are found without looking at a packet.
FILE_ORDER = Class(
    "file_order",
    ("first_seen", "last_seen", "border"),
    lambda _: False,
    "The packets are not in the order of time. The row of tshark was made from the first and last packet in the file; "
    "`first_seen` and `last_seen` are the smallest and largest timestamps.",
)
LATER_COPY = Class(
    "later_copy",
    ("mss", "window_scale", "sack_permitted", "timestamps"),
    lambda _: False,
    "The end's first SYN does not carry the option; the row of tshark was made from a later copy that does.",
)
TSHARK_ARGUMENTS = {one.name: one.argument for one in (*TSHARK_CLASSES, FILE_ORDER, LATER_COPY)}
