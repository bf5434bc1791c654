"""Record examples/: small captures of real Linux kernels talking, and what is known to be true of each.

Run ``python tools/record_examples.py [FOLDER]`` as root, or where user namespaces are allowed. It needs iproute2 and
takes about a minute and a half: the last scene begins more than 75 s after the first ones, so that their attempts have
run out when the whole folder is read as one set. Writes the captures, README.md and expect.jsonl. Exit status 3 with
one line of reason where namespaces are not allowed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import scenes_closing
import scenes_data
import scenes_opening
from hosts import Hosts
from netns import Ends, Namespace, NotAllowed, become_root
from scene import Missed, Row, Scene
from wire import write_pcap, write_pcapng_gz

# The attempts come first, so that they have run out when the last scene begins.
_SCENES = (*scenes_opening.SCENES, *scenes_data.SCENES, *scenes_closing.SCENES)
_TRIES = 3
_SPAN_S = 86.0  # the first three scenes, the deadline of an attempt (75 s) and the second that timers wait
_COUNTERS = (
    "TcpActiveOpens", "TcpPassiveOpens", "TcpAttemptFails", "TcpEstabResets", "TcpRetransSegs", "TcpOutRsts",
)  # fmt: skip


def _with_states(scene_row: Row, kernel: dict[str, dict[Ends, str]], hosts: Hosts) -> Row:
    """A scene's row with addresses, and the states that ``ss`` printed; None in the scene leaves a state out."""
    full = {"client_ip": hosts.client_ip, "server_ip": hosts.server_ip, **scene_row}
    ends = {"client": Ends(full["client_port"], full["server_port"])}
    ends["server"] = Ends(ends["client"].peer, ends["client"].local)
    for side, end in ends.items():
        column = f"{side}_state"
        if column in full:
            if full[column] is None:
                del full[column]
            continue
        # A socket that is gone is CLOSED; where only a listener was involved, that end may be said to be in LISTEN.
        without = "CLOSED" if side == "client" or full["handshake"] == "complete" else {"in": ["CLOSED", "LISTEN"]}
        full[column] = kernel[side].get(end, without)
    waiting = [side for side in ends if full.get(f"{side}_state") == "TIME-WAIT"]
    if "time_wait_side" not in full and "client_state" in full:
        full["time_wait_side"] = "both" if len(waiting) == 2 else (waiting or [None])[0]
    if full["handshake"] == "complete" and full.get("syn_count") == full.get("synack_count") == 1:
        full |= _round_trip(hosts)
    return full


def _round_trip(hosts: Hosts) -> Row:
    """The handshake's round trip through the wire's delay, on the side of the tap that the wire is on."""
    far = "server" if hosts.tap == "client" else "client"
    # 2 % less than the delay: the wire waits by the monotonic clock, the stamps come from the settable one.
    return {f"rtt_{far}_ns": {"min": int(2 * hosts.delay * 0.98e9)}}


def _seen_whole(hosts: Hosts, side: str) -> bool:
    """Whether each segment of a host passed the tap exactly once, so that its kernel's counters are those of the tap."""
    lost = any(segment.sender == side for segment in hosts.wire.dropped) and side != hosts.tap
    return not lost and not any(rule.copies for rule in hosts.wire.rules if rule.sender == side)


def _record(scene: Scene, number: int, folder: Path) -> dict[str, Any]:
    """Play one scene and write its capture; what is true of it. Raises Missed after three tries."""
    for left in reversed(range(_TRIES)):
        with Hosts(number, ipv6=scene.ipv6, delay=scene.delay, tap=scene.tap) as hosts:
            try:
                rows = scene.play(hosts)
                hosts.wire.settle()
                kernel = hosts.states()
                counters = {side: getattr(hosts, side).counters() for side in ("client", "server")}
                hosts.wire.close()
            except (Missed, TimeoutError) as reason:
                if not left:
                    raise Missed(f"{scene.name}: {reason}") from None
                continue
            name = f"{number:02d}-{scene.name}.{scene.suffix}"
            if scene.suffix == "pcap":
                write_pcap(folder / name, hosts.wire.packets)
            else:
                write_pcapng_gz(folder / name, hosts.wire.packets, "eth0")
            return {
                "capture": name,
                "packets": len(hosts.wire.packets),
                "seen_whole": [side for side in ("client", "server") if _seen_whole(hosts, side)],
                "rows": [_with_states(row, kernel, hosts) for row in rows],
                "ss": {side: sorted(states.values()) for side, states in kernel.items()},
                "nstat": {side: {key: values[key] for key in _COUNTERS} for side, values in counters.items()},
            }
    raise AssertionError("not reached")


def _readme(scenes: list[tuple[Scene, dict[str, Any]]]) -> str:
    """The text of examples/README.md."""
    release = ".".join(os.uname().release.split("-")[0].split(".")[:2])
    lines = [
        "# Examples",
        "",
        f"Small captures of a Linux {release} kernel talking to itself: two network namespaces, real sockets, and between",
        "them a wire that can lose and delay. Recorded by `make examples` (`tools/record_examples.py`; needs root or user",
        "namespaces). Every capture shows one thing. `expect.jsonl` says what is true of each, as data: what the script did,",
        "the states that `ss` printed on both hosts at the end (`ss`), and the counters of `nstat` (`nstat`). The tests",
        "compare synfin with it.",
        "",
        "The client of capture 01 is 10.20.0.101, and so on (2001:db8:20::112 in capture 12); the server is 10.20.0.80",
        "(2001:db8:20::80). Recorded next to the client unless said otherwise. ARP and neighbour discovery are in the",
        "captures as they happened.",
        "",
        "| capture | what was done | what it shows | states by `ss` (client / server) |",
        "| --- | --- | --- | --- |",
    ]
    for scene, truth in scenes:
        states = " / ".join(_counted(truth["ss"][side]) for side in ("client", "server"))
        lines.append(f"| {truth['capture']} | {scene.done} | {scene.shows} | {states} |")
    lines += [
        "",
        'In `expect.jsonl` a column\'s value is the value itself, `{"min": n}` (at least) or `{"in": [...]}` (one of).',
        "`in_set` holds what differs when the whole folder is read as one set: the last scene begins more than 75 s after",
        "the first ones, so the attempts that are still open at the end of their own capture have run out by then.",
        "`seen_whole` names the hosts whose segments passed the tap exactly once each.",
    ]
    return "\n".join(lines) + "\n"


def _counted(states: list[str]) -> str:
    """States as `12 x TIME-WAIT`, or `none`."""
    parts = [
        f"{states.count(state)} x {state}" if states.count(state) > 1 else state for state in dict.fromkeys(states)
    ]
    return ", ".join(parts) or "none"


def record(folder: Path) -> None:
    """Record every scene into ``folder``, replacing what an earlier run wrote. Raises NotAllowed or Missed."""
    with Namespace():
        pass  # asks for permission before anything is touched
    started = time.monotonic()
    played = []
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        for number, scene in enumerate(_SCENES, 1):
            if number == len(_SCENES):
                time.sleep(max(0.0, _SPAN_S - (time.monotonic() - started)))
            truth = _record(scene, number, Path(aside))
            played.append((scene, truth))
            print(f"{truth['capture']}: {truth['packets']} packets")
        Path(aside, "expect.jsonl").write_text("".join(json.dumps(truth) + "\n" for _, truth in played))
        Path(aside, "README.md").write_text(_readme(played))
        for old in [*folder.glob("[0-9][0-9]-*.pcap"), *folder.glob("[0-9][0-9]-*.pcapng.gz")]:
            old.unlink()
        for new in sorted(Path(aside).iterdir()):
            new.rename(folder / new.name)


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "examples"
    try:
        become_root()
        folder.mkdir(parents=True, exist_ok=True)
        record(folder)
    except NotAllowed as reason:
        print(f"record_examples: {reason}", file=sys.stderr)
        return 3
    except (Missed, OSError, RuntimeError) as reason:
        print(f"record_examples: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as for Ctrl-C
    sys.exit(main())
