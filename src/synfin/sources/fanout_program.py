"""The program by which the kernel divides an interface's packets among workers: both directions of a connection to the same.

The kernel asks it for a number and takes it modulo the sockets of the group (PACKET_FANOUT_CBPF, packet(7)). Its own
hash (PACKET_FANOUT_HASH) does not promise what is needed here: what it looks at changes with the kernel, it looks into
tunnels, and a first fragment has another one than the rest of its connection.

What decides
------------
=====================================  ================================================================================
packet                                 its worker is that of
=====================================  ================================================================================
TCP                                    both addresses and both ports, the same for both directions
first fragment of TCP                  likewise: it carries the TCP header, and counts with its connection
later fragment                         both addresses: it has no ports, and every tracker only counts it as skipped
ICMP error that quotes TCP             the segment that it quotes
anything else on IP, tunnels included  both addresses, of a tunnel those of the outermost header
anything else                          0
=====================================  ================================================================================

VLAN tags (four in the frame beside one that the card or the kernel took off), MPLS labels (four) and PPPoE are passed
over. Of the extension headers of IPv6 eight are; where there are more, both addresses decide, as they do for TCP behind an
authentication header of IPv4. So packets of one connection reach different workers only where some are in a tunnel (or
behind more than eight headers) and others are not.

Where the program begins to read
--------------------------------
The kernel hands it packets that arrive from the network header on, and those that the host sends from the link header on
(net/packet/af_packet.c, net/core/dev.c). And the network header of a sent frame may stand before a VLAN tag or behind it.
Therefore everything is read relative to the link header (SKF_LL_OFF) on an interface that has Ethernet's, and to the network
header (SKF_NET_OFF) where no tag can be.
"""

from __future__ import annotations

from functools import lru_cache

from synfin.sources.assembler import (
    A_TO_X,
    ADD,
    ADD_X,
    AND,
    ANY_BIT,
    EQUAL,
    LOAD_BYTE,
    LOAD_HALF,
    LOAD_WORD,
    LOAD_WORD_AT,
    MULTIPLY,
    NOT_LESS,
    RECALL_A,
    RECALL_X,
    RETURN,
    RETURN_A,
    SET_A,
    SET_X,
    SHIFT_LEFT,
    SHIFT_RIGHT,
    STORE_A,
    STORE_X,
    X_TO_A,
    XOR_X,
    Assembler,
)

_UNKNOWN_NUMBER = 0

# linux/filter.h, linux/if_arp.h
NETWORK_HEADER, LINK_HEADER = -0x100000 & 0xFFFFFFFF, -0x200000 & 0xFFFFFFFF
HARDWARE_TYPE = (-0x1000 & 0xFFFFFFFF) + 28  # SKF_AD_OFF + SKF_AD_HATYPE
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772

_IPV4, _IPV6, _VLANS, _MPLS, _PPPOE = 0x0800, 0x86DD, (0x8100, 0x88A8, 0x9100), (0x8847, 0x8848), 0x8864
_PPP_IPV4, _PPP_IPV6 = 0x0021, 0x0057
_BOTTOM_OF_STACK = 0x100  # in a word of MPLS
_ICMP, _TCP, _FRAGMENT, _AUTHENTICATION, _ICMPV6 = 1, 6, 44, 51, 58
_OPTIONS = (0, 43, 60, 135, 139, 140)  # extension headers whose second byte counts 8 bytes less one unit
_ICMP_ERRORS = (3, 4, 5, 11, 12)
_ICMPV6_NO_ERROR = 128  # and above
MOST_TAGS, MOST_LABELS, MOST_EXTENSIONS = 4, 4, 8

#: Odd, without a pattern; one for each word of an address, and for the ports.
_FACTORS = (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)
_PORT_FACTOR = 0x165667B1
_MIX_1, _MIX_2 = 0x7FEB352D, 0x846CA68B

# Cells. The first two hold positions as X has them.
_IP, _PORTS, _PROTOCOL, _SUM, _SPARE = range(5)


@lru_cache(maxsize=1)
def fanout_program() -> bytes:
    """The program: a sequence of struct sock_filter. It fits any interface that packets are tracked on."""
    a = Assembler()
    _find_ip(a)
    _ipv4(a)
    _ipv6(a)
    _mix(a)
    return a.code()


def _add_to_x(a: Assembler, k: int) -> None:
    a.do(X_TO_A)
    a.do(ADD, k)
    a.do(A_TO_X)


def _find_ip(a: Assembler) -> None:
    # To "ip 4" or "ip 6" with X before the IP header.
    a.do(LOAD_WORD_AT, HARDWARE_TYPE)
    a.when(EQUAL, _ARPHRD_ETHER, "ethernet")
    a.when(EQUAL, _ARPHRD_LOOPBACK, "ethernet")
    a.do(SET_X, NETWORK_HEADER)
    a.go("version")

    a.label("ethernet")
    a.do(SET_X, LINK_HEADER + 12)
    for tag in range(MOST_TAGS):
        a.do(LOAD_HALF, 0)
        for kind in _VLANS:
            a.when(EQUAL, kind, f"tag {tag}")
        a.go("kind")
        a.label(f"tag {tag}")
        _add_to_x(a, 4)
    a.do(LOAD_HALF, 0)

    a.label("kind")  # A holds it, X stands before it
    a.when(EQUAL, _IPV4, "behind the kind")
    a.when(EQUAL, _IPV6, "behind the kind")
    for kind in _MPLS:
        a.when(EQUAL, kind, "labels")
    a.when(EQUAL, _PPPOE, "pppoe")
    a.do(RETURN, _UNKNOWN_NUMBER)

    a.label("pppoe")
    _add_to_x(a, 8)
    a.do(LOAD_HALF, 0)
    a.when(EQUAL, _PPP_IPV4, "behind the kind")
    a.when(EQUAL, _PPP_IPV6, "behind the kind")
    a.do(RETURN, _UNKNOWN_NUMBER)

    a.label("labels")
    _add_to_x(a, 2)
    for label in range(MOST_LABELS):
        a.do(LOAD_WORD, 0)
        a.when(ANY_BIT, _BOTTOM_OF_STACK, "bottom")
        if label < MOST_LABELS - 1:
            _add_to_x(a, 4)
    a.do(RETURN, _UNKNOWN_NUMBER)
    a.label("bottom")
    _add_to_x(a, 4)
    a.go("version")

    a.label("behind the kind")
    _add_to_x(a, 2)
    a.label("version")
    a.do(STORE_X, _IP)
    a.do(LOAD_BYTE, 0)
    a.do(SHIFT_RIGHT, 4)
    a.when(EQUAL, 4, "ip 4")
    a.when(EQUAL, 6, "to ip 6")
    a.do(RETURN, _UNKNOWN_NUMBER)
    a.label("to ip 6")
    a.go("ip 6")


def _skip_ipv4_header(a: Assembler) -> None:
    a.do(LOAD_BYTE, 0)
    a.do(AND, 15)
    a.do(SHIFT_LEFT, 2)
    a.do(ADD_X)
    a.do(A_TO_X)


def _ipv4(a: Assembler) -> None:
    # To "addresses" with their sum in A, or to "ports" with it in a cell and X before the ports.
    a.label("ip 4")
    a.do(LOAD_BYTE, 9)
    a.when(EQUAL, _ICMP, "icmp 4")
    a.go("ends 4")

    a.label("icmp 4")  # one header further where this is an error: then what it quotes decides
    a.do(LOAD_HALF, 6)
    a.when(ANY_BIT, 0x1FFF, "ends 4")
    _skip_ipv4_header(a)
    a.do(LOAD_BYTE, 0)
    for kind in _ICMP_ERRORS:
        a.when(EQUAL, kind, "quote 4")
    a.do(RECALL_X, _IP)
    a.go("ends 4")
    a.label("quote 4")
    _add_to_x(a, 8)
    a.do(STORE_X, _IP)

    a.label("ends 4")
    a.do(LOAD_WORD, 12)
    a.do(STORE_A, _SPARE)
    a.do(LOAD_WORD, 16)
    a.do(RECALL_X, _SPARE)
    a.do(ADD_X)
    a.do(MULTIPLY, _FACTORS[0])
    a.do(STORE_A, _SUM)
    a.do(RECALL_X, _IP)
    a.do(LOAD_BYTE, 9)
    a.when(EQUAL, _TCP, "tcp 4")
    a.go("addresses")
    a.label("tcp 4")
    a.do(LOAD_HALF, 6)
    a.when(ANY_BIT, 0x1FFF, "later fragment 4")
    _skip_ipv4_header(a)
    a.go("ports")
    a.label("later fragment 4")
    a.go("addresses")


def _ipv6(a: Assembler) -> None:
    # Likewise.
    a.label("ip 6")
    _extensions(a, "outer")
    a.when(EQUAL, _ICMPV6, "icmp 6")
    a.when(EQUAL, _TCP, "outer tcp 6")
    a.go("only addresses 6")
    a.label("outer tcp 6")
    a.go("tcp 6")

    a.label("icmp 6")
    a.do(LOAD_BYTE, 0)
    a.when(NOT_LESS, _ICMPV6_NO_ERROR, "only addresses 6")
    _add_to_x(a, 8)
    a.do(STORE_X, _IP)
    _extensions(a, "quoted")
    a.when(EQUAL, _TCP, "tcp 6")

    a.label("only addresses 6")
    a.do(SET_X, 0)
    a.label("tcp 6")
    a.do(STORE_X, _PORTS)
    for word, factor in enumerate(_FACTORS):
        a.do(RECALL_X, _IP)
        a.do(LOAD_WORD, 8 + 4 * word)
        a.do(STORE_A, _SPARE)
        a.do(LOAD_WORD, 24 + 4 * word)
        a.do(RECALL_X, _SPARE)
        a.do(ADD_X)
        a.do(MULTIPLY, factor)
        if word:
            a.do(RECALL_X, _SUM)
            a.do(ADD_X)
        a.do(STORE_A, _SUM)
    a.do(RECALL_A, _PORTS)
    a.when(EQUAL, 0, "addresses")
    a.do(A_TO_X)


def _extensions(a: Assembler, which: str) -> None:
    # From X before an IPv6 header to A with the protocol behind the extension headers, and X before what that names. For a
    # later fragment A is _FRAGMENT, and the kind of the next extension header where there are too many.
    a.do(LOAD_BYTE, 6)
    a.do(STORE_A, _PROTOCOL)
    _add_to_x(a, 40)
    a.do(RECALL_A, _PROTOCOL)
    for number in range(MOST_EXTENSIONS):
        name = f"{which} {number}"
        for kind in _OPTIONS:
            a.when(EQUAL, kind, f"options {name}")
        a.when(EQUAL, _AUTHENTICATION, f"authentication {name}")
        a.when(EQUAL, _FRAGMENT, f"fragment {name}")
        a.go(f"end {which}")
        a.label(f"fragment {name}")
        a.do(LOAD_HALF, 2)
        a.do(AND, 0xFFF8)
        a.when(EQUAL, 0, f"first fragment {name}")
        a.do(SET_A, _FRAGMENT)
        a.go(f"end {which}")
        a.label(f"first fragment {name}")
        a.do(ADD, 8)
        a.go(f"size {name}")
        a.label(f"authentication {name}")
        a.do(LOAD_BYTE, 1)
        a.do(ADD, 2)
        a.do(SHIFT_LEFT, 2)
        a.go(f"size {name}")
        a.label(f"options {name}")
        a.do(LOAD_BYTE, 1)
        a.do(ADD, 1)
        a.do(SHIFT_LEFT, 3)
        a.label(f"size {name}")
        a.do(STORE_A, _SPARE)
        a.do(LOAD_BYTE, 0)
        a.do(STORE_A, _PROTOCOL)
        a.do(RECALL_A, _SPARE)
        a.do(ADD_X)
        a.do(A_TO_X)
        a.do(RECALL_A, _PROTOCOL)
    a.label(f"end {which}")


def _mix(a: Assembler) -> None:
    a.label("ports")
    a.do(LOAD_WORD, 0)
    a.do(STORE_A, _SPARE)
    a.do(SHIFT_RIGHT, 16)
    a.do(A_TO_X)
    a.do(RECALL_A, _SPARE)
    a.do(AND, 0xFFFF)
    a.do(ADD_X)
    a.do(MULTIPLY, _PORT_FACTOR)
    a.do(RECALL_X, _SUM)
    a.do(ADD_X)
    a.go("mix")
    a.label("addresses")
    a.do(RECALL_A, _SUM)
    a.label("mix")  # the kernel takes the low bits: they must depend on all
    for shift, factor in ((16, _MIX_1), (15, _MIX_2), (16, 0)):
        a.do(STORE_A, _SPARE)
        a.do(SHIFT_RIGHT, shift)
        a.do(A_TO_X)
        a.do(RECALL_A, _SPARE)
        a.do(XOR_X)
        if factor:
            a.do(MULTIPLY, factor)
    a.do(RETURN_A)
