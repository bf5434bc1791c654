"""A small capture with one connection of most kinds."""

from dialogue import SECOND, START, Dialogue


def dialogues():
    """A connection closed in four segments, one refused, one unanswered, one half-open, and later one over IPv6."""
    good = Dialogue().handshake()
    good.data(good.a, 100)
    good.data(good.b, 1000)
    good.close()
    refused = Dialogue(a_port=40001, b_port=81)
    refused.syn(refused.a)
    refused.rst(refused.b, extra="A")
    silent = Dialogue(a_port=40002, b_port=82)
    silent.syn(silent.a)
    silent.wait(SECOND)
    silent.syn(silent.a)
    half = Dialogue(a_port=40003, b_port=83)
    half.syn(half.a)
    half.synack(half.b)
    six = Dialogue(a_ip="2001:db8::1", b_ip="2001:db8::2", a_port=40004, start=START + 200 * SECOND).handshake()
    return [good, refused, silent, half, six]


PACKETS = 18
ROWS = 5
