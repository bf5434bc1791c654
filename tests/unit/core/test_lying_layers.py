"""Hostile bytes in every layer, by both decoders: each byte of each header lying, chains without end, random frames."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_link import HEADERS, V4, V6
from test_radio import WHOLE
from test_tunnel import ETHERNET, RAW, A, B, both, packet

from dialogue import ethernet, ipv4, ipv6, tcp
from synfin import schema
from synfin._core.probe import decode
from synfin.reference.segment import parse_options
from tunnels import AROUND, OUTER4, OUTER6, fits, wrapped

LIES = (0, 1, 4, 6, 17, 41, 44, 47, 0x3F, 0x45, 0x4F, 0x60, 0x7F, 0x80, 0xFF)
SKIPS = {name for name, _ in schema.SKIPS}
EXTENSIONS = {"hop-by-hop": 0, "routing": 43, "fragment": 44, "authentication": 51, "destination": 60, "mobility": 135, "HIP": 139, "shim6": 140}


def extension(kind: int, following: int, words: int = 0) -> bytes:
    """An extension header of 8 bytes and `words` more units of 8 (RFC 8200; RFC 4302 counts AH in units of 4)."""
    length = 2 * words if kind == 51 else 0 if kind == 44 else words
    return bytes((following, length)) + bytes(6 + 8 * (0 if kind == 44 else words))


@pytest.mark.parametrize("name", AROUND)
def test_every_byte_of_a_tunnel_lies(name):
    """Each byte from the outer IP header to the inner TCP header takes values that mean something somewhere."""
    whole = wrapped(name, packet(4 if fits(name, 4) else 6))
    found = set()
    for at in range(len(whole) - 7):
        for lie in LIES:
            verdict = both(whole[:at] + bytes((lie,)) + whole[at + 1 :], RAW)
            found.add(verdict if isinstance(verdict, str) else "segment")
    assert {"segment", "not_tcp"} <= found <= SKIPS | {"segment"}


@pytest.mark.parametrize("name", HEADERS)
def test_every_byte_of_a_link_header_lies(name):
    link_type, header, version, _ = HEADERS[name]
    for at in range(min(len(header), 64)):
        for lie in LIES:
            both(header[:at] + bytes((lie,)) + header[at + 1 :] + (V4 if version == 4 else V6), link_type)


# ------------------------------------------------------------------------------------------------ extension headers


@pytest.mark.parametrize("kind", EXTENSIONS.values(), ids=EXTENSIONS)
@pytest.mark.parametrize("words", [0, 1, 3])
def test_an_extension_header_cut_and_lying(kind, words):
    """Captured up to every byte, announced up to every byte, and of every length."""
    segment = tcp(A[6], B[6], 1234, 80, seq=7, ack=9, flags=0x18, payload=b"payload")
    chain = extension(kind, 60, words) + extension(60, 6)
    whole = ipv6(A[6], B[6], chain + segment, next_header=kind)
    headers = 40 + len(chain) + 20
    for size in range(len(whole)):
        found = both(whole[:size], RAW, len(whole))
        assert found == "header_cut" if size < headers else found["payload"] == 7, size
        if size > 40:
            lying = whole[:4] + (size - 40).to_bytes(2, "big") + whole[6:]
            found = both(lying, RAW)
            assert found in ("bad_ip_header", "bad_tcp_header") if size < headers else found["payload"] == size - headers
    for length in range(256):
        both(whole[:41] + bytes((length,)) + whole[42:], RAW)


@pytest.mark.parametrize("around", [None, "6in4", "4in6"])
def test_a_chain_without_end_is_walked_once(around):
    """Headers of 8 bytes to the end of the packet, in every kind: each is read once, so the packet's bytes bound the work."""
    for kind in EXTENSIONS.values():
        chain = extension(kind, kind) * 7000
        inner = ipv6(A[6], B[6], chain, next_header=kind)
        whole = ipv4(*OUTER4, inner, protocol=41) if around == "6in4" else inner
        whole = ipv6(*OUTER6, inner, next_header=41) if around == "4in6" else whole
        assert both(whole, RAW) == "bad_ip_header"
        assert both(whole[: len(whole) - 4], RAW, len(whole)) == "header_cut"


# ------------------------------------------------------------------------------------------------ tunnels


def test_beyond_the_bound_of_tunnels_nothing_is_read():
    """What stands behind the seventeenth header changes nothing, so thousands more cost nothing."""
    rnd = random.Random(4)
    for name in (name for name in AROUND if fits(name, 4) and AROUND[name].outer is OUTER4):
        inner = packet(4)
        for _ in range(40 if AROUND[name].frame else 60):
            inner = wrapped(name, inner)
        depth = len(wrapped(name, packet(4))) - len(packet(4))
        seen = inner[: 17 * depth]
        for rest in (b"", bytes(500), rnd.randbytes(500)):
            assert both(seen + rest, RAW, len(inner)) == "tunnel_depth", name


# ------------------------------------------------------------------------------------------------ options


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 3, 4, 5, 8, 30, 34, 254, 62, 63]), st.integers(0, 20), st.binary(max_size=6)),
        max_size=6,
    ),
    st.binary(max_size=8),
)
def test_options_of_any_length(parts, rest):
    """Lengths of 0, of 1 and past the end, and kinds twice: both readers find the same."""
    data = b"".join(
        bytes((kind,)) if kind < 2 else bytes((kind, size)) + (fill * 20)[: max(size - 2, 0)] for kind, size, fill in parts
    )
    raw = (data + rest)[:40]
    raw += bytes(-len(raw) % 4)
    frame = ipv4(A[4], B[4], tcp(A[4], B[4], 1234, 80, seq=7, ack=9, flags=0x10, opts=raw))
    found, other = decode(frame, RAW, after=b"\xff" * 64)["options"], parse_options(raw)
    fast_open = {None: None, "cookie": "cookie", "request": "cookie_request"}[other.fast_open]
    assert found == {
        "kinds": other.kinds, "mss": other.mss, "window_scale": other.window_scale, "sack_permitted": other.sack_permitted,
        "timestamps": other.timestamps, "fast_open": fast_open, "mptcp": other.mptcp,
        "quick_timestamps": other.timestamps,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ random bytes

LINK_TYPES = sorted({link_type for link_type, *_ in HEADERS.values()} | {link_type for link_type, _ in WHOLE.values()} | {147, 272})
#: What may stand before random bytes so that they are read as far in as they can be.
LEADS = {
    **{f"link {number}": (number, b"") for number in LINK_TYPES},
    **{f"{name}, IP": (link_type, header) for name, (link_type, header, *_) in HEADERS.items() if len(header) < 64},
    **{name: (link_type, header) for name, (link_type, header) in WHOLE.items()},
}
PORTS = (2152, 4789, 6081, 8472, 53)


@settings(max_examples=2500, deadline=None)
@given(st.sampled_from(sorted(LEADS)), st.binary(max_size=120), st.sampled_from([0, 1, 1500]))
def test_random_bytes_of_every_link_type(name, data, beyond):
    link_type, lead = LEADS[name]
    both(lead + data, link_type, len(lead + data) + beyond)


@settings(max_examples=2500, deadline=None)
@given(
    st.sampled_from([(protocol, None) for protocol in (1, 4, 17, 41, 47, 58)] + [(17, port) for port in PORTS]),
    st.booleans(),
    st.binary(max_size=160),
    st.sampled_from([0, 1, 1500]),
)
def test_random_bytes_behind_every_tunnel_s_beginning(kind, six, data, beyond):
    protocol, port = kind
    if port:
        data = port.to_bytes(2, "big") * 2 + (len(data) + 8).to_bytes(2, "big") + bytes(2) + data
    frame = ethernet(ipv6(A[6], B[6], data, next_header=protocol) if six else ipv4(A[4], B[4], data, protocol=protocol))
    both(frame, ETHERNET, len(frame) + beyond)
