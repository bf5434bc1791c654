"""The columns that say what other tools would say of the record's packets: Community ID, Zeek, Wireshark.

Zeek's rules are those of its TCP analyser (packet_analysis/protocol/tcp, analyzer/protocol/tcp) and of its script
base/protocols/conn, Wireshark's those of packet-tcp.c, both retold here. The packets are taken in input order.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Sequence

from synfin.settings import zeek_server_ports

from .end import MASK, diff
from .segment import ACK, FIN, RST, SYN, Segment

MASK64 = (1 << 64) - 1
FAR = 1 << 20  # a SYN or RST further away than this does not say how far its sender has come
UNACKED = 16384  # bytes without any acknowledgement after which Zeek holds no more
UNACKED_LATER = 10 << 20  # ... after some acknowledgement
MAX_PIECES = 16  # remembered out of order pieces of an end (Zeek has no limit)
LETTERS = 64


def other_columns(segments: Sequence[Segment]) -> dict:
    """The optional columns of a record with these packets, in input order."""
    first = segments[0]
    zeek = Zeek(first)
    for segment in segments:
        zeek.take(segment)
    return {
        "community_id": community_id(first), "zeek_conn_state": zeek.conn_state(), "zeek_history": zeek.history[:LETTERS],
        "wireshark_completeness": completeness(segments), "wireshark_initial_rtt_ns": initial_rtt(segments),
    }  # fmt: skip


# --- Community ID ------------------------------------------------------------------------------------------------------


def community_id(segment: Segment) -> str:
    """Community ID version 1 with seed 0: the smaller end first, TCP."""
    low, high = sorted([(segment.src, segment.sport), (segment.dst, segment.dport)])
    data = struct.pack("!H", 0) + low[0] + high[0] + struct.pack("!BBHH", 6, 0, low[1], high[1])
    return "1:" + base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


# --- Wireshark ---------------------------------------------------------------------------------------------------------


def completeness(segments: Sequence[Segment]) -> int:
    """Bits 1 SYN, 2 SYN-ACK, 4 ACK, 8 data, 16 FIN, 32 RST. A stream's first packet can set only 1, and 8 with it."""
    bits = 0
    if segments[0].flags & (SYN | ACK) == SYN:
        bits = 1 | (8 if segments[0].payload else 0)
    for segment in segments[1:]:
        kind = segment.flags & (SYN | ACK)
        if kind == SYN | ACK:
            bits |= 2
        elif kind == ACK:
            bits |= 8 if segment.payload else 4
        if segment.flags & (FIN | ACK) == FIN | ACK:
            bits |= 16
        if segment.flags & RST:
            bits |= 32
    return bits


def initial_rtt(segments: Sequence[Segment]) -> int | None:
    """From the last SYN to the first ACK after it, whoever sent it; Wireshark takes a time of 0 for unknown."""
    syn = rtt = 0
    for segment in segments:
        kind = segment.flags & (SYN | ACK)
        if kind == SYN:
            syn = segment.time
        elif kind == ACK and syn and not rtt:
            rtt = segment.time - syn
    return rtt if rtt > 0 else None


# --- Zeek --------------------------------------------------------------------------------------------------------------


class ZeekEnd:
    """What Zeek knows of one end. Relative sequence numbers count from its ISN and have 64 bits."""

    def __init__(self) -> None:
        self.state = self.before = "INACTIVE"
        self.start = self.last = self.ack = 0  # ISN, end of what it sent, what the other end acknowledged
        self.last_wraps = self.ack_wraps = 0
        self.fins = self.fin_end = 0
        self.letter_seq = {"S": 0, "F": 0, "R": 0}  # relative sequence number of the last such packet
        self.times = {"T": 0, "W": 0, "G": 0}
        self.delivered = self.trimmed = 1  # relative: in order up to here; acknowledged up to here
        self.pieces: list[tuple[int, int]] = []  # beyond `delivered`, ascending, apart
        self.given_up = False

    def set_state(self, state: str) -> None:
        if state != self.state:
            self.before, self.state = self.state, state

    def begin(self, start: int, last: int) -> None:
        self.start = self.ack = start & MASK
        self.last = last & MASK

    def relative(self, number: int, near: int, wraps: int) -> int:
        """A sequence number counted from the ISN, ``near`` being the latest one known; negative if it lies before."""
        delta = diff(number, near)
        if delta < 0 and wraps and number > near:
            wraps -= 1
        elif delta > 0 and number < near:
            wraps += 1
        return diff(number, self.start) if wraps == 0 else ((wraps << 32) + number - self.start) & MASK64

    def acked(self) -> int:
        return (self.ack_wraps << 32) + self.ack

    def nothing_acked(self) -> bool:
        return self.acked() in (self.start, self.start + 1)

    def size(self, peer: ZeekEnd) -> int:
        """Payload bytes by sequence numbers."""
        if (self.before, self.state, peer.state) == ("SYN_SENT", "RESET", "INACTIVE") and not self.nothing_acked():
            return 0
        return self.sent()

    def sent(self) -> int:
        size = (max((self.last_wraps << 32) + self.last, self.acked()) - self.start) & MASK64
        size -= size != 0
        return size - (self.fins > 0 and size != 0)

    def clean(self) -> bool:
        return self.state == "ESTABLISHED" or (self.state, self.before) == ("CLOSED", "ESTABLISHED")

    def deliver(self, upper: int) -> None:
        """In order up to ``upper``, and on through the pieces that join."""
        self.delivered = max(self.delivered, upper)
        while self.pieces and self.pieces[0][0] <= self.delivered:
            self.delivered = max(self.delivered, self.pieces.pop(0)[1])

    def data(self, seq: int, upper: int) -> None:
        """Payload that was captured whole."""
        if self.given_up:
            return
        if upper > self.trimmed:
            seq = max(seq, self.trimmed)
            if seq <= self.delivered:
                if upper > self.delivered:
                    self.deliver(upper)
                    if self.nothing_acked() and self.sent() > UNACKED:
                        self.trimmed = max(self.trimmed, self.delivered)
            else:
                self.add_piece(seq, upper)
        above = self.pieces[-1][1] - self.delivered if self.pieces else 0
        held = max(0, self.delivered - self.trimmed) + sum(high - low for low, high in self.pieces)
        if (self.nothing_acked() and above > UNACKED) or held > UNACKED_LATER:
            self.pieces, self.given_up = [], True

    def add_piece(self, seq: int, upper: int) -> None:
        apart = [piece for piece in self.pieces if piece[1] < seq or piece[0] > upper]
        joined = [piece for piece in self.pieces if not (piece[1] < seq or piece[0] > upper)]
        low = min([seq, *(piece[0] for piece in joined)])
        high = max([upper, *(piece[1] for piece in joined)])
        self.pieces = sorted([*apart, (low, high)])
        if len(self.pieces) > MAX_PIECES:  # the lowest two become one
            self.pieces[:2] = [(self.pieces[0][0], self.pieces[1][1])]


class Zeek:
    """One connection as Zeek's TCP analyser sees it."""

    def __init__(self, first: Segment):
        self.history = ""
        self.orig, self.resp = ZeekEnd(), ZeekEnd()
        self.orig_address, self.resp_address = (first.src, first.sport), (first.dst, first.dport)
        self.once: set[str] = set()  # letters that stand once for each role
        self.partial = False
        self.seen_from: set[str] = set()  # roles
        ports = zeek_server_ports()
        if first.flags & (SYN | ACK) != SYN and first.sport in ports:
            both = first.dport in ports
            if not both or (not first.flags & SYN and first.sport < first.dport):
                self.orig_address, self.resp_address = self.resp_address, self.orig_address
                self.history = "^"

    def role(self, end: ZeekEnd) -> str:
        return "orig" if end is self.orig else "resp"

    def add(self, end: ZeekEnd, letter: str) -> None:
        self.history += letter if end is self.orig else letter.lower()

    def add_once(self, end: ZeekEnd, letter: str, kind: str) -> bool:
        """Add a letter if its kind has none of this role; whether it had."""
        mark = f"{self.role(end)} {kind}"
        if mark in self.once:
            return True
        self.once.add(mark)
        self.add(end, letter)
        return False

    def add_scaled(self, end: ZeekEnd, letter: str) -> None:
        """The 1st, 10th, 100th ... time."""
        end.times[letter] += 1
        if re.fullmatch("10*", str(end.times[letter])) and end.times[letter] <= 10**9:
            self.add(end, letter)

    # --- One packet ----------------------------------------------------------------------------------------------------

    def take(self, segment: Segment) -> None:
        from_orig = (segment.src, segment.sport) == self.orig_address
        end, peer = (self.orig, self.resp) if from_orig else (self.resp, self.orig)
        syn, fin, rst, ack = (bool(segment.flags & bit) for bit in (SYN, FIN, RST, ACK))
        self.note_partial(from_orig, syn, ack)
        length = syn + fin + (0 if rst else segment.payload)
        upper = (segment.seq + length) & MASK
        self.note_start(end, segment.seq, upper, syn)
        seq = end.relative(segment.seq, end.last, end.last_wraps)
        self.letters(end, segment, seq)
        if segment.window == 0 and not rst and peer.state != "CLOSED" and end.state != "RESET":
            self.add_scaled(end, "W")
        if fin:
            end.fins += 1
            end.fin_end = (seq + length) & MASK64
        acked = self.acknowledge(peer, segment.ack, rst) if ack else 0
        self.advance(end, upper, segment)
        self.move(end, peer, segment)
        if ack:
            self.ack_received(peer, end, acked)
        self.seen_from.add(self.role(end))
        if segment.payload and segment.whole and not rst and seq >= 0:
            data = (seq + syn) & MASK64
            end.data(data, (data + segment.payload) & MASK64)

    def note_partial(self, from_orig: bool, syn: bool, ack: bool) -> None:
        if from_orig and "orig" not in self.seen_from:
            self.partial = not syn or ack
        elif not from_orig and "resp" not in self.seen_from and not self.partial:
            self.partial = not syn

    def note_start(self, end: ZeekEnd, seq: int, upper: int, syn: bool) -> None:
        """Where the end's sequence numbers begin."""
        if end.state == "INACTIVE":
            end.begin(seq if syn else seq - 1, upper if syn else seq)
        elif syn and (
            (end.state in ("SYN_SENT", "SYN_ACK_SENT") and seq != end.start)
            or end.state in ("ESTABLISHED", "PARTIAL")
            or (end.state == "RESET" and end.before == "INACTIVE")
        ):
            end.begin(seq, upper)

    def letters(self, end: ZeekEnd, segment: Segment, seq: int) -> None:
        flags = [bit for bit in (SYN, FIN, RST) if segment.flags & bit]
        if len(flags) > 1:
            letter = "I" if FIN in flags and RST in flags else "Q"
            self.add_once(end, letter, letter)
        elif flags:
            kind = {SYN: "S", FIN: "F", RST: "R"}[flags[0]]
            letter = "H" if kind == "S" and segment.flags & ACK else kind
            at = seq + segment.payload if kind == "F" else seq
            if self.add_once(end, letter, kind) and at != end.letter_seq[kind]:
                self.add(end, letter)
            end.letter_seq[kind] = at
        elif segment.payload:
            self.add_once(end, "D", "D")
        elif segment.flags & ACK:
            self.add_once(end, "A", "A")

    def acknowledge(self, peer: ZeekEnd, ack: int, rst: bool) -> int:
        """Note an acknowledgement of the peer's bytes; relative, 0 where it lies before them."""
        if peer.state == "INACTIVE":
            peer.begin(ack - 1, ack - 1)
            return 1
        relative = peer.relative(ack, peer.ack, peer.ack_wraps)
        if relative < 0:
            return 0
        further = diff(ack, peer.ack)
        if not rst and further > 0 and not (ack == 0 and further > FAR):
            peer.ack_wraps += ack < peer.ack
            peer.ack = ack
        return relative

    def advance(self, end: ZeekEnd, upper: int, segment: Segment) -> None:
        """How far the end has come; payload that does not move it counts as resent."""
        delta = diff(upper, end.last)
        if segment.flags & (SYN | RST) and abs(delta) > FAR:
            return
        only_syn = bool(segment.flags & FIN) and end.last == (end.start + 1) & MASK
        if not only_syn and end.state == "RESET":
            return
        if only_syn or delta > 0:
            end.last_wraps += upper < end.last
            end.last = upper
        elif segment.payload:
            self.add_scaled(end, "T")

    # --- States --------------------------------------------------------------------------------------------------------

    def move(self, end: ZeekEnd, peer: ZeekEnd, segment: Segment) -> None:
        syn, fin, rst, ack = (bool(segment.flags & bit) for bit in (SYN, FIN, RST, ACK))
        if end.state == "INACTIVE":
            self.move_inactive(end, peer, segment)
        elif end.state in ("SYN_SENT", "SYN_ACK_SENT"):
            if fin:
                end.set_state("CLOSED")
            if rst:
                end.set_state("RESET")
        elif end.state in ("ESTABLISHED", "PARTIAL"):
            if syn and not ack and end.state == "PARTIAL" and peer.state == "INACTIVE":
                end.set_state("SYN_SENT")
            if fin and not rst:
                end.set_state("CLOSED")
                if (peer.state, peer.before) == ("RESET", "CLOSED"):
                    peer.set_state("CLOSED")
            if rst:
                end.set_state("RESET")
        elif end.state == "CLOSED" and rst and peer.state != "CLOSED":
            end.set_state("RESET")

    def move_inactive(self, end: ZeekEnd, peer: ZeekEnd, segment: Segment) -> None:
        syn, fin, rst, ack = (bool(segment.flags & bit) for bit in (SYN, FIN, RST, ACK))
        if syn and end is self.orig:
            end.set_state("SYN_ACK_SENT" if ack else "SYN_SENT")
        elif syn:
            if not ack and peer.state == "SYN_ACK_SENT" and segment.seq == end.start:
                self.flip()
                peer.set_state("ESTABLISHED")
                self.seen_from.add("orig")
            if peer.state == "SYN_SENT":
                peer.set_state("ESTABLISHED")
            end.set_state("ESTABLISHED")
        if fin:
            end.set_state("CLOSED")
        if rst:
            end.set_state("RESET")
        if end.state != "INACTIVE":
            return
        if end is self.resp and not segment.payload and self.orig.state == "SYN_SENT":
            return
        if ack and peer.state == "ESTABLISHED":
            end.set_state("ESTABLISHED")
            self.partial = False
            self.seen_from.add(self.role(end))
        else:
            end.set_state("PARTIAL")

    def flip(self) -> None:
        """Originator and responder change places."""
        self.orig, self.resp = self.resp, self.orig
        self.orig_address, self.resp_address = self.resp_address, self.orig_address
        self.seen_from = {"resp" if role == "orig" else "orig" for role in self.seen_from}
        self.partial = False
        self.history += "^"

    # --- Gaps ----------------------------------------------------------------------------------------------------------

    def ack_received(self, end: ZeekEnd, peer: ZeekEnd, upto: int) -> None:
        """The peer acknowledged ``end`` up to here: what was not seen until then is a gap."""
        if end.fins and upto >= end.fin_end:
            upto = (end.fin_end - 1) & MASK64
        if upto <= end.trimmed:
            return
        if upto > end.delivered and not (upto <= 2 and self.partial):
            while not end.given_up and end.pieces and end.pieces[0][0] < upto:
                self.gap(end, peer)
                end.deliver(end.pieces[0][0])
            if upto > end.delivered:
                if not end.given_up:
                    self.gap(end, peer)
                end.deliver(upto)
        end.trimmed = upto

    def gap(self, end: ZeekEnd, peer: ZeekEnd) -> None:
        if end.clean() and peer.clean():
            self.add_scaled(end, "G")

    # --- The verdict ---------------------------------------------------------------------------------------------------

    def conn_state(self) -> str:
        """``conn_state`` of the script; the first rule that holds counts."""
        orig, resp = self.orig.state, self.resp.state
        orig_silent, resp_silent = (state in ("INACTIVE", "PARTIAL") for state in (orig, resp))
        if resp == "RESET":
            empty = not self.orig.size(self.resp) and not self.resp.size(self.orig)
            if orig in ("SYN_SENT", "SYN_ACK_SENT") or (orig == "RESET" and empty):
                return "REJ"
            return "RSTRH" if orig_silent else "RSTR"
        if orig == "RESET":
            if not resp_silent:
                return "RSTO"
            return "RSTOS0" if re.fullmatch(r"\^?S[^HAFGIQ]*R.*", self.history) else "OTH"
        if orig == resp == "CLOSED":
            return "SF"
        if orig == "CLOSED":
            return "SH" if resp_silent else "S2"
        if resp == "CLOSED":
            return "SHR" if orig_silent else "S3"
        if (orig, resp) == ("SYN_SENT", "INACTIVE"):
            return "S0"
        return "S1" if orig == resp == "ESTABLISHED" else "OTH"
