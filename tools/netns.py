"""Network namespaces without names: they are held by a file descriptor and vanish with the process that made them.

Nothing has to be removed afterwards, also not after a crash or Ctrl-C: a namespace lives as long as a descriptor, a
socket or a process in it does. Needs Linux, iproute2 (``ip``, ``ss``, ``nstat``), and either root or the right to make
user namespaces (``become_root``).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_libc = ctypes.CDLL(None, use_errno=True)

#: What ``ss`` prints -> the state's name in RFC 9293 section 3.3.2.
SS_STATES = {
    "LISTEN": "LISTEN", "SYN-SENT": "SYN-SENT", "SYN-RECV": "SYN-RECEIVED", "ESTAB": "ESTABLISHED",
    "FIN-WAIT-1": "FIN-WAIT-1", "FIN-WAIT-2": "FIN-WAIT-2", "CLOSE-WAIT": "CLOSE-WAIT", "CLOSING": "CLOSING",
    "LAST-ACK": "LAST-ACK", "TIME-WAIT": "TIME-WAIT", "UNCONN": "CLOSED",
}  # fmt: skip


class NotAllowed(Exception):
    """This machine does not let us make network namespaces; the text is one line of reason."""


class Ends(NamedTuple):
    """Ports of one socket, seen from its own side."""

    local: int
    peer: int


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _in_thread(function: Callable[[], T]) -> T:
    """Run ``function`` in a thread of its own: setns and unshare change the calling thread only."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((True, function()))
        except BaseException as error:
            outcome.extend((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    good, value = outcome
    if not good:
        raise value
    return value


def become_root() -> None:
    """Without root: move this process into a user namespace in which it is root.

    Only before the first thread is started. Raises NotAllowed where user namespaces are forbidden.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return
    try:
        _check(_libc.unshare(_CLONE_NEWUSER), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError as error:
        raise NotAllowed(f"needs root or user namespaces ({error.strerror})") from None


class Namespace:
    """One network namespace; a context manager. Raises NotAllowed if it cannot be made."""

    def __init__(self) -> None:
        def create() -> int:
            _check(_libc.unshare(_CLONE_NEWNET), "unshare")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        if sys.platform != "linux":
            raise NotAllowed("network namespaces need Linux")
        try:
            self.fd = _in_thread(create)
        except OSError as error:
            raise NotAllowed(f"network namespaces are not allowed here ({error.strerror})") from None

    @property
    def path(self) -> str:
        """A path that ``ip ... netns PATH`` understands while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        """Let go of the namespace; the kernel removes it with its last socket."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a short function inside the namespace. A socket that it makes stays in the namespace and can be used
        from anywhere; a process that it starts runs there.
        """

        def run() -> T:
            _check(_libc.setns(self.fd, _CLONE_NEWNET), "setns")
            return function(*args, **kwargs)

        return _in_thread(run)

    def socket(self, *args: int) -> socket.socket:
        """A new socket of this namespace (arguments as for ``socket.socket``)."""
        return self.call(socket.socket, *args)

    def get(self, port: int, path: str) -> str | None:
        """The body of what HTTP answers with status 200 on a port of its loopback interface; None for anything else."""
        try:
            with self.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.settimeout(5)
                sock.connect(("127.0.0.1", port))
                sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                answer = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        except OSError:
            return None
        head, _, body = answer.partition("\r\n\r\n")
        return body if " 200 " in head.splitlines()[0] else None

    def popen(self, command: list[str], **kwargs: Any) -> subprocess.Popen:
        """A process inside the namespace (arguments as for ``subprocess.Popen``)."""
        return self.call(subprocess.Popen, command, **kwargs)

    def run(self, command: list[str], stdin: str = "") -> str:
        """Standard output of a command inside the namespace. Raises RuntimeError with its message if it fails."""
        try:
            done = self.call(subprocess.run, command, input=stdin, capture_output=True, text=True, timeout=20)
        except FileNotFoundError:
            raise NotAllowed(f"{command[0]} not found (package iproute2)") from None
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Run lines of ``ip`` commands."""
        self.run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))

    def mac(self, interface: str) -> str:
        """The Ethernet address of an interface, as `ip` writes it."""
        return self.run(["ip", "-o", "link", "show", interface]).partition("link/ether ")[2][:17]

    def sysctl(self, name: str, value: object) -> bool:
        """Set net/... of this namespace; False if this kernel does not have it or not this value."""

        def write() -> bool:
            with contextlib.suppress(OSError), open(f"/proc/sys/net/{name}", "w") as file:
                file.write(str(value))
                file.flush()
                return True
            return False

        return self.call(write)

    def states(self) -> dict[Ends, str]:
        """RFC 9293 state of every connection by ``ss -tan``; listeners are left out."""
        found = {}
        for line in self.run(["ss", "-tanH"]).splitlines():
            state, _, _, local, peer, *_ = line.split()
            if state != "LISTEN":
                found[Ends(int(local.rpartition(":")[2]), int(peer.rpartition(":")[2]))] = SS_STATES[state]
        return found

    def counters(self) -> dict[str, int]:
        """The kernel's counters of this namespace by ``nstat`` (names such as TcpRetransSegs), since it was made."""
        return json.loads(self.run(["nstat", "-a", "-s", "-z", "-j"]))["kernel"]


#: Legacy ethtool commands (linux/ethtool.h) that switch off receive and transmit checksumming, TSO, GSO and GRO, in
#: the order in which they depend on each other.
_OFFLOADS_OFF = (0x1F, 0x24, 0x2C, 0x17, 0x15)
_SIOCETHTOOL = 0x8946


def offloads_off(namespace: Namespace, interface: str) -> None:
    """Make an interface carry frames as a cable would: right checksums, nothing above the MTU. What the driver does
    not let us switch stays as it is.
    """
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in _OFFLOADS_OFF:
            value = array.array("I", [command, 0])
            request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
            with contextlib.suppress(OSError):
                fcntl.ioctl(control, _SIOCETHTOOL, request)


@contextlib.contextmanager
def veth(left: Namespace, left_name: str, right: Namespace, right_name: str) -> Iterator[None]:
    """A veth pair between two namespaces, both ends up, offloads off; it goes with its namespaces."""
    left.ip(f"link add {left_name} type veth peer name {right_name} netns {right.path}")
    for namespace, name in ((left, left_name), (right, right_name)):
        # No router solicitations or duplicate address detection: scenes start at once and captures hold little else.
        namespace.sysctl(f"ipv6/conf/{name}/router_solicitations", 0)
        namespace.sysctl(f"ipv6/conf/{name}/accept_dad", 0)
        offloads_off(namespace, name)
        namespace.ip(f"link set {name} up")
    yield
