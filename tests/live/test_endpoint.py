"""The HTTP endpoint: what it answers to clients who mean well."""

from __future__ import annotations

import io
import socket
import threading
import time
from email.utils import parsedate_to_datetime

import pytest
from asking import Numbered, connected, descriptors, get, serving
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_client.registry import Collector

from synfin.errors import ConfigError
from synfin.sidecar import endpoint as module
from synfin.sidecar.endpoint import Endpoint
from synfin.sidecar.logs import Logs

#: What Prometheus 2.42 and 3.5 send.
PROMETHEUS_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def test_metrics_and_those_of_the_process():
    with serving() as endpoint:
        status, headers, body = get(endpoint)
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert int(headers["content-length"]) == len(body) and headers["connection"] == "close"
    assert abs(parsedate_to_datetime(headers["date"]).timestamp() - time.time()) < 60
    names = {family.name for family in read_text(body.decode())}
    assert {"synfin_test", "process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"} <= names


@pytest.mark.parametrize("accept", [PROMETHEUS_2, PROMETHEUS_3])
def test_prometheus_gets_openmetrics(accept):
    with serving() as endpoint:
        status, headers, body = get(endpoint, headers=f"accept: {accept}\r\n")
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert "synfin_test" in {family.name for family in read_openmetrics(body.decode())}


def test_accept_may_stand_in_several_fields():
    with serving() as endpoint:
        _, headers, _ = get(
            endpoint, headers="Accept: text/html\r\nACCEPT:application/openmetrics-text;version=1.0.0\r\n"
        )
    assert headers["content-type"].startswith("application/openmetrics-text")


def test_health_and_readiness_say_why_not():
    state = {"health": (True, "alive"), "ready": (False, "rows cannot be written")}
    with serving(health=lambda: state["health"], ready=lambda: state["ready"]) as endpoint:
        assert (get(endpoint, "/healthz")[0], get(endpoint, "/healthz")[2]) == (200, b"alive\n")
        assert (get(endpoint, "/readyz")[0], get(endpoint, "/readyz")[2]) == (503, b"rows cannot be written\n")
        state["health"] = False, "worker 0 has not moved for 12 s"
        assert get(endpoint, "/healthz?verbose=1")[0] == 503


def test_head_has_no_body_and_says_how_long_it_is():
    with serving() as endpoint:
        full, (status, headers, body) = get(endpoint, "/healthz"), get(endpoint, "/healthz", method="HEAD")
    assert (status, body, headers["content-length"]) == (200, b"", full[1]["content-length"])


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("GET / HTTP/1.1", 404), ("GET /metrics/ HTTP/1.1", 404), ("GET /../metrics HTTP/1.1", 404),
     ("POST /metrics HTTP/1.1", 405), ("DELETE /healthz HTTP/1.1", 405), ("GET /metrics", 400),
     ("GET /metrics HTTP/2.0", 400), ("GET  HTTP/1.1", 400), ("GET /metrics HTTP/1.0", 200)],
)  # fmt: skip
def test_other_requests(request_line, status):
    method, _, rest = request_line.partition(" ")
    with serving() as endpoint, connected(endpoint) as sock:
        sock.sendall(f"{method} {rest}\r\n\r\n".encode())
        line = sock.makefile("rb").readline()
    assert int(line.split()[1]) == status


def test_a_request_may_come_in_pieces():
    with serving() as endpoint, connected(endpoint) as sock:
        for piece in (b"GET /hea", b"lthz HTTP/1.1\r\nHo", b"st: x\r", b"\n\r", b"\n"):
            sock.sendall(piece)
            time.sleep(0.02)
        assert sock.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


def test_metrics_are_made_anew_only_after_a_while(monkeypatch):
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.3)
    collector = Numbered()
    with serving(collector) as endpoint:
        first = get(endpoint)[2]
        assert get(endpoint)[2] == first and collector.asked == 1
        time.sleep(0.35)
        assert get(endpoint)[2] != first and collector.asked == 2


def test_there_are_two_formats(monkeypatch):
    """Whatever versions and escapings clients name."""
    monkeypatch.setattr(module, "FRESH_SECONDS", 60)
    openmetrics, plain = "application/openmetrics-text;version=", "text/plain;version="
    collector = Numbered()
    with serving(collector) as endpoint:
        for escaping in ("", ";escaping=allow-utf-8", ";escaping=dots", ";escaping=values", ";escaping=x"):
            for version in ("1.0.0", "1.0.1", "2.0.0", "9.9.9rc1"):
                _, headers, body = get(endpoint, headers=f"Accept: {openmetrics}{version}{escaping}\r\n")
                assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
                assert body.endswith(b"# EOF\n")
                _, headers, body = get(endpoint, headers=f"Accept: {plain}{version}{escaping}\r\n")
                assert headers["content-type"].startswith("text/plain; version=0.0.4")
                assert not body.endswith(b"# EOF\n")
        for nonsense in (f"{openmetrics}x", f"{plain}x", f"{openmetrics}1.0.0\xe9", "text/html", "*/*", ""):
            assert get(endpoint, headers=f"Accept: {nonsense}\r\n")[0] == 200
    assert collector.asked == 2


class Broken(Collector):
    """Fails while `wrong`."""

    wrong = True

    def collect(self):
        if self.wrong:
            raise RuntimeError("no such figure")
        yield from Numbered().collect()


def test_a_scrape_that_fails_is_told_and_the_next_one_works():
    stream, collector = io.StringIO(), Broken()

    def unwell():
        raise RuntimeError("cannot say")

    with serving(collector, health=unwell, logs=Logs("json", stream)) as endpoint:
        assert get(endpoint)[0] == 500
        assert get(endpoint, "/healthz")[0] == 503
        collector.wrong = False
        assert get(endpoint)[0] == 200
    lines = stream.getvalue().splitlines()
    assert ["scrape_failed" in lines[0], "health_failed" in lines[1], len(lines)] == [True, True, 2]
    assert "127.0.0.1" not in stream.getvalue()  # nor who asked


def test_a_taken_port_is_one_clear_line():
    with serving() as endpoint:
        with pytest.raises(ConfigError) as refused:
            Endpoint("127.0.0.1", endpoint.port, Numbered(), lambda: (True, ""), lambda: (True, ""))
        assert (
            str(refused.value) == f"cannot serve metrics on 127.0.0.1:{endpoint.port}: it is taken; choose another port"
        )
        assert get(endpoint)[0] == 200


def test_an_address_of_somebody_else_is_one_clear_line():
    with pytest.raises(ConfigError) as refused:
        Endpoint("192.0.2.77", 9100, Numbered(), lambda: (True, ""), lambda: (True, ""))
    assert str(refused.value) == "cannot serve metrics on 192.0.2.77:9100: Cannot assign requested address"


def test_it_listens_where_it_was_told_and_nowhere_else():
    with serving() as endpoint:
        assert endpoint.address == "127.0.0.1"
        with socket.socket() as other:
            other.bind(("127.0.0.2", endpoint.port))  # not taken
    everywhere = Endpoint("", 0, Numbered(), lambda: (True, "alive"), lambda: (True, ""))
    everywhere.start()
    try:
        with socket.create_connection(("127.0.0.2", everywhere.port), 5) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert sock.makefile("rb").readline().split()[1] == b"200"
    finally:
        everywhere.close()


def test_closing_frees_the_port_the_thread_and_all_descriptors():
    before, threads = descriptors(), threading.active_count()
    with serving() as endpoint, connected(endpoint), connected(endpoint) as waiting:
        waiting.sendall(b"GET /met")
        get(endpoint)
        port = endpoint.port
        assert threading.active_count() == threads + 1  # one for all clients
        endpoint.close()
        endpoint.close = lambda: None
    assert (descriptors(), threading.active_count()) == (before, threads)
    Endpoint("127.0.0.1", port, Numbered(), lambda: (True, ""), lambda: (True, "")).close()  # never started
    assert descriptors() == before
