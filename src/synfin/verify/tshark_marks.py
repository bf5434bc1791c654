"""The reasons for which tshark marks other segments than synfin counts: each tool has a definition of its own."""

from __future__ import annotations

from synfin.verify.classes import Class
from synfin.verify.points import FIN, MARKS, SYN

TSHARK_MARKS: tuple[Class, ...] = (
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
)
