"""libpcap's own filter machine, to compare with: it compiles and runs what synfin runs itself."""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest

NAME = ctypes.util.find_library("pcap")
needs_libpcap = pytest.mark.skipif(NAME is None, reason="libpcap is not installed (Debian: libpcap0.8)")


def _library():
    library = ctypes.CDLL(NAME)
    library.bpf_filter.restype = ctypes.c_uint
    library.bpf_filter.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint)
    library.bpf_validate.argtypes = (ctypes.c_char_p, ctypes.c_int)
    return library


def passes(code: bytes, data: bytes, wire_len: int | None = None) -> bool:
    """Does libpcap's interpreter let the packet through? `code` is an array of struct bpf_insn."""
    return returned(code, data, wire_len) != 0


def returned(code: bytes, data: bytes, wire_len: int | None = None) -> int:
    """What the program returns for a packet."""
    return _library().bpf_filter(code, data, len(data) if wire_len is None else wire_len, len(data))


def is_valid(code: bytes) -> bool:
    """Does libpcap take the program for one that it can run?"""
    return _library().bpf_validate(code, len(code) // 8) != 0
