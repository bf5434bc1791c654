"""`synfin live` beside real connections: ``python tools/demo_live.py``, as root or where user namespaces are allowed.

Two network namespaces with a cable between them: clients and servers of this kernel, and on the clients' end of the cable
the sidecar. What its metrics say is shown beside what `ss` says, then a few rows. Nothing is left behind. Where this is not
allowed, one line says why; the exit status is 0 all the same. It is 1 if the gauges and `ss` differ.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hosts import receive
from netns import Namespace, NotAllowed, become_root, veth
from wire import SYN, bare_segment

CLIENTS, SERVERS, NOBODY, FORGED = "10.30.0.1", "10.30.0.80", "10.30.0.99", "10.30.0.200"
#: Ports of the servers: one closes first, one lets its clients do so, one never closes, and one refuses.
FIRST, SECOND, NEVER, CLOSED = 80, 443, 8080, 23
METRICS = 9108
_PATIENCE_S = 20.0
_REQUEST, _ANSWER = b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n" + b"." * 5000
_COOKIE_FREE = 60  # half-open connections: fewer than the backlog holds
_SHOWN = (
    "synfin_attempts_total", "synfin_connections_half_open", "synfin_connections_half_closed", "synfin_packets_total",
    "synfin_ring_packets_total", "synfin_ring_dropped_packets_total", "synfin_output_rows_total",
    "synfin_rtt_server_seconds_count",
)  # fmt: skip


class Failed(Exception):
    """The demo did not come as far as it should have; the text says where."""


def _lay_cable(clients: Namespace, servers: Namespace) -> None:
    clients.ip("link set lo up", f"address add {CLIENTS}/24 dev va")
    servers.ip(f"address add {SERVERS}/24 dev vb")
    # Answers to forged addresses reach the clients' end, where nobody wants them; SYNs to nobody reach the servers'.
    servers.ip(f"neighbour add {FORGED} lladdr {clients.mac('va')} dev vb")
    clients.ip(f"neighbour add {NOBODY} lladdr {servers.mac('vb')} dev va")
    servers.sysctl("ipv4/tcp_syncookies", 0)


class Traffic:
    """Connections between two namespaces, some of them left as they are at the end."""

    def __init__(self, clients: Namespace, servers: Namespace):
        self._clients, self._servers = clients, servers
        self._kept: list[socket.socket] = []
        self._listeners = {port: self._listen(port) for port in (FIRST, SECOND, NEVER)}

    def _listen(self, port: int) -> socket.socket:
        listener = self._servers.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((SERVERS, port))
        listener.listen(128)
        return listener

    def _client(self) -> socket.socket:
        client = self._clients.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.settimeout(_PATIENCE_S)
        return client

    def _talk(self, port: int) -> tuple[socket.socket, socket.socket]:
        client = self._client()
        client.connect((SERVERS, port))
        server, _ = self._listeners[port].accept()
        client.sendall(_REQUEST)
        receive(server, len(_REQUEST))
        server.sendall(_ANSWER)
        receive(client, len(_ANSWER))  # all of it: who closes with bytes unread sends a reset
        return client, server

    def run(self) -> None:
        """Connections of every kind."""
        for number in range(120):
            client, server = self._talk(FIRST if number % 3 else SECOND)
            first, second = (server, client) if number % 3 else (client, server)
            first.close()
            second.recv(1)
            second.close()
        self._kept += [end for _ in range(25) for end in self._talk(SECOND)]
        for _ in range(8):
            client, server = self._talk(NEVER)  # its program forgets to close
            client.shutdown(socket.SHUT_WR)
            self._kept += [client, server]
        for _ in range(10):
            with self._client() as client:
                client.connect_ex((SERVERS, CLOSED))
        for _ in range(5):
            client = self._client()
            client.setblocking(False)
            client.connect_ex((NOBODY, FIRST))
            self._kept.append(client)
        self._flood()

    def _flood(self) -> None:
        mac = bytes.fromhex(self._servers.mac("vb").replace(":", ""))
        with self._clients.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            sender.bind(("va", 0))
            for port in range(40_000, 40_000 + _COOKIE_FREE):
                sender.send(
                    mac
                    + sender.getsockname()[4]
                    + b"\x08\x00"
                    + bare_segment((FORGED, port), (SERVERS, SECOND), port, SYN)
                )

    def close(self) -> None:
        """Let go of all sockets."""
        for each in (*self._kept, *self._listeners.values()):
            each.close()


def _metrics(namespace: Namespace) -> dict[str, float]:
    text = namespace.get(METRICS, "/metrics") or ""
    return {name: float(value) for name, value in re.findall(r"(?m)^(synfin_\S+(?:\{.*\})?) (\S+)$", text)}


def _until(condition, what: str):
    end = time.monotonic() + _PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > end:
            raise Failed(what)
        time.sleep(0.1)
    return value


def _compare(clients: Namespace, servers: Namespace) -> bool:
    """Print the gauges beside what the kernel says; True if they are equal."""

    def both() -> tuple[dict[str, float], Counter[str], Counter[str]]:
        # The metrics' own connections are on the loopback interface, which nobody listens to.
        ours = Counter(state for ends, state in clients.states().items() if METRICS not in ends)
        return _metrics(clients), ours, Counter(servers.states().values())

    def told() -> bool:
        return _metrics(clients).get("synfin_connections_half_open") == _COOKIE_FREE

    # These came last, and figures of one scrape belong together.
    _until(told, "the metrics do not show what has passed")
    metrics, ours, theirs = both()
    print(f"\n{'ends by state':<14}{'synfin':>8}{'ss, clients':>14}{'ss, servers':>14}")
    same = True
    for state in ("SYN-SENT", "SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-2", "CLOSE-WAIT", "TIME-WAIT"):
        seen = int(metrics[f'synfin_ends{{state="{state}"}}'])
        forged = _COOKIE_FREE if state == "SYN-SENT" else 0
        note = f"   and {forged} that no host has: SYNs from a forged address" if forged else ""
        print(f"{state:<14}{seen:>8}{ours[state]:>14}{theirs[state]:>14}{note}")
        same &= seen == ours[state] + theirs[state] + forged
    print()
    for name, value in metrics.items():
        if name.partition("{")[0] in _SHOWN and value:
            print(f"{name} {value:g}")
    return same


def _demo(folder: Path) -> bool:
    with Namespace() as clients, Namespace() as servers, veth(clients, "va", servers, "vb"):
        _lay_cable(clients, servers)
        rows = folder / "rows"
        arguments = ["live", "va", "-o", str(rows), "--metrics", str(METRICS), "--head", "8"]
        print(f"$ synfin {' '.join(arguments)}".replace(str(rows), "rows"), flush=True)
        sidecar = clients.popen(
            [sys.executable, "-m", "synfin", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "COLUMNS": "100"},
        )  # fmt: skip
        traffic = Traffic(clients, servers)
        try:
            _until(lambda: sidecar.poll() is not None or clients.get(METRICS, "/readyz"), "the sidecar is not ready")
            if sidecar.poll() is not None:
                raise Failed(sidecar.communicate()[0].strip())
            traffic.run()
            same = _compare(clients, servers)
            sidecar.send_signal(signal.SIGTERM)
            print("\n" + sidecar.communicate(timeout=_PATIENCE_S)[0].replace(str(rows), "rows"))
        finally:
            sidecar.kill()
            sidecar.wait()
            traffic.close()
        for path in sorted(rows.rglob("*.parquet")):
            print(path.relative_to(folder))
        return same and sidecar.returncode == 0


def main() -> int:
    try:
        become_root()
        with tempfile.TemporaryDirectory(prefix="synfin-demo-") as folder:
            if _demo(Path(folder)):
                return 0
        print("The gauges and the kernel differ.")
    except NotAllowed as reason:
        print(f"demo-live cannot run here: {reason}")
        return 0
    except (Failed, RuntimeError) as reason:
        print(f"demo-live failed: {reason}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
