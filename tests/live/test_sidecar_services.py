"""`synfin live` by service and by client on a real interface: rows while it runs, and metrics of the services that are listed."""

from __future__ import annotations

import re
import socket
from collections import defaultdict

import pytest
from processes import end, sidecar, stored, until

from dialogue import Dialogue

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]

PORT = 9108
TOP = 2
#: Connections of each service; of the last one the SYN is all that there is.
TALK = {("10.0.0.2", 80): 40, ("10.0.0.3", 443): 25, ("10.0.0.4", 22): 10, ("10.0.0.5", 23): 5}
LISTED = {"10.0.0.2:80": 40, "10.0.0.4:22": 10, "[2001:db8::1]:443": 0}
SUMMED = ("packets", "ip_bytes", "syns", "synacks", "completed", "established", "syn_sent", "connections", "opening")


def dialogues():
    for (ip, port), count in TALK.items():
        for number in range(count):
            d = Dialogue(a_ip=f"10.1.0.{1 + number % 7}", a_port=20_000 + number, b_ip=ip, b_port=port)
            if port == 23:
                d.syn(d.a)
            else:
                d.handshake()
            yield d


def scrape(namespace):
    """Samples of a scrape by name and labels."""
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(("127.0.0.1", PORT))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    return text, dict(re.findall(r"^(synfin_\S+) (\S+)$", text, re.MULTILINE))


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_and_metrics(cable, tmp_path, workers):
    left, right = cable
    right.ip("link set lo up")
    out, file = tmp_path / "rows", tmp_path / "synfin.toml"
    file.write_text(
        f'interfaces = ["vb"]\nworkers = {workers}\noutput = "{out}"\nroll = "1s"\ntop = {TOP}\n'
        f'by = ["service", "client"]\nmetrics = {PORT}\nservices = {list(LISTED)}\n'
    )
    with sidecar(right, tmp_path, "--config", file) as (process, _):
        with left.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            sender.bind(("va", 0))
            for d in dialogues():
                for packet in d.packets:
                    sender.send(packet.data)
        name = 'synfin_service_connections{service="10.0.0.4:22"}'
        until(lambda: float(scrape(right)[1].get(name, 0)) == 10, "ten connections of a listed service")
        text, told = scrape(right)
        for service, count in LISTED.items():
            assert float(told[f'synfin_service_connections{{service="{service}"}}']) == count
            assert float(told[f'synfin_service_ends{{service="{service}",state="ESTABLISHED"}}']) == 2 * count
            assert float(told[f'synfin_service_syns_total{{service="{service}"}}']) == count
            assert float(told[f'synfin_service_packets_total{{service="{service}"}}']) == 3 * count
        assert set(re.findall(r"\d+\.\d+\.\d+\.\d+(?::\d+)?", text)) == {"10.0.0.2:80", "10.0.0.4:22"}
        until(lambda: stored(out, "services") and stored(out, "clients"), "rows by key while it runs")
        code, _, err = end(process)
        assert (code, err) == (0, "")
    check(stored(out, "intervals"), stored(out, "services"), stored(out, "clients"))


def check(intervals, services, clients):
    """Rows by key sum to the interval table, are ranked, and hold no more keys than asked for."""
    assert sum(row["syns"] for row in intervals) == sum(TALK.values())
    for rows, column in ((services, "server_ip"), (clients, "client_ip")):
        by_start = defaultdict(list)
        for row in rows:
            by_start[row["interval_start"]].append(row)
        assert set(by_start) == {row["interval_start"] for row in intervals}
        for interval in intervals:
            found = by_start[interval["interval_start"]]
            for name in SUMMED:
                assert sum(row[name] for row in found) == interval[name], (column, name)
            named = [row for row in found if row[column] != "other"]
            assert len(named) <= TOP and len(found) - len(named) <= 1
            ranks = [row["syns"] + row["connections"] for row in named]
            assert ranks == sorted(ranks, reverse=True)
    last = [row for row in services if row["interval_start"] == max(row["interval_start"] for row in services)]
    told = {(row["server_ip"], row["server_port"]): row["connections"] for row in last}
    assert told == {("10.0.0.2", 80): 40, ("10.0.0.3", 443): 25, ("other", None): 15}
