"""Whose clock stamps packets. No card here stamps them itself: the driver's answers are made by hand."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time

import pytest
from rings import Frame, block_bytes, frame_bytes

from synfin._core.batch import PacketBatch
from synfin.errors import CaptureOpenError, ConfigError
from synfin.sources import timestamps
from synfin.sources.losses import LiveReport
from synfin.sources.ring import Ring, RingMerge
from synfin.sources.timestamps import stamp_by

SET, GET, ETHTOOL = 0x89B0, 0x89B1, 0x8946
NONE, ALL, PTP_ONLY = 0, 1, 12


class Card:
    """A driver that answers as linux/net_tstamp.h and linux/ethtool.h say, and a socket that keeps its options."""

    def __init__(self, *, receiving=NONE, sending=1, can=True, may=True, clock_ahead_ns=0):
        self.receiving, self.sending = receiving, sending
        self.can, self.may, self.clock_ahead_ns = can, may, clock_ahead_ns
        self.options, self.calls = [], []

    def ioctl(self, _, command, request):
        name, pointer = struct.unpack("16sP16x", request)
        assert name.rstrip(b"\0") == b"eth0"
        self.calls.append(command)
        if not self.can:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if command == ETHTOOL:
            command, *_ = struct.unpack("=I", ctypes.string_at(pointer, 4))
            assert command == 0x41  # ETHTOOL_GET_TS_INFO
            ctypes.memmove(pointer + 8, struct.pack("=i", 3), 4)
            return
        if command == SET:
            if not self.may:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            _, self.sending, self.receiving = struct.unpack("=iii", ctypes.string_at(pointer, 12))
        ctypes.memmove(pointer, struct.pack("=iii", 0, self.sending, self.receiving), 12)

    def setsockopt(self, *option):
        self.options.append(option)

    def open(self, path, _):
        assert path == "/dev/ptp3"
        return os.dup(0)

    def clock_gettime_ns(self, clock):
        assert clock < 0 and clock & 7 == 3  # a clock of a descriptor
        return time.time_ns() + self.clock_ahead_ns

    @property
    def by_hardware(self):
        return self.options == [(263, 17, 1 << 6)]  # SOL_PACKET, PACKET_TIMESTAMP, SOF_TIMESTAMPING_RAW_HARDWARE


class Clock:
    def __init__(self, card):
        self.clock_gettime_ns = card.clock_gettime_ns
        self.time_ns = time.time_ns


class System:
    def __init__(self, card):
        self.open, self.close, self.fsencode, self.O_RDONLY, self.O_CLOEXEC = card.open, os.close, os.fsencode, 0, 0


def choose(monkeypatch, card, wish):
    monkeypatch.setattr("fcntl.ioctl", card.ioctl)
    monkeypatch.setattr(timestamps, "time", Clock(card))
    monkeypatch.setattr(timestamps, "os", System(card))
    return stamp_by(card, "eth0", wish)


def test_software_asks_nobody(monkeypatch):
    card = Card(receiving=ALL)
    assert choose(monkeypatch, card, "software") == "software" and card.calls == card.options == []


@pytest.mark.parametrize(
    ("card", "chosen"),
    [
        (Card(receiving=ALL), "hardware"),
        (Card(receiving=ALL, clock_ahead_ns=37 * 10**9), "software"),  # International Atomic Time
        (Card(receiving=ALL, clock_ahead_ns=-3_000_000), "software"),
        (Card(receiving=PTP_ONLY), "software"),
        (Card(), "software"),
        (Card(can=False), "software"),
    ],
    ids=["right", "other time", "slow", "only some", "off", "cannot"],
)
def test_auto_takes_the_card_where_it_is_as_good(monkeypatch, card, chosen):
    """And changes nothing about it."""
    assert choose(monkeypatch, card, "auto") == chosen
    assert card.by_hardware == (chosen == "hardware") and SET not in card.calls


def test_hardware_switches_it_on(monkeypatch):
    """What the card does with packets that it sends stays: a PTP daemon may need that."""
    card = Card(receiving=PTP_ONLY, sending=1)
    assert choose(monkeypatch, card, "hardware") == "hardware"
    assert card.by_hardware and (card.receiving, card.sending) == (ALL, 1)
    card = Card(receiving=ALL, may=False)  # somebody else has done it
    assert choose(monkeypatch, card, "hardware") == "hardware" and SET not in card.calls


@pytest.mark.parametrize(
    ("card", "reason"),
    [(Card(can=False), "Operation not supported"), (Card(may=False), "CAP_NET_ADMIN is needed to make it; once as root: hwstamp_ctl")],
)
def test_hardware_that_is_not_to_be_had(monkeypatch, card, reason):
    with pytest.raises(CaptureOpenError, match=f"cannot listen on eth0: its card does not stamp every packet .{reason}"):
        choose(monkeypatch, card, "hardware")


def test_packets_that_the_card_stamped_are_counted():
    """TP_STATUS_TS_RAW_HARDWARE of linux/if_packet.h, in the status of each frame."""
    size, stamped = 8192, {1, 4, 5, 19}
    frames = [frame_bytes(Frame(10**18 + number, bytes(60)), number == 19) for number in range(20)]
    for number in stamped:
        (status,) = struct.unpack_from("=I", frames[number], 20)
        frames[number] = frames[number][:20] + struct.pack("=I", status | 1 << 31) + frames[number][24:]
    ring = Ring(bytearray(block_bytes(frames, size)), size, 1)
    merge, batch = RingMerge([ring]), PacketBatch()
    merge.begin(batch)
    merge.walk(batch)
    assert (ring.packets, ring.card_stamps) == (20, len(stamped))


def test_stamps_of_two_clocks_are_told():
    (line,) = LiveReport(system_stamps={"eth0": 3, "eth1": 0}).warnings
    assert line.startswith("eth0: the card left 3 packets to the system's clock")


@pytest.mark.kernel
def test_interfaces_of_one_tap_share_a_clock(cable, monkeypatch):
    """One card that stamps and one that does not: the system stamps all, since packets are put in order by their stamps."""
    from netns import veth

    from synfin.sources import packet_socket
    from synfin.sources.live import LiveInput

    monkeypatch.setattr(packet_socket, "stamp_by", lambda _, name, __: "hardware" if name == "vb" else "software")
    left, right = cable
    with right.call(LiveInput, ["vb"]) as source:
        assert source.timestamps == {"vb": "hardware"}
    with veth(left, "vc", right, "vd"), right.call(LiveInput, ["vb", "vd"]) as source:
        assert source.timestamps == {"vb": "software", "vd": "software"}


def test_wishes():
    with pytest.raises(ConfigError, match="time stamps are auto, hardware, software, not 'gps'"):
        stamp_by(None, "eth0", "gps")


@pytest.mark.kernel
def test_a_veth_has_software_only(cable):
    from synfin.sources.live import LiveInput

    for wish in ("auto", "software"):
        with cable[1].call(LiveInput, ["vb"], timestamps=wish) as source:
            assert source.timestamps == {"vb": "software"}
    with pytest.raises(CaptureOpenError, match="cannot listen on vb: its card does not stamp every packet"):
        cable[1].call(LiveInput, ["vb"], timestamps="hardware")
