"""What each segment changes in its record: SPEC section 3.4 and the counts of section 4.

States move only by the table of synfin.states, raised here as events: the sender's first, then the standing facts about
both ends' peers. Read states.py and record.py first.
"""

from __future__ import annotations

from synfin import states
from synfin.schema import STATES

from .end import MASK, REMEMBERED, End, diff
from .record import Record
from .segment import Segment, parse_options

MOVES = states.matrix()


class Connection(Record):
    """A record that takes segments."""

    def receive(self, segment: Segment) -> None:
        """Take a segment that belongs to this record (``successor`` said None)."""
        sender, peer = self.ends(segment)
        was, over, rejected = self.phase(), self.finished or self.failed, self.rst_rejected
        holding = (
            segment.kind == "syn" and segment is not self.first and self.judge_syn(sender, peer, segment.seq) == "held"
        )
        if holding:
            self.hold(sender, segment)
        else:
            self.count_packet(segment)
            self.after_close += bool(over)
            getattr(self, f"take_{segment.kind}")(sender, peer, segment)
        sender.seen = True
        sender.sent_beyond |= segment.kind in {"rst", "plain"}
        self.check_closed(segment)
        self.last_effective = segment.effective
        if segment is self.first or self.restarts(segment, was, self.rst_rejected > rejected):
            self.restarted = segment.effective

    # --- States ----------------------------------------------------------------------------------------------------

    def move(self, end: End, event: str, segment: Segment) -> None:
        """Look the event up in the table and go where it says."""
        cell = MOVES[states.EVENTS.index(event) * len(STATES) + STATES.index(end.state)]
        if cell in (states.STAY, states.ODD):
            return
        end.state = STATES[cell]
        if end.state == "ESTABLISHED" and end.fin_seq is not None:  # it sent its FIN before
            end.state = "FIN-WAIT-1"
        if end.state == "TIME-WAIT":
            self.time_wait.append(end)
            if self.time_wait_start is None:
                self.time_wait_start = segment.time

    def standing_facts(self, segment: Segment) -> None:
        """The peer's highest acknowledgement may cover an end's SYN or FIN, whenever it passed."""
        for end in (self.client, self.server):
            if self.other(end).has_acked(end.isn):
                self.move(end, "RCV_ACK_OF_SYN", segment)
            if self.other(end).has_acked(end.fin_seq):
                self.move(end, "RCV_ACK_OF_FIN", segment)

    def completes(self, done: int | None) -> None:
        """The handshake is complete."""
        self.attempt, self.complete, self.handshake_done = False, True, done
        self.happened("completed")

    def complete_if_both_acked(self, segment: Segment) -> None:
        if self.attempt and not self.failed and self.client.answer_decided and self.server.answer_decided:
            self.completes(segment.time)
            self.enter_early_fins(segment)

    def enter_early_fins(self, segment: Segment) -> None:
        """An end that sent its FIN before the handshake was complete is not ESTABLISHED any more."""
        for end in (self.client, self.server):
            if end.fin_seq is not None:
                self.move(end, "SND_FIN", segment)

    def check_closed(self, segment: Segment) -> None:
        """Both FINs acknowledged: the connection is closed."""
        if not self.finished and not self.attempt and self.client.fin_acked and self.server.fin_acked:
            self.finished, self.finished_time = "fin", segment.time
            self.happened("closed_fin")

    # --- RST -------------------------------------------------------------------------------------------------------

    def take_rst(self, sender: End, peer: End, segment: Segment) -> None:
        sender.rst_count += 1
        if not self.rst_acceptable(sender, peer, segment):
            self.rst_rejected += 1
            return
        if self.rst is None:
            self.rst = sender, segment
        if self.in_time_wait():
            self.time_wait_end = "reset"
        self.move(sender, "SND_RST_PASSIVE" if sender.passive else "SND_RST", segment)
        self.move(peer, "RCV_RST_PASSIVE" if peer.passive else "RCV_RST", segment)
        if self.attempt:
            if not self.failed:
                self.happened("aborted" if sender is self.client or self.answered else "refused")
            self.failed = True
        elif not self.finished:
            self.finished, self.finished_time = "rst", segment.time
            self.shape = "rst_after_fin" if self.first_fin else "rst"
            self.happened("closed_rst")

    def rst_acceptable(self, sender: End, peer: End, segment: Segment) -> bool:
        """RFC 9293 section 3.5.3, as far as a tap can tell."""
        if not peer.seen:
            return True
        if peer.state == "LISTEN":
            return False
        if peer.state == "SYN-SENT":
            above = diff(segment.ack, peer.isn) if segment.has_ack and peer.isn is not None else 0
            return above > 0 and diff(segment.ack, peer.isn + 1 if peer.nxt is None else peer.nxt) <= 0
        if peer.ack_max is None:
            return peer.state != "SYN-RECEIVED"
        inside = 0 <= diff(segment.seq, peer.ack_max) < peer.last_window(sender)
        ahead = sender.nxt is None or diff(segment.seq, sender.nxt) >= 0
        return segment.seq == peer.ack_max or (inside and ahead)

    # --- SYN and SYN-ACK -------------------------------------------------------------------------------------------

    def hold(self, sender: End, segment: Segment) -> None:
        """Keep a SYN beside the record until it is proven; an earlier one with another ISN is now odd for good."""
        if self.held and (self.ends(self.held[0])[0] is not sender or self.held[0].seq != segment.seq):
            for earlier in self.held:
                self.count_packet(earlier)
                self.odd_syns += 1
            self.held = []
        self.held.append(segment)

    def take_syn(self, sender: End, peer: End, segment: Segment) -> None:
        verdict = "opens" if segment is self.first else self.judge_syn(sender, peer, segment.seq)
        if verdict == "odd":
            self.odd_syns += 1
            return
        self.unreachable = False
        if verdict == "opens" and segment is not self.first:
            self.split = self.server_acked
            self.simultaneous = not self.split
            sender.passive = False
        late = verdict == "late"
        if late:
            self.correct_direction(sender, "syn")
            self.leave_midstream()
        elif self.attempt and self.failed:
            self.failed = self.answered = False
            self.after_close = 0
            self.server_synack_ack = None
        if sender is self.client:
            self.syns.append(segment)
        sender.take_syn(segment)
        if self.attempt and not late:
            sender.take_window(segment, peer)
        if peer.has_acked(sender.isn):
            sender.answer_decided = True  # the answer came before the SYN
        if self.attempt and not late:
            self.move(sender, "SND_SYN", segment)

    def leave_midstream(self) -> None:
        """A late SYN or SYN-ACK shows that the connection did open; its RTTs cannot be told any more."""
        if self.not_seen:
            self.not_seen = False
            self.client.answer_decided = self.server.answer_decided = True
            self.completes(None)

    def take_synack(self, sender: End, peer: End, segment: Segment) -> None:
        if segment is not self.first and not self.synack_belongs(sender, peer, segment):
            self.odd_syns += 1
            return
        late = self.not_seen
        if late:
            peer.isn = (segment.ack - 1) & MASK if peer.isn is None else peer.isn
            self.correct_direction(peer, "synack")
            self.leave_midstream()
        self.synacks.append((sender, segment))
        if sender is self.server:
            self.server_synack_ack = segment.ack
        self.answered |= self.attempt
        first = not sender.isn_captured
        sender.take_syn(segment)
        if late:
            return
        if first or self.attempt:
            sender.take_window(segment, peer)
        self.answer(sender, peer, segment)
        sender.acknowledge(segment, peer)
        if peer.has_acked(sender.isn):
            sender.answer_decided = True  # the answer came before the SYN-ACK
        self.move(sender, "SND_SYNACK", segment)
        self.standing_facts(segment)
        self.complete_if_both_acked(segment)

    def answer(self, sender: End, peer: End, segment: Segment) -> None:
        """The sender's first acknowledgement of the peer's SYN: which copy it answers, and the round trip."""
        if peer.answer_decided or peer.isn is None:
            return
        remembered = peer.copies[-REMEMBERED:]
        exact = [copy for copy in remembered if self.acks_syn(segment.ack, peer, copy.isn)]
        if not exact and diff(segment.ack, peer.isn) <= 0:
            return
        peer.answer_decided = True
        if not remembered:
            return
        isn = (exact or remembered)[-1].isn
        copies = [copy for copy in remembered if copy.isn == isn]
        chosen, quality = (exact or copies)[-1], "clean"
        if len(copies) > 1:
            echo = parse_options(segment.options).timestamps
            named = [c for c in copies if echo and c.options.timestamps and c.options.timestamps[0] == echo[1]]
            chosen, quality = (named[0], "matched") if len(named) == 1 else (chosen, "ambiguous")
        taken = peer.syn_payload if peer is self.client else 0
        waited = segment.payload or segment.fin or diff(segment.ack, isn + 1 + taken) > 0
        if segment.kind == "plain" and waited:
            quality = "ambiguous"
        peer.choose(chosen)
        rtt = segment.time - chosen.segment.time
        if rtt < 0 or (peer is self.client and peer.sent_beyond):
            return
        peer.rtt, peer.rtt_quality = rtt, quality
        if quality != "ambiguous":
            self.events.append(("rtt_server" if peer is self.client else "rtt_client", rtt))

    # --- Everything else -------------------------------------------------------------------------------------------

    def take_plain(self, sender: End, peer: End, segment: Segment) -> None:
        proven = False
        if self.attempt and not self.answered:
            client = sender is self.client and sender.isn_captured and not self.failed
            starts = (segment.seq, (segment.seq - sender.syn_payload) & MASK)
            proven = client and (sender.isn + 1) & MASK in starts
            if not proven and not (segment.has_ack and self.acks_syn(segment.ack, peer, peer.isn)):
                self.odd_segments += 1
                return
        if self.outside_window(sender, peer, segment):
            self.odd_segments += 1
            return
        if proven:
            self.proof(segment, segment.time)
        elif self.proves_server(sender, segment):
            self.proof(segment, None)
        if self.attempt and not self.answered and sender is self.server:
            self.server_acked, self.unreachable = True, False
        self.account(sender, peer, segment)
        if segment.has_ack:
            if sender.has_acked(peer.isn):
                self.move(sender, "SND_ACK_OF_SYN", segment)
            if sender.has_acked(peer.fin_seq):
                self.move(sender, "SND_ACK_OF_FIN", segment)
        if segment.fin:
            self.take_fin(sender, peer, segment)
        self.standing_facts(segment)
        self.complete_if_both_acked(segment)
        if self.first_fin is peer and not peer.fin_acked and sender.has_acked(peer.fin_seq) and not peer.fin_resent:
            rtt = segment.time - peer.fin_time
            self.fin_rtt = rtt if rtt >= 0 else None
        peer.fin_acked |= sender.has_acked(peer.fin_seq)
        sender.fin_acked |= peer.has_acked(sender.fin_seq)

    def proof(self, segment: Segment, done: int | None) -> None:
        """A segment that only an open connection can show."""
        self.client.state = self.server.state = "ESTABLISHED"
        self.completes(done)
        self.enter_early_fins(segment)

    def proves_server(self, sender: End, segment: Segment) -> bool:
        """After its SYN-ACK, a server's segment shows that the client's ACK, which the tap missed, has arrived."""
        if not self.attempt or self.failed or sender is not self.server or self.server_synack_ack is None:
            return False
        above = segment.has_ack and diff(segment.ack, self.server_synack_ack) > 0
        return not self.data_accepted() and bool(segment.payload or segment.fin or above)

    def outside_window(self, sender: End, peer: End, segment: Segment) -> bool:
        """Is the segment odd: outside its target's window, or a FIN among acknowledged data?"""
        if sender.unjudged or peer.ack_max is None or peer.window_largest is None:
            return False
        fin_seq = segment.seq + segment.payload
        end = fin_seq + segment.fin
        odd = (
            diff(end, peer.ack_max - peer.window_largest) < 0
            or diff(segment.seq, peer.ack_max + peer.window_largest) > 0
        )
        if segment.fin and fin_seq & MASK != sender.fin_seq and diff(fin_seq, peer.ack_max) < 0:
            # The acknowledgement of a FIN may pass the tap before the FIN: it covers the FIN and nothing beyond.
            odd = odd or diff(end, peer.ack_max) < 0
        if odd and sender.odd_end == segment.seq:
            sender.unjudged = True
            return False
        if odd:
            sender.odd_end = end & MASK
        return odd

    def account(self, sender: End, peer: End, segment: Segment) -> None:
        """The sequence accounts and counts of a taken segment."""
        if segment.has_ack:
            self.answer(sender, peer, segment)
        at_nxt = diff(segment.seq, sender.nxt) if sender.nxt is not None else 0
        nxt_acked = sender.nxt is not None and peer.ack_max is not None and diff(peer.ack_max, sender.nxt) >= 0
        probe = at_nxt == -1 and not segment.fin and (not segment.payload or (segment.payload == 1 and nxt_acked))
        sender.keep_alives += probe
        sender.zero_windows += segment.window == 0 and not segment.fin
        if segment.has_ack and not segment.payload and not segment.fin and not probe:
            sender.pure_acks += 1
            outstanding = peer.nxt is not None and diff(peer.nxt, segment.ack) > 0
            same = segment.ack == sender.ack_max and segment.window == sender.window_field
            sender.duplicate_acks += outstanding and same
        if segment.has_ack:
            sender.take_window(segment, peer)
            sender.acknowledge(segment, peer)
        if segment.payload:
            if sender.first_payload is None:
                sender.first_payload = segment.time
            if self.first_fin is peer:
                self.payload_after_fin += segment.payload
        if not probe:
            self.take_bytes(sender, segment, at_nxt)

    def take_bytes(self, sender: End, segment: Segment, at_nxt: int) -> None:
        """Enter the segment's bytes: seen for the first time, again, or out of order; and the timed segment."""
        end = (segment.seq + segment.payload + segment.fin) & MASK
        if at_nxt < 0 and (segment.payload or segment.fin):
            sender.timed = None
        elif segment.payload and sender.timed is None:
            sender.timed = end, segment.time
        in_hole = sender.nxt is not None and sender.in_one_hole(segment.seq, segment.payload)
        old, inside, new = sender.enter(segment.seq, segment.payload, segment.fin)
        sender.unique += inside + new
        if segment.payload and old:
            sender.retransmitted_segments += 1
            sender.retransmitted_bytes += old
            self.events.append(("retransmitted_segments", 1))
        elif segment.payload and in_hole:
            sender.out_of_order_segments += 1

    def take_fin(self, sender: End, peer: End, segment: Segment) -> None:
        """A FIN; the second end's first one decides the shape of the close."""
        fin_seq = (segment.seq + segment.payload) & MASK
        sender.fin_count += 1
        if sender.fin_seq is not None:
            if sender.fin_seq == fin_seq and not sender.fin_acked:
                sender.fin_resent = True
            self.enter_fin(sender, peer, segment)
            return
        sender.fin_seq, sender.fin_time = fin_seq, segment.time
        sender.fin_ack = segment.ack if segment.has_ack else None
        if not self.finished and peer.fin_ack is not None and diff(peer.fin_ack, fin_seq) > 0:
            self.swap_fins(sender, peer, segment)
            return
        self.enter_fin(sender, peer, segment)
        if peer.fin_seq is None:
            self.first_fin = sender
        elif not self.shape:
            acked_now = segment.has_ack and diff(segment.ack, peer.fin_seq) > 0
            self.shape = "fin_4way" if peer.fin_acked else "fin_3way" if acked_now else "fin_simultaneous"

    def enter_fin(self, sender: End, peer: End, segment: Segment) -> None:
        self.move(sender, "SND_FIN", segment)
        if peer.has_acked(sender.fin_seq):  # the acknowledgement passed the tap before the FIN
            self.move(peer, "SND_ACK_OF_FIN", segment)

    def swap_fins(self, closer: End, second: End, segment: Segment) -> None:
        """The tap saw the second FIN first: it acknowledges this one."""
        self.first_fin, self.fin_rtt = closer, None
        self.shape = "fin_3way"
        if self.failed:  # what was reset goes on from there
            self.enter_fin(closer, second, segment)
            return
        self.payload_after_fin = 0
        closer.state, second.state = "FIN-WAIT-2", "LAST-ACK"
        if closer.has_acked(second.fin_seq):
            self.move(closer, "SND_ACK_OF_FIN", segment)
