"""One record's life: SPEC sections 3.2 and 3.3, where it begins and ends, which end is the client, when it times out.

What each segment changes stands in connection.py. Nothing here knows of tables, files or intervals.
"""

from __future__ import annotations

from collections import Counter

from synfin.settings import Settings

from .end import MASK, End, diff
from .icmp import Quote
from .segment import Segment

TIMEOUTS = {
    "unanswered": "attempt_timeout", "half_open": "half_open_timeout", "idle": "idle_timeout",
    "one_sided": "one_sided_timeout", "closing": "closing_timeout", "closed": "time_wait", "reset": "reset_linger",
}  # fmt: skip
#: Which record the cap takes first (SPEC section 8); among equals, the one whose last packet came first.
EVICTION = {"unanswered": 0, "one_sided": 0, "half_open": 1, "closed": 2, "reset": 2, "idle": 3, "closing": 3}


class Record:
    """The facts of a record and the questions that they answer. ``client`` and ``server`` are its ends."""

    def __init__(self, first: Segment, settings: Settings):
        self.settings = settings
        self.first = first
        self.seen: list[Segment] = []  # every packet of the record
        self.client, self.server = End(first.src, first.sport), End(first.dst, first.dport)
        self.direction = "first_packet"
        self.events: list[tuple[str, int]] = []
        self.outcomes: set[str] = set()

        self.attempt = False  # before completion
        self.failed = False  # an accepted RST in the attempt, not opened again since
        self.answered = False  # a SYN-ACK in the attempt as it stands
        self.not_seen = self.complete = False
        self.simultaneous = self.split = False
        self.server_acked = False  # an ACK of exactly the client's SYN that is no SYN-ACK
        self.server_synack_ack: int | None = None
        self.handshake_done: int | None = None
        self.syns: list[Segment] = []  # the client's
        self.synacks: list[tuple[End, Segment]] = []  # acceptable ones
        self.odd_syns = self.odd_segments = self.rst_rejected = 0
        self.icmp_errors = 0
        self.icmp: Quote | None = None  # the first that said that the client's SYN did not arrive
        self.unreachable = False  # so it stands now
        self.held: list[Segment] = []  # the latest held SYN and its resends

        self.finished: str | None = None  # "fin" or "rst"
        self.finished_time: int | None = None
        self.shape: str | None = None  # of the close, once it is decided
        self.first_fin: End | None = None
        self.fin_rtt: int | None = None
        self.payload_after_fin = 0
        self.after_close = 0
        self.rst: tuple[End, Segment] | None = None
        self.time_wait: list[End] = []
        self.time_wait_start: int | None = None
        self.time_wait_end: str | None = None

        self.restarted = self.last_effective = 0
        self.last_order = 0  # place in the input of its last packet
        self.end_reason: str | None = None
        self.begin(first)

    # --- Begin and end ---------------------------------------------------------------------------------------------

    def begin(self, first: Segment) -> None:
        """What the first packet says of the states, before its own events."""
        sender, peer = self.client, self.server
        if first.kind == "syn":
            self.attempt, self.direction = True, "syn"
            peer.state, peer.passive = "LISTEN", True
        elif first.kind == "synack":
            self.attempt, self.direction = True, "synack"
            self.client, self.server = peer, sender
            sender.state, sender.passive, peer.state = "SYN-RECEIVED", True, "SYN-SENT"
            peer.isn = (first.ack - 1) & MASK
        else:
            self.not_seen = True
            sender.state = peer.state = "CLOSED" if first.kind == "rst" else "ESTABLISHED"
            self.guess_direction()

    def guess_direction(self) -> None:
        sender, peer = self.client, self.server
        ports = self.settings.server_ports
        if (sender.port in ports) != (peer.port in ports):
            self.direction, turn = "server_port", sender.port in ports
        elif (sender.port >= 32768) != (peer.port >= 32768):
            self.direction, turn = "high_port", peer.port >= 32768
        else:
            turn = False
        if turn:
            self.client, self.server = peer, sender

    def correct_direction(self, client: End, rule: str) -> None:
        """A SYN or SYN-ACK overrules a guess, once."""
        if self.direction not in {"syn", "synack"}:
            self.direction = rule
            self.client, self.server = client, self.other(client)

    def other(self, end: End) -> End:
        return self.server if end is self.client else self.client

    def ends(self, segment: Segment | Quote) -> tuple[End, End]:
        """Sender and peer of a segment."""
        sender = self.client if (segment.src, segment.sport) == (self.client.address, self.client.port) else self.server
        return sender, self.other(sender)

    def successor(self, segment: Segment) -> list[Segment] | None:
        """None if the segment belongs to this record; else the held SYNs that begin the new record with it."""
        sender, peer = self.ends(segment)
        held = self.held[0] if self.held else None
        holder = self.ends(held)[0] if held else None
        answers = segment.kind in {"rst", "synack"} and segment.has_ack and holder is peer
        if answers and segment.ack in {(held.seq + 1) & MASK, (held.seq + 1 + held.payload) & MASK}:
            return self.held
        if segment.kind in {"plain", "synack"} and holder is sender and segment.seq == (held.seq + 1) & MASK:
            return self.held
        if segment.kind == "syn":
            new = self.judge_syn(sender, peer, segment.seq) == "new"
            if (new or self.finished) and holder is sender and held.seq == segment.seq:
                return self.held
            if new:
                return []
        new = segment.seq != sender.isn and not self.acks_syn(segment.ack, peer, peer.isn)
        if segment.kind == "synack" and self.finished and new and not self.synack_belongs(sender, peer, segment):
            return []
        return None

    def judge_syn(self, sender: End, peer: End, isn: int) -> str:
        """What a SYN is to this record: ``new``, ``held``, ``resend``, ``late``, ``opens`` or ``odd``."""
        known = sender.isn_captured and sender.isn == isn
        after = (isn + 1) & MASK
        if sender.isn is not None:  # the peer's SYN-ACK says it better than what went before
            late = isn == sender.isn
        else:
            late = after == sender.first_seq or (after == peer.first_ack and not peer.isn_captured)
        late &= self.first.kind != "syn" and not sender.isn_captured
        if self.finished:
            return "late" if late else "odd" if known else "new"
        if not self.attempt:
            return "resend" if known else "late" if late else "held"
        if known:
            return "resend"
        if sender is self.client:
            return "late" if late else "new"
        if sender.sent_syn or self.failed:
            return "new"
        return "held" if self.answered else "opens"

    def acks_syn(self, ack: int, end: End, isn: int | None) -> bool:
        """Is ``ack`` exactly this ISN of an end + 1, or for the client that plus its SYN's payload?"""
        payload = end.syn_payload if end is self.client else 0
        return isn is not None and ack in {(isn + 1) & MASK, (isn + 1 + payload) & MASK}

    def is_resent_syn(self, segment: Segment) -> bool:
        """Does this SYN repeat its sender's, or the held one, while the record is not finished?"""
        sender, peer = self.ends(segment)
        if segment.kind != "syn":
            return False
        held = self.held and (self.ends(self.held[0])[0], self.held[0].seq) == (sender, segment.seq)
        if self.judge_syn(sender, peer, segment.seq) == "late" and not (held and self.finished):
            return False
        known = sender.isn_captured and sender.isn == segment.seq
        return bool(held or (known and not self.finished))

    def synack_belongs(self, sender: End, peer: End, segment: Segment) -> bool:
        """Acceptable: it acknowledges the peer's SYN; or it was out of order in a record begun in the middle."""
        inferred = sender.isn is not None and not sender.isn_captured
        if inferred and sender.isn != segment.seq:
            return False  # the peer has acknowledged another one
        if sender.sent_syn and sender.isn != segment.seq:
            return False  # its own SYN had another ISN
        if peer.isn is not None:
            return self.acks_syn(segment.ack, peer, peer.isn)
        return not sender.isn_captured and sender.first_seq == (segment.seq + 1) & MASK

    def deadline(self) -> int:
        return self.restarted + self.timeout()

    def timeout(self) -> int:
        return getattr(self.settings, TIMEOUTS[self.phase()])

    def phase(self) -> str:
        """The row of SPEC's table of deadlines that holds now."""
        if self.finished:
            return "closed" if self.finished == "fin" else "reset"
        if self.attempt:
            return "reset" if self.failed else "half_open" if self.answered else "unanswered"
        if self.client.fin_seq is not None and self.server.fin_seq is not None:
            return "closing"
        return "one_sided" if self.not_seen and not (self.client.seen and self.server.seen) else "idle"

    def restarts(self, segment: Segment, was: str, rejected: bool) -> bool:
        """Does this segment restart the deadline? ``was`` is the phase before it."""
        phase = self.phase()
        if phase == "closed":
            sender, _ = self.ends(segment)
            return was != phase or (segment.fin and (segment.seq + segment.payload) & MASK == sender.fin_seq)
        if phase == "reset":
            return segment.kind == "rst"
        if phase == "unanswered":
            return segment.kind == "syn"
        if phase == "half_open":
            return segment.kind in {"syn", "synack"}
        return phase != "idle" or not rejected

    def in_flight(self, quoted: Quote) -> bool:
        """Can the quoted segment be one that its sender had in flight (RFC 5927 section 4.1)?"""
        sender, peer = self.ends(quoted)
        if sender.nxt is None:
            return True
        lowest = peer.ack_max if peer.ack_max is not None else sender.isn if sender.isn_captured else None
        return diff(quoted.seq, sender.nxt) <= 0 and (lowest is None or diff(quoted.seq, lowest) >= 0)

    def take_quote(self, quoted: Quote) -> None:
        """An ICMP error quotes a segment of this record."""
        self.icmp_errors += 1
        sender, _ = self.ends(quoted)
        syn = sender is self.client and sender.isn_captured and quoted.seq == sender.isn
        if self.phase() == "unanswered" and syn and quoted.unreachable:
            self.unreachable, self.icmp = True, self.icmp or quoted
            if self.handshake() == "unreachable":
                self.happened("unreachable")

    def end(self, reason: str) -> None:
        """The record ends: by ``deadline``, ``reuse``, ``evicted`` or ``end_of_input``."""
        for segment in self.held:
            self.count_packet(segment)
            self.odd_syns += 1
        self.held = []
        if self.finished:
            self.end_reason = self.finished
        elif self.failed:
            self.end_reason = "rst"
        elif reason == "deadline":
            self.end_reason = "attempt_timeout" if self.attempt else "idle"
        else:
            self.end_reason = reason
        if reason not in {"evicted", "end_of_input"}:
            if self.handshake() == "unanswered":
                self.happened("unanswered")
            elif self.handshake() == "half_open":
                self.happened("half_open_expired")
            if self.in_time_wait():
                self.time_wait_end = "reused" if reason == "reuse" else "expired"

    def handshake(self) -> str:
        if self.complete:
            return "complete"
        if self.not_seen:
            return "not_seen"
        for outcome in ("aborted", "refused"):
            if outcome in self.outcomes:
                return outcome
        if self.icmp and not self.synacks:
            return "unreachable"
        if self.end_reason in {"evicted", "end_of_input"}:
            return "pending"
        return "half_open" if self.synacks else "unanswered"

    def happened(self, outcome: str) -> None:
        """An outcome counts once per record, when it first holds."""
        if outcome not in self.outcomes:
            self.outcomes.add(outcome)
            self.events.append((outcome, 1))

    def in_time_wait(self) -> bool:
        return "TIME-WAIT" in {self.client.state, self.server.state}

    def one_fin_acked(self) -> bool:
        """Exactly one FIN, acknowledged."""
        fins = [end for end in (self.client, self.server) if end.fin_seq is not None]
        return len(fins) == 1 and fins[0].fin_acked

    def close(self) -> str | None:
        """The column ``close``."""
        if not (self.complete or self.not_seen):
            return None
        if self.shape:
            return self.shape
        if self.first_fin is None:
            return "open"
        return "half_closed" if self.one_fin_acked() else "fin_unanswered"

    def data_accepted(self) -> bool:
        """Did a SYN-ACK of the server cover all of the SYN's payload (RFC 7413)?"""
        payload = self.client.syn_payload
        whole = ((self.client.isn or 0) + 1 + payload) & MASK
        return payload > 0 and any(end is self.server and synack.ack == whole for end, synack in self.synacks)

    def gauges(self) -> Counter[str]:
        """What this record adds to each gauge of the interval table."""
        counted = [end.state.lower().replace("-", "_") for end in (self.client, self.server)]
        gauges = Counter(state for state in counted if state not in {"closed", "listen"})
        if self.finished or self.failed or (self.unreachable and self.phase() == "unanswered"):
            return gauges
        gauges["connections"] = 1
        if self.attempt:
            gauges["half_open" if self.answered else "opening"] = 1
        else:
            gauges["half_closed"] = int(self.one_fin_acked())
        gauges["midstream"] = int(self.not_seen)
        return gauges

    def count_copy(self, segment: Segment) -> None:
        """A capture duplicate: nothing else looks at it."""
        sender, _ = self.ends(segment)
        sender.packets += 1
        sender.ip_bytes += segment.ip_bytes
        sender.capture_duplicates += 1

    def count_packet(self, segment: Segment) -> None:
        """What every packet of the record counts in, whatever else it is."""
        sender, _ = self.ends(segment)
        self.seen.append(segment)
        sender.packets += 1
        sender.ip_bytes += segment.ip_bytes
        sender.payload_bytes += segment.payload
