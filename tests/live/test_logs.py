"""The log of a live run."""

from __future__ import annotations

import io
import json
import threading
from datetime import datetime

import pytest

from synfin.sidecar.logs import BURST, WINDOW_SECONDS, Logs

NOON = 1_782_907_200.25  # 2026-07-01T12:00:00.250Z, by `date`


class Clocked:
    """A log with a clock that a test moves."""

    def __init__(self, format: str = "json"):
        self.clock = 1000.0
        self.stream = io.StringIO()
        self.logs = Logs(format, self.stream, now=lambda: NOON, monotonic=lambda: self.clock)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.lines]


def test_json_lines():
    log = Clocked()
    log.logs.warning("ring_full", interface="tap0", drops=12, share=0.5, first=True, error=None)
    assert log.lines == [
        '{"time": "2026-07-01T12:00:00.250Z", "level": "warning", "event": "ring_full", "interface": "tap0", '
        '"drops": 12, "share": 0.5, "first": true, "error": null}'
    ]


def test_text_lines():
    log = Clocked("text")
    log.logs.info("output_rolled", table="flows", rows=7)
    log.logs.error(
        "output_failed", reason='No "space" left\nhere\x1b[31m', path="/r\u00e9sum\u00e9", empty="", known=False
    )
    assert log.lines == [
        "2026-07-01T12:00:00.250Z info output_rolled table=flows rows=7",
        '2026-07-01T12:00:00.250Z error output_failed reason="No \\"space\\" left\\nhere\\u001b[31m" '
        'path="/r\\u00e9sum\\u00e9" empty="" known=false',
    ]


@pytest.mark.parametrize("text", ["a\nb", "\x1b]0;x\x07", "\u2028", "\u202e", "a=b", "\ud800", '"', "\\"])
@pytest.mark.parametrize("format", ["text", "json"])
def test_a_field_never_breaks_a_line(format, text):
    log = Clocked(format)
    log.logs.info("event", value=text)
    written = log.stream.getvalue()
    assert written.count("\n") == 1 and written.endswith("\n")
    assert written[:-1].isascii() and written[:-1].isprintable()


def test_a_field_cannot_replace_what_the_line_says():
    log = Clocked()
    log.logs.info("event", time="never", level="fatal")
    assert (log.events[0]["level"], log.events[0]["time"]) == ("info", "2026-07-01T12:00:00.250Z")


def test_each_event_has_its_own_limit_and_nothing_is_lost_unsaid():
    log = Clocked()
    for number in range(BURST + 25):
        log.logs.warning("often", number=number)
    log.logs.info("rare")
    assert [event.get("number") for event in log.events] == [*range(BURST), None]
    log.clock += WINDOW_SECONDS
    log.logs.warning("often", number="again")
    assert log.events[-2:] == [
        {"time": "2026-07-01T12:00:00.250Z", "level": "warning", "event": "often", "suppressed": 25},
        {"time": "2026-07-01T12:00:00.250Z", "level": "warning", "event": "often", "number": "again"},
    ]


def test_what_was_suppressed_is_told_without_another_event():
    log = Clocked()
    for _ in range(BURST + 3):
        log.logs.error("often")
    log.clock += WINDOW_SECONDS - 1
    log.logs.tick()
    assert len(log.lines) == BURST
    log.clock += 1
    log.logs.tick()
    log.logs.tick()
    assert [event["suppressed"] for event in log.events[BURST:]] == [3]


def test_closing_tells_what_is_left():
    log = Clocked()
    for _ in range(BURST + 2):
        log.logs.info("often")
    log.logs.close()
    log.logs.close()
    assert [event["suppressed"] for event in log.events[BURST:]] == [2]
    assert not log.stream.closed


def test_threads_do_not_mix_lines_and_all_is_counted():
    log = Clocked()
    threads = [
        threading.Thread(target=lambda: [log.logs.info("busy", text="x" * 200) for _ in range(200)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.logs.close()
    assert len(log.events) == BURST + 1
    assert log.events[-1]["suppressed"] == 8 * 200 - BURST


@pytest.mark.parametrize("trouble", ["closed", "broken"])
def test_a_stream_that_is_gone_troubles_nobody(trouble):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    stream = Broken() if trouble == "broken" else io.StringIO()
    if trouble == "closed":
        stream.close()
    Logs("text", stream).error("event")


def test_instants_are_utc_and_of_now(capsys):
    Logs().info("event")
    line = capsys.readouterr().err.split()
    assert abs(datetime.fromisoformat(line[0]).timestamp() - datetime.now().timestamp()) < 5
    assert line[0].endswith("Z") and line[1:] == ["info", "event"]


def test_a_format_that_does_not_exist():
    with pytest.raises(ValueError, match="xml"):
        Logs("xml")
