# One connection in memory. Flow holds what every packet needs: 128 bytes, two cache lines: sequence numbers and deadline,
# and what is counted. Facts (the same number in a second arena) begins with what an RTT sample needs; the rest is written
# at the opening or at the end, as short as it usually is. What most connections never have lives in blocks that are taken
# when it first occurs: Extra, in which the Closing lies, and by numbers that stand there Trouble, Copies, Vlans, the
# Tunnel of types.pxd, and Wide for values that do not fit their short form in Facts. What is counted in 32 bits wraps
# into a high word in Trouble.
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from synfin._core.types cimport Tunnel

cdef extern from "core.h" nogil:
    # Small values of Facts in one word.
    ctypedef struct Choices:
        uint32_t timer_slot      # of the wheel, or NO_SLOT
        uint32_t first_end       # the end that sent the record's first packet
        uint32_t direction       # DIR_*
        uint32_t ecn             # ECN_*
        uint32_t fast_open       # TFO_*
        uint32_t mptcp           # MP_*
        uint32_t quality_server  # RQ_*; RQ_NONE: there is no rtt_server
        uint32_t quality_client
        uint32_t answer          # the first SYN-ACK's (ANSWER_* of copies.pxd); kept for a SYN that comes later
        uint32_t has_wide        # 1: there is a Wide

# Phase of a record: which deadline runs (SPEC 3.2).
cdef enum:
    PH_FREE = 0
    PH_SYN = 1               # SYN seen, no SYN-ACK
    PH_SYNACK = 2            # SYN-ACK seen, handshake not complete
    PH_OPEN = 3              # established, midstream with both ends seen, or one FIN
    PH_ONE_SIDED = 4         # midstream, only one end seen
    PH_CLOSING = 5           # both FINs, not both acknowledged
    PH_CLOSED = 6            # both FINs acknowledged
    PH_RESET = 7             # an accepted RST

# Flow.marks
cdef enum:
    FM_ATTEMPT = 1           # the handshake is not complete (it may have failed)
    FM_NOT_SEEN = 2          # begun midstream
    FM_IPV6 = 4
    FM_CLIENT_IS_1 = 8       # the client is end 1
    FM_HELD = 16             # a SYN of unproven worth is held beside the record (Held)
    FM_UNSCALED_0 = 32       # end 0's last window came in a SYN or SYN-ACK: never scaled
    FM_UNSCALED_1 = 64
    FM_BEGAN_WITH_SYN = 128  # no SYN or SYN-ACK can come late

# Seq.marks
cdef enum:
    EM_SEEN = 1              # the end sent a packet
    EM_NXT = 2               # nxt is known
    EM_ACK = 4               # ack is known
    EM_WINDOW = 8            # window and window_max are known
    EM_SYN = 16              # the end sent a SYN or SYN-ACK; its ISN is known
    EM_SYN_ACKED = 32        # the peer acknowledged it
    EM_FIN = 64              # the end sent a FIN
    EM_FIN_ACKED = 128       # the peer acknowledged it
    EM_TIMED = 256           # a segment of this end awaits its acknowledgement for an RTT sample
    EM_UNJUDGED = 512        # nothing is judged against this end's window until its next ACK (loss at the tap)
    EM_ODD = 1024            # Trouble.odd_end is valid
    EM_PASSIVE = 2048        # opened passively
    EM_BEYOND = 4096         # sent anything beyond SYN and SYN-ACK
    EM_PAYLOAD = 8192        # sent payload
    EM_BARE_SYN = 16384      # sent a SYN without ACK
    EM_UNREACHABLE = 32768   # an ICMP error said that its SYN did not arrive; until the next SYN or an answer

# What packets of both directions need of one end.
cdef struct Seq:
    uint32_t nxt             # highest sequence end sent
    uint32_t ack             # highest acknowledgement sent
    uint32_t window_max      # largest window announced, scaled
    uint16_t window          # last window field
    uint16_t marks           # EM_*

# What packets of one end count: low words, see EndTrouble.
cdef struct End:
    uint32_t packets
    uint32_t ip_bytes
    uint32_t payload_bytes
    uint32_t acked_bytes     # of the peer's stream, which this end acknowledges
    uint32_t pure_acks
    uint16_t vlan            # last VLAN ID, valid where not NO_VLAN
    uint8_t window_shift     # what this end's window field is scaled by (0 to 14)
    uint8_t last_packet      # hash of the last packet's IPv4 ID, sequence number and length

cdef struct Flow:
    uint32_t key_low         # IPv4: address of end 0; IPv6: number in the arena of address pairs
    uint32_t key_high        # IPv4: address of end 1; IPv6: the hash
    uint16_t port[2]
    uint8_t phase            # PH_*
    uint8_t marks            # FM_*
    uint8_t state[2]         # ST_* of each end
    int64_t deadline         # effective time at which the record has ended unless a packet comes before
    int64_t last_effective
    Seq seq[2]
    End end[2]
    int64_t last_seen        # largest timestamp
    uint32_t timed_end[2]    # sequence end of an end's timed segment, valid with its EM_TIMED

cdef struct AddressPair:
    uint8_t addr[2][16]

# A SYN or SYN-ACK as it describes its end. ts_val is valid with OPT_TIMESTAMPS in `has`.
cdef struct Opening:
    uint64_t option_kinds
    uint32_t isn
    uint32_t ts_val
    uint16_t mss
    uint16_t window
    uint8_t window_scale
    uint8_t has              # OPT_*
    uint8_t ttl
    uint8_t marks            # OM_*

# The same in short, as Facts keeps it (wide.pxd makes one of the other).
cdef struct ShortOpening:
    uint32_t isn             # before EM_SYN: the end's first sequence number
    uint32_t ts_val          # before EM_SYN: the end's first acknowledgement
    uint16_t mss
    uint16_t window
    uint8_t window_scale
    uint8_t options          # the usual kinds, each with the length it should have
    uint8_t ttl
    uint8_t marks            # OM_*

cdef enum:
    OM_DONT_FRAGMENT = 1
    OM_COPY = 2              # the values above are those of a SYN or SYN-ACK
    OM_FIRST_SEQ = 4         # isn holds the first sequence number instead
    OM_FIRST_ACK = 8         # ts_val holds the first acknowledgement instead
    OM_INFERRED = 16         # isn holds ISN + 1 as the peer's SYN-ACK acknowledged it, with OM_FIRST_SEQ

# RTT samples (ns) of the segments that one end sent (the far side of the tap towards the peer). `samples` and the sum of
# squares, of 80 bits here, may wrap: see EndTrouble. Least and greatest, of 40 bits, are those of the samples below
# LONG_RTT_NS, 18 minutes. For each end apart, so that most samples touch one cache line.
cdef struct Rtt:
    int64_t timed_at         # timestamp of the end's timed segment, valid with its EM_TIMED
    int64_t total
    uint64_t squares
    uint32_t samples
    uint32_t min
    uint32_t max
    uint16_t squares_high
    uint8_t min_high
    uint8_t max_high

# Facts.marks
cdef enum:
    FF_REFUSED = 1
    FF_ABORTED = 2
    FF_COMPLETE = 4
    FF_SYNACK = 8            # an acceptable SYN-ACK was seen
    FF_SIMULTANEOUS = 16
    FF_SPLIT = 32
    FF_DONE = 64             # handshake_done is valid
    FF_SERVER_SYNACK = 128   # the first of them came from the server
    FF_SYN_CAME = 256        # the client's SYN was counted
    FF_SYNACK_CAME = 512     # an acceptable SYN-ACK of either end was
    FF_SERVER_ACKED = 1024   # the server acknowledged the SYN with a bare ACK (split handshake)
    FF_DATA_ACCEPTED = 2048  # the SYN-ACK covers the SYN's payload
    FF_SYN_ANSWERED = 4096   # a copy of the client's SYN was answered
    FF_SERVER_DID = 8192     # the server sent an acceptable SYN-ACK to this attempt
    FF_UNREACHABLE = 32768   # an ICMP error said that the client's SYN did not arrive

# What a count of SYNs is of; FF_SYN_CAME << kind.
cdef enum:
    SK_SYN = 0               # the client's SYNs
    SK_SYNACK = 1            # acceptable SYN-ACKs of either end

# The instants that Facts keeps as nanoseconds since `born`, in 40 bits (18 minutes).
cdef enum:
    AT_SYNACK = 0            # the first acceptable SYN-ACK
    AT_DONE = 1              # the handshake's completion, valid with FF_DONE; or the client's answer (wide.pxd)
    AT_PAYLOAD_0 = 2         # end 0's first payload
    AT_PAYLOAD_1 = 3
    INSTANTS = 4

# The accessors of wide.pxd say what a value is where its short form here does not hold it.
cdef struct Facts:
    Rtt rtt[2]               # by the end that sent the segments
    int64_t born             # the record's first packet in input order
    uint32_t instant_low[INSTANTS]
    uint8_t instant_high[INSTANTS]
    uint32_t first_packet
    int16_t first_file
    int16_t interface_id
    uint32_t extra           # number of the Extra, 0: none
    uint32_t timer_next
    uint32_t timer_prev
    ShortOpening opening[2]
    Choices choices
    uint16_t marks           # FF_*
    uint16_t vlan_first      # the record's only one where it is part of the key

# Values that do not fit Facts, each valid with its mark.
cdef struct Wide:
    int64_t instants[INSTANTS]   # by AT_*
    int64_t syn_time         # of the client's first SYN, where it is not the first packet
    int64_t first_seen       # of a packet that came later than the first
    int64_t rtt_server       # not from the first SYN to the first SYN-ACK
    int64_t rtt_client       # not from the first SYN-ACK to AT_DONE
    int64_t first_packet
    int32_t first_file
    int32_t interface_id
    uint64_t option_kinds[2]
    uint8_t option_has[2]    # OPT_*
    uint16_t marks           # WM_*
    uint32_t syn_payload     # 0: none
    uint32_t first_seq       # of the first packet

cdef enum:
    WM_INSTANT = 1           # << AT_*
    WM_SYN_TIME = 16
    WM_FIRST_SEEN = 32
    WM_RTT_SERVER = 64
    WM_RTT_CLIENT = 128
    WM_PLACE = 256           # first_packet, first_file and interface_id
    WM_OPTIONS = 512         # << end: option_kinds and option_has
    WM_FIRST_SEQ = 2048

# Bytes below an end's NXT that the tap has not seen: [low, high) in sequence space, ascending.
cdef struct Hole:
    uint32_t low
    uint32_t high

cdef enum:
    MAX_HOLES = 4

cdef struct EndTrouble:
    int64_t retransmitted_segments
    int64_t retransmitted_bytes
    int64_t out_of_order_segments
    int64_t keep_alives
    int64_t zero_windows
    int64_t duplicate_acks
    int64_t capture_duplicates
    int64_t repeated_bytes   # payload that is not unique: sent before, not judged, or not taken
    int64_t long_rtt_min     # of the samples from LONG_RTT_NS on; 0: none
    int64_t long_rtt_max
    uint64_t squares_high    # of the sum of squares, from bit 80 on
    uint32_t samples_high    # high words of what End and Rtt count
    uint32_t packets_high
    uint32_t ip_bytes_high
    uint32_t payload_bytes_high
    uint32_t acked_bytes_high    # all ones: the sum is negative
    uint32_t pure_acks_high
    uint32_t odd_end         # where the end's last odd segment ended
    uint32_t hole_count
    Hole holes[MAX_HOLES]

cdef struct Trouble:
    int64_t odd_segments
    int64_t odd_syns
    int64_t icmp_errors
    EndTrouble end[2]
    uint8_t icmp_type        # valid with FF_UNREACHABLE
    uint8_t icmp_code

# What FINs and RSTs said; first what the usual close needs.
cdef struct Closing:
    int64_t fin_seen[2]
    int64_t fin_count[2]
    uint32_t fin_seq[2]      # sequence number of the first FIN itself
    uint32_t fin_ack[2]      # acknowledgement in its segment
    uint8_t has              # CM_*
    uint8_t first_fin        # end of the first FIN in input order, valid with CM_FIN
    uint8_t closer           # end that closed first (differs where the tap swapped the FINs)
    uint8_t shape            # CL_*, valid with CM_SHAPE
    uint8_t time_wait        # bit e: end e entered TIME-WAIT
    uint8_t time_wait_end    # TWE_*, valid with CM_TIME_WAIT_END
    uint8_t fin_resent       # bit e: end e's first FIN came again
    uint8_t rst_by           # end of the first accepted RST, valid with CM_RST
    uint8_t rst_ttl
    int64_t fin_rtt
    int64_t closed_at        # the packet that closed or reset the connection
    int64_t time_wait_start
    int64_t packets_after_close
    int64_t payload_after_fin
    int64_t rst_count[2]
    int64_t rst_rejected
    int64_t rst_seen

# What few open connections have, but every one that closes: so one block less to find for its last packets.
cdef struct Extra:
    Closing closing
    uint32_t trouble         # numbers of further blocks, 0: none
    uint32_t copies
    uint32_t vlans
    uint32_t tunnel          # of the first packet
    uint32_t wide

cdef enum:
    CM_FIN = 1
    CM_SHAPE = 2
    CM_RST = 4
    CM_CLOSED = 8            # closed_at is valid
    CM_FIN_RTT = 16
    CM_TIME_WAIT_END = 32
    CM_FIN_ACK_0 = 64        # fin_ack[0] is valid
    CM_FIN_ACK_1 = 128

# One remembered SYN or SYN-ACK.
cdef struct Copy:
    int64_t time_ns
    Opening opening
    uint32_t seq_end

cdef enum:
    MAX_COPIES = 8           # a power of two
    COPY_PAIRS = 4           # blocks of two that hold them

cdef struct CopyPair:
    Copy copies[2]

# An end's SYNs or SYN-ACKs. The last MAX_COPIES of them are remembered, the n-th (from 0) at place n % MAX_COPIES.
cdef struct EndCopies:
    int64_t total            # all of them, remembered or not
    uint32_t pairs[COPY_PAIRS]   # numbers of the blocks of two places each, 0: none yet

# The latest SYN that may begin a new record, and what its copies counted (SPEC 3.2).
cdef struct Held:
    int64_t first_ns
    int64_t last_ns
    int64_t smallest_ns
    int64_t largest_ns
    int64_t ip_bytes
    int64_t payload_bytes
    int64_t first_packet
    Opening opening          # of the first copy, which `copies` may have forgotten
    int32_t first_file
    int32_t interface_id
    uint32_t payload         # of the first copy
    uint16_t flags           # TH_* of the first copy
    uint8_t end
    uint8_t fast_open        # as Options.fast_open, of the first copy
    uint16_t vlan            # the first tag of a copy; NO_VLAN: none had one
    uint8_t vlan_leads       # and no packet of the record had had one before it
    uint8_t tunneled         # `tunnel` is valid
    uint32_t vlans           # as Extra.vlans: all tags of the copies, where there are several
    EndCopies copies
    Tunnel tunnel            # of the first copy

# SYNs and SYN-ACKs where there is more than one: of an end, or for the record.
cdef struct Copies:
    int64_t syn_count[2]     # indexed by SK_*; 0: no more than one came
    int64_t syn_last[2]
    int64_t used_syn         # timestamp of the SYN that rtt_server is measured from, valid with has_used_syn
    EndCopies end[2]
    uint32_t held            # number of the Held, valid with FM_HELD; 0: there was none
    uint32_t variants        # different ISNs of SYN-ACKs
    uint32_t isns[MAX_COPIES]
    uint8_t has_used_syn

cdef struct Vlans:
    uint32_t count
    uint64_t seen[64]

# What the optional columns need of one end (zeek.pxd): Zeek's view of it. Relative sequence numbers count from the
# end's ISN and have 64 bits, as Zeek has them.
cdef enum:
    MAX_PIECES = 16

cdef struct Piece:
    uint64_t low
    uint64_t high

cdef struct ZeekEnd:
    uint64_t last_syn        # relative sequence number of the last packet with that letter
    uint64_t last_fin
    uint64_t last_rst
    uint64_t fin_end         # relative end of the last FIN, valid with fins
    uint64_t delivered       # relative: in order up to here
    uint64_t trimmed         # relative: acknowledged up to here
    uint32_t start           # the ISN
    uint32_t last            # end of what it sent
    uint32_t ack             # what the other end acknowledged of it
    uint32_t last_wraps
    uint32_t ack_wraps
    uint32_t resends
    uint32_t zero_windows
    uint32_t gaps
    uint8_t state            # ZE_*
    uint8_t before           # the state before it
    uint8_t fins             # 1: it sent a FIN
    uint8_t given_up         # its bytes are no longer put in order
    uint32_t piece_count
    Piece pieces[MAX_PIECES]  # beyond `delivered`, ascending, apart

# What the optional columns need of one record, by the number of its Flow. While a SYN is held beside the record, its
# fate is open: `without` is the same record without it, `next` what a new record would begin with (numbers of further
# such blocks, 0: none).
cdef struct Others:
    int64_t syn_time         # Wireshark's: of the last SYN, 0 for none
    int64_t first_rtt        # Wireshark's, 0 for none
    uint32_t without
    uint32_t next
    uint16_t seen_letters[2]  # by role: which letters that stand once are there
    uint8_t begun
    uint8_t completeness     # Wireshark's
    uint8_t originator       # the end that Zeek takes for it
    uint8_t seen_from        # bit r: a packet of role r was taken
    uint8_t partial          # Zeek's is_partial
    uint8_t rejected         # ZR_*: how far the history has matched SYN and RST of the originator
    uint8_t letter_count
    char letters[64]
    ZeekEnd end[2]
