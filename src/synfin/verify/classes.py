"""The reasons for which another tool and synfin differ: each a rule over the packets, with the argument for it.

A class holds for a packet (or a value) or it does not; which capture it comes from plays no part. The first class that
holds gives the name. What none holds for is unexplained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from synfin.schema import ENUMS
from synfin.verify.points import (
    FIN,
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

#: tshark's names of the layers that synfin decodes.
DECODED = {
    *(
        "eth",
        "ethertype",
        "llc",
        "vlan",
        "ieee8021ad",
        "sll",
        "null",
        "raw",
        "ppp",
        "chdlc",
        "pppoes",
        "mpls",
        "pwethcw",
        "cfp",
    ),
    *(
        "ip",
        "ipv6",
        "ah",
        "ipv6.hopopts",
        "ipv6.routing",
        "ipv6.dstopts",
        "ipv6.fraghdr",
        "ipv6.shim6",
        "ipv6.mobility",
    ),
}
if "tunnel" in ENUMS:
    DECODED |= {"gre", "erspan", "udp", "vxlan", "geneve", "gtp", "wlan", "radiotap", "wlan_radio", "ppi"}


#: Columns that timestamps give.
INSTANTS = (
    "first_seen", "last_seen", "syn_time", "synack_time", "fin_time", "rst_time", "rtt_handshake", "wireshark_initial_rtt",
)  # fmt: skip


class Class(NamedTuple):
    """A named reason."""

    name: str
    columns: tuple[str, ...]
    holds: Callable[[Point], bool]
    argument: str


def undecoded(layers: str) -> set[str]:
    """Of a packet's layers those that synfin does not take apart."""
    names = layers.split(":")
    nested = {"ip in ip"} if "tunnel" not in ENUMS and sum(name in ("ip", "ipv6") for name in names) > 1 else set()
    return set(names) - DECODED | nested


def _wrapped(theirs: int, ours: int) -> bool:
    """Do two instants differ by 32-bit overflow? A negative fraction is printed with its sign before the seconds."""
    if ours == theirs:
        return False
    fraction = -theirs % 1_000_000_000
    return any((ours - value) % 2**32 == 0 for value in (theirs, -theirs - 2 * fraction))


def _skipped(name: str) -> Callable[[Point], bool]:
    return lambda point: point.skip == name


CLASSES: tuple[Class, ...] = (
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
    # --- Marks, of which each tool has its own definition -----------------------------------------------------------------
    Class(
        "syn_resend",
        ("retransmitted", "out_of_order"),
        lambda p: p.theirs > p.ours and p.kind in ("syn", "synack"),
        "A resent SYN or SYN-ACK. It counts in `syn_count` or `synack_count`; `retransmitted_segments` is about payload. "
        "tshark marks every segment that takes sequence numbers.",
    ),
    Class(
        "fin_resend",
        ("retransmitted", "out_of_order"),
        lambda p: (
            p.theirs > p.ours
            and p.kind == "plain"
            and p.step is not None
            and p.step.segment.fin
            and not p.step.segment.payload
        ),
        "A resent FIN without payload. It counts in `client_fin_count` or `server_fin_count`, not in "
        "`retransmitted_segments`; tshark marks every segment that takes sequence numbers.",
    ),
    Class(
        "rst_payload",
        ("retransmitted", "out_of_order"),
        lambda p: p.theirs > p.ours and p.kind == "rst",
        "A RST with payload (RFC 9293 section 3.5.3 allows a reason as text). It enters no sequence account of synfin; tshark "
        "takes its payload for data and a second such RST for a resend.",
    ),
    Class(
        "hole_or_time",
        ("retransmitted", "out_of_order"),
        lambda p: p.raised("retransmitted", "out_of_order") and p.marked("retransmission", "out_of_order"),
        "A segment below the highest sequence number sent. synfin goes by bytes: `out_of_order` fills a hole that the tap has "
        "seen open, `retransmitted` repeats bytes that the tap has seen. tshark keeps no holes and goes by time: out of order "
        "within 3 ms or an initial round trip of the segment before, else a retransmission.",
    ),
    Class(
        "acknowledged_before",
        ("retransmitted",),
        lambda p: p.theirs > p.ours and p.marked("spurious_retransmission") and (p.below_nxt or 0) <= 0,
        "The acknowledgement passed the tap before the segment. Its bytes are seen for the first time, so synfin counts no "
        "resend; tshark calls a segment below the peer's acknowledgement a spurious retransmission.",
    ),
    Class(
        "probe_of_one_byte",
        ("retransmitted", "keep_alives"),
        lambda p: (
            p.raised("retransmitted")
            and p.below_nxt == 1
            and p.step is not None
            and p.step.segment.payload == 1
            and p.marked("keep_alive", "zero_window_probe")
        ),
        "One byte just below the highest sequence number, and not yet acknowledged: it carries data that the peer lacks, so "
        "synfin counts a resend. A keep-alive repeats a byte that is acknowledged (RFC 9293 section 3.8.4). tshark marks a "
        "keep-alive or a zero window probe without looking at acknowledgements.",
    ),
    Class(
        "after_window_probe",
        ("retransmitted", "keep_alives"),
        lambda p: (
            p.below_nxt == 1
            and any(point.number < p.number and point.marked("zero_window_probe") for point in p.points)
        ),
        "The byte before was sent in a zero window probe. tshark does not raise its next sequence number by a probe's byte, "
        "so what follows looks new to it; synfin counts the byte as sent.",
    ),
    Class(
        "nothing_outstanding",
        ("duplicate_acks",),
        lambda p: p.theirs > p.ours and not p.outstanding,
        "The ACK repeats the one before, but no data is outstanding towards its sender: by RFC 5681 section 2 (a) it is no "
        "duplicate ACK (it answers a keep-alive or a resend). tshark does not ask.",
    ),
    Class(
        "not_highest_ack",
        ("duplicate_acks",),
        lambda p: p.theirs > p.ours and p.step is not None and p.step.segment.ack != p.step.before.get("ack"),
        "The ACK is not its sender's highest: by RFC 5681 section 2 (d) it is no duplicate ACK. tshark compares with the "
        "last one.",
    ),
    Class(
        "zero_window_ack",
        ("duplicate_acks",),
        lambda p: p.ours > p.theirs and p.raised("zero_windows"),
        "A duplicate ACK by RFC 5681 section 2 that announces a window of 0; tshark marks none of those.",
    ),
    Class(
        "ack_below_nxt",
        ("duplicate_acks",),
        lambda p: p.ours > p.theirs and p.below_nxt != 0,
        "A duplicate ACK by RFC 5681 section 2 whose own sequence number is not its sender's highest (an ACK that another "
        "segment has overtaken, or that shows a lost one). tshark marks only those at its next sequence number.",
    ),
    Class(
        "keep_alive_ack",
        ("duplicate_acks",),
        lambda p: p.ours > p.theirs and p.marked("keep_alive_ack", "zero_window_probe_ack"),
        "A duplicate ACK by RFC 5681 section 2 whose peer has sent a keep-alive or a window probe: tshark takes it for the answer "
        "to that.",
    ),
    Class(
        "not_last_ack",
        ("duplicate_acks",),
        lambda p: p.ours > p.theirs and p.step is not None and p.last_ack != p.step.segment.ack,
        "A duplicate ACK by RFC 5681 section 2, which repeats its sender's highest; the segment before it carries another number "
        "(a late one, or a RST). tshark compares with the last one.",
    ),
    Class(
        "unmeasured",
        MARKS,
        lambda p: p.ours > p.theirs and p.packet is not None and (p.packet.length is None or p.cut),
        "tshark judges no segment whose payload it does not know (the first of several fragments, lengths beyond the frame) or "
        "whose options the capture has cut.",
    ),
    Class(
        "beside_unmeasured",
        MARKS,
        lambda p: (
            p.ours > p.theirs
            and p.below(
                lambda one: (
                    one.packet is not None
                    and one.step is not None
                    and (one.packet.length or 0) < one.step.segment.payload
                )
            )
        ),
        "The segment begins below the end of one whose payload tshark does not know, or not all of, so that it looks new to tshark.",
    ),
    Class(
        "beside_syn_data",
        ("retransmitted", "out_of_order"),
        lambda p: (
            p.ours > p.theirs and p.below(lambda one: one.kind in ("syn", "synack") and one.step.segment.payload > 0)
        ),
        "The segment begins below the end of a SYN's data, which the peer has not acknowledged: tshark takes them back with the "
        "SYN-ACK; to synfin they were sent.",
    ),
    Class(
        "partly_new",
        ("retransmitted", "out_of_order"),
        lambda p: p.theirs > p.ours and p.step is not None and 0 < (p.below_nxt or 0) < p.step.segment.payload,
        "The segment begins below the highest sequence number and ends above it; none of its bytes was seen before. tshark marks "
        "it by where it begins.",
    ),
    Class(
        "beside_odd",
        MARKS,
        lambda p: p.theirs > p.ours and p.below(lambda one: one.raised("odd_segments", "odd_syns")),
        "The segment begins below the end of an earlier one that synfin leaves out of its sequence account (outside the window, "
        "a SYN that opens nothing); tshark looks at no window.",
    ),
    Class(
        "beside_skipped",
        MARKS,
        lambda p: any(point.packet and not point.step and point.skip for point in p.points),
        "tshark judged the segment by others of the same ends that synfin skips by name (a layer that is not decoded, a "
        "header that is cut or contradicts itself).",
    ),
    Class(
        "beside_overruled",
        MARKS,
        lambda p: any(
            point.number < p.number
            and point.kind == "rst"
            and point.packet is not None
            and point.packet.flags & (SYN | FIN)
            for point in p.points
        ),
        "tshark judged the segment by the sequence number of an earlier SYN or FIN bit on a RST; synfin lets a RST enter no "
        "sequence account.",
    ),
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
ARGUMENTS = {one.name: one.argument for one in (*CLASSES, FILE_ORDER, LATER_COPY)}
