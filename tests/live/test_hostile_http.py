"""The endpoint and clients that mean ill, or know no better: it goes on answering, in bounded time, threads and memory."""

from __future__ import annotations

import os
import random
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from asking import Numbered, connected, descriptors, exchange, get, serving

from synfin.sidecar import endpoint as module

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"


def cpu_seconds(thread: threading.Thread) -> float:
    """Processor time of a thread so far."""
    with open(f"/proc/self/task/{thread.native_id}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds_of_a_scrape(endpoint) -> float:
    begun = time.monotonic()
    assert get(endpoint)[0] == 200
    return time.monotonic() - begun


def wait_until(true, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_garbage_is_refused_and_the_next_scrape_answered():
    chance = random.Random(7)
    samples = [b"\0" * 100, b"\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET /metrics\r\n\r\n",
               b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\xff\xfe / HTTP/1.1\r\n\r\n", b"GET /metrics HTTP/1.1\n\n"]  # fmt: skip
    samples += [chance.randbytes(chance.randrange(1, 3000)) + b"\r\n\r\n" for _ in range(100)]
    with serving() as endpoint:
        for sample in samples:
            with connected(endpoint) as sock:
                sock.sendall(sample)
                sock.shutdown(socket.SHUT_WR)
                reply = sock.makefile("rb").readline()
            assert reply in (b"", b"HTTP/1.1 400 Bad Request\r\n", b"HTTP/1.1 405 Method Not Allowed\r\n"), sample
        assert get(endpoint)[0] == 200


def test_hostile_accept_fields_harm_nobody():
    chance = random.Random(11)
    fields = [
        "application/openmetrics-text;version=" + "9" * 5000,
        "application/openmetrics-text;version=1.0.0\x01\x7f",
        "application/openmetrics-text;version=1.0.0\rX-Injected: yes",
        "application/openmetrics-text;version=1.0.0\u00e9;escaping=\u00e9",
        "application/openmetrics-text;version=...;;;===,,,",
        "text/plain;version=-1;escaping=" + "x" * 9000,
        "," * 15000,
        "application/openmetrics-text;version=1.0.0;escaping=dots",
        "application/openmetrics-text;version=1e400;escaping=values",
        *("".join(chance.choices("application/openmetrics-text;version=1.0,\t\"'()", k=400)) for _ in range(50)),
    ]
    with serving() as endpoint:
        for field in fields:
            reply = exchange(endpoint, b"GET /metrics HTTP/1.1\r\nAccept: " + field.encode("latin-1") + b"\r\n\r\n")
            head = reply.partition(b"\r\n\r\n")[0]
            assert head.startswith(b"HTTP/1.1 200 OK\r\n"), field
            assert b"\r" not in head.replace(b"\r\n", b"") and b"Injected" not in head.replace(
                b"version=1.0.0\rX-Injected", b""
            )
            assert head.count(b"\r\n") == 4
        assert get(endpoint)[0] == 200


def test_a_request_without_end_is_cut_off():
    with serving() as endpoint:
        begun = time.monotonic()
        reply = exchange(endpoint, b"GET /metrics HTTP/1.1\r\n" + b"X-Much: " + b"a" * (4 << 20))
        assert reply == b"" or reply.startswith(b"HTTP/1.1 431 ")  # a reset may overtake the answer
        small = exchange(endpoint, b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * (module.REQUEST_BYTES // 6))
        assert small.startswith(b"HTTP/1.1 431 ")
        assert time.monotonic() - begun < module.REQUEST_SECONDS
        assert get(endpoint)[0] == 200


def test_crumbs_are_cut_off(monkeypatch):
    """By their number, long before there are too many bytes or too much time has passed; some arrive as one."""
    monkeypatch.setattr(module, "REQUEST_SECONDS", 600.0)
    with serving() as endpoint, connected(endpoint) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(module.REQUEST_BYTES // 2):
                sock.sendall(b"x")
                time.sleep(0.005)
        assert get(endpoint)[0] == 200


def test_slow_clients_lose_their_places_and_a_scrape_is_answered(monkeypatch):
    monkeypatch.setattr(module, "REQUEST_SECONDS", 1.5)
    with serving() as endpoint, ExitStack() as held:
        before = descriptors()
        slow = [held.enter_context(connected(endpoint)) for _ in range(3 * module.MOST_CLIENTS)]
        for sock in slow:
            sock.setblocking(False)
        for _ in range(3):
            for sock in slow:
                with suppress(OSError):
                    sock.send(b"G")
            assert seconds_of_a_scrape(endpoint) < 5  # half of Prometheus's patience
        # The endpoint's own descriptors: no more than its places.
        assert descriptors() - before - len(slow) <= module.MOST_CLIENTS
        wait_until(lambda: descriptors() <= before + len(slow), 60)


def test_clients_that_never_read_lose_their_places(monkeypatch):
    monkeypatch.setattr(module, "REPLY_SECONDS", 5.0)
    with serving(Numbered(lines=1000, width=8000)) as endpoint, ExitStack() as held:
        assert len(get(endpoint)[2]) > 7 << 20  # more than a socket's buffers hold
        before = descriptors()
        deaf = []
        for _ in range(20):
            sock = held.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((endpoint.address, endpoint.port))
            sock.sendall(SCRAPE)
            deaf.append(sock)
        assert get(endpoint, "/healthz")[0] == 200
        wait_until(lambda: descriptors() >= before + len(deaf) + 10, 20)  # the endpoint waits for readers
        wait_until(lambda: descriptors() <= before + len(deaf), 60)
        assert get(endpoint)[0] == 200


def test_clients_who_leave_at_once():
    with serving(Numbered(lines=10_000)) as endpoint:
        before = descriptors()
        for _ in range(100):
            with connected(endpoint) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
                sock.sendall(SCRAPE)
        wait_until(lambda: descriptors() <= before, 60)
        assert get(endpoint)[0] == 200


def test_a_storm_of_scrapes_costs_a_bounded_share():
    collector = Numbered(lines=300)
    with serving(collector) as endpoint:
        begun, used = time.monotonic(), cpu_seconds(endpoint._thread)
        threads = threading.active_count()
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: get(endpoint)[0], range(400)))
        took = time.monotonic() - begun
        assert set(results) == {200}
        assert threading.active_count() <= threads
        # Connections a second, a first slot's more; and metrics made.
        assert took >= (400 / module.ACCEPTS_A_SECOND) - 2 * module._SLOT
        assert collector.asked <= took / module.FRESH_SECONDS + 2
        assert cpu_seconds(endpoint._thread) - used < 0.5 * took


def test_formats_that_clients_make_up_are_not_made_for_them():
    collector = Numbered()
    with serving(collector) as endpoint:
        begun = time.monotonic()
        for number in range(100):
            status, _, _ = get(endpoint, headers=f"Accept: application/openmetrics-text;version=1.0.{number}\r\n")
            assert status == 200
        rounds = (time.monotonic() - begun) / module.FRESH_SECONDS + 1
        assert collector.asked <= rounds


def test_without_descriptors_it_waits_and_does_not_spin():
    with serving() as endpoint, ExitStack() as held:
        old = resource.getrlimit(resource.RLIMIT_NOFILE)
        client = held.enter_context(socket.socket())
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, old[1]))
        try:
            while True:
                try:
                    taken.append(os.dup(client.fileno()))
                except OSError:
                    break
            client.settimeout(20)
            client.connect((endpoint.address, endpoint.port))
            client.sendall(SCRAPE)
            time.sleep(1)
        finally:
            for number in taken:
                os.close(number)
            resource.setrlimit(resource.RLIMIT_NOFILE, old)
        assert cpu_seconds(endpoint._thread) < 0.4
        assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


def test_an_idle_endpoint_sleeps():
    with serving() as endpoint:
        get(endpoint)
        used = cpu_seconds(endpoint._thread)
        time.sleep(1)
        assert cpu_seconds(endpoint._thread) - used <= 0.05
