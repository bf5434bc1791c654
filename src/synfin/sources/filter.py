"""Filter expressions, compiled to BPF programs by libpcap."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from functools import lru_cache
from typing import Any

from synfin.errors import ConfigError

WHOLE = 262_144  # what a program returns for a packet that it takes: how many bytes of it to keep (pcap(3PCAP): any)
_ANY_NETMASK = 0xFFFFFFFF  # PCAP_NETMASK_UNKNOWN
_OPTIMIZE = 1
_MISSING = (
    "--filter needs libpcap, which is not installed (Debian and Ubuntu: libpcap0.8, Fedora: libpcap, Alpine: libpcap)"
)
#: LINKTYPE_ of files -> DLT_ of libpcap on Linux; all others are equal (pcap/dlt.h). 14 is what some BSDs call raw IP.
_DLT = {100: 11, 101: 12, 14: 12, 106: 19}
#: Link types of which one at least must take an expression: Ethernet, raw IP, Linux cooked, 802.11.
_USUAL = (1, 101, 113, 105)


class LibpcapMissing(ConfigError):
    """libpcap is not installed."""


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


_RETURN_0 = bytes(_Instruction(0x06, 0, 0, 0))
_PROBE_BYTES = 1 << 16  # ring of the handle that is opened to compile for an interface
_REJECTS_ALL = "expression rejects all packets"  # libpcap's complaint where an expression cannot hold


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


@lru_cache(maxsize=1)
def _libpcap() -> Any:
    for name in (ctypes.util.find_library("pcap"), "libpcap.so.1", "libpcap.so.0.8", "libpcap.dylib"):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is not None:
            break
    else:
        raise LibpcapMissing(_MISSING)
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
    library.pcap_create.restype = ctypes.c_void_p
    library.pcap_create.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    library.pcap_set_snaplen.argtypes = library.pcap_set_buffer_size.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.pcap_activate.argtypes = library.pcap_datalink.argtypes = (ctypes.c_void_p,)
    library.pcap_compile.argtypes = (
        ctypes.c_void_p, ctypes.POINTER(_Program), ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32,
    )  # fmt: skip
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = (ctypes.c_void_p,)
    library.pcap_freecode.argtypes = (ctypes.POINTER(_Program),)
    library.pcap_close.argtypes = (ctypes.c_void_p,)
    library.bpf_filter.restype = ctypes.c_uint
    library.bpf_filter.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint)
    return library


def _compile(expression: str, link_type: int) -> bytes | str:
    """The program, or libpcap's complaint."""
    handle = _libpcap().pcap_open_dead(_DLT.get(link_type, link_type), WHOLE)
    if not handle:
        raise MemoryError("no memory for a filter")
    return _compile_on(handle, expression)


def _compile_on(handle: int, expression: str) -> bytes | str:
    # Closes the handle.
    library, program = _libpcap(), _Program()
    try:
        if library.pcap_compile(handle, ctypes.byref(program), expression.encode(), _OPTIMIZE, _ANY_NETMASK) < 0:
            return library.pcap_geterr(handle).decode("utf-8", "replace")
        code = ctypes.string_at(program.instructions, program.length * ctypes.sizeof(_Instruction))
        library.pcap_freecode(ctypes.byref(program))
        return code
    finally:
        library.pcap_close(handle)


def compile_for_kernel(expression: str, interface: str, link_type: int) -> bytes:
    """The program that the kernel is to run for packets of an interface of this host.

    The kernel takes a VLAN tag off before it asks the filter. For an open interface libpcap knows that, and lets `vlan`
    look at the tag where the kernel keeps it; so it opens the interface for a moment.

    Raises
    ------
    ConfigError : libpcap does not take the expression for this link type, or is not installed (`LibpcapMissing`).
    """
    if "\0" in expression:
        raise ConfigError("the filter expression holds a NUL")
    handle = _open_interface(interface, link_type)
    code = _compile_on(handle, expression) if handle else _compile(expression, link_type)
    if code == _REJECTS_ALL:
        return _RETURN_0
    if isinstance(code, str):
        raise ConfigError(f"filter {expression!r}: {code}")
    return code


def _open_interface(interface: str, link_type: int) -> int | None:
    # None where libpcap does not see frames of that link type there: it has no raw IP of an interface.
    library = _libpcap()
    handle: int | None = library.pcap_create(os.fsencode(interface), ctypes.create_string_buffer(256))
    if handle:
        library.pcap_set_snaplen(handle, WHOLE)
        library.pcap_set_buffer_size(handle, _PROBE_BYTES)
        if library.pcap_activate(handle) >= 0 and library.pcap_datalink(handle) == _DLT.get(link_type, link_type):
            return handle
        library.pcap_close(handle)
    return None


class Filter:
    """A filter expression (pcap-filter(7)), compiled for each link type when its first packet comes.

    Parameters
    ----------
    expression : such as ``tcp port 443 and not net 10.0.0.0/8``. Empty: every packet.

    Raises
    ------
    ConfigError : libpcap is not installed, or takes the expression for no usual link type. From the call: it does not
        take it for this one.
    """

    def __init__(self, expression: str):
        self.expression = expression
        self._programs: dict[int, bytes] = {}
        if "\0" in expression:
            raise ConfigError("the filter expression holds a NUL")
        complaints = []
        for link_type in _USUAL:
            code = _compile(expression, link_type)
            if isinstance(code, bytes):
                return
            complaints.append(code)
        raise ConfigError(f"filter {expression!r}: {complaints[0]}")

    def __call__(self, link_type: int) -> bytes:
        """The program for packets of a link type (a LINKTYPE_ value): struct bpf_insn, native byte order."""
        code = _compile(self.expression, link_type)
        if code == _REJECTS_ALL:
            return _RETURN_0  # such as ARP on raw IP
        if isinstance(code, str):
            raise ConfigError(f"filter {self.expression!r} for packets of link type {link_type}: {code}")
        return code

    def passes(self, data: bytes, wire_len: int, link_type: int) -> bool:
        """Does libpcap itself let a packet through?

        Parameters
        ----------
        data : bytes from the link-layer header on.
        wire_len : bytes on the wire.
        link_type : LINKTYPE_ value.

        Notes
        -----
        For packets that no tracker takes; it runs the program itself (`_core/filter.pxd`).
        """
        program = self._programs.get(link_type) or self._programs.setdefault(link_type, self(link_type))
        return _libpcap().bpf_filter(program, data, wire_len, len(data)) != 0
