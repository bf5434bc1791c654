"""The generated parts of docs/states.md: what states.py declares, as a diagram, a list of arrows and the whole matrix."""

from __future__ import annotations

from synfin import states
from synfin.schema import STATES

#: What one sees pass for each event.
_EVENT_TEXT = {
    "SND_RST": "the end, having opened actively, sent an accepted RST",
    "SND_RST_PASSIVE": "the same after a passive open",
    "RCV_RST": "an accepted RST passed towards the end, which had opened actively",
    "RCV_RST_PASSIVE": "the same after a passive open",
    "SND_SYN": "the end sent a SYN",
    "SND_SYNACK": "the end sent a SYN-ACK",
    "SND_ACK_OF_SYN": "the end acknowledged the peer's SYN",
    "SND_ACK_OF_FIN": "the end acknowledged the peer's FIN",
    "SND_FIN": "the end sent a FIN",
    "RCV_ACK_OF_SYN": "the peer's highest ACK covers the end's SYN",
    "RCV_ACK_OF_FIN": "the peer's highest ACK covers the end's FIN",
    "TIME_2MSL": "the deadline of TIME-WAIT is reached (`--time-wait`)",
}


def diagram() -> str:
    """The arrows that are taken, as a Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f'    state "{state}" as {_id(state)}' for state in STATES]
    lines += [
        f"    {_id(arrow.source)} --> {_id(arrow.target)}: {arrow.number} {_short(arrow.event)}"
        for arrow in states.FIGURE_5
        if arrow.event
    ]
    return "\n".join([*lines, "```"])


def arrows() -> str:
    """The twenty arrows of Figure 5, each with the segment that shows it."""
    lines = [
        "| arrow | from | label in Figure 5 | to | shown by | event | RFC 9293 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arrow in states.FIGURE_5:
        shown = arrow.remark if arrow.event else f"never taken: {arrow.remark}"
        event = f"`{arrow.event}`" if arrow.event else ""
        lines.append(
            f"| {arrow.number} | {arrow.source} | {arrow.label} | {arrow.target} | {shown} | {event} | {arrow.section} |"
        )
    return "\n".join(lines)


def events() -> str:
    """What raises each event."""
    lines = ["| event | raised when |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| `{event}` | {_EVENT_TEXT[event]} |" for event in states.EVENTS)])


def matrix() -> str:
    """Every cell: the next state, `·` for stay, `odd`."""
    cells = states.matrix()
    lines = [
        "| state \\ event | " + " | ".join(f"`{event}`" for event in states.EVENTS) + " |",
        "| --- |" + " --- |" * len(states.EVENTS),
    ]
    for column, state in enumerate(STATES):
        row = [_cell(cells[k * len(STATES) + column]) for k in range(len(states.EVENTS))]
        lines.append(f"| **{state}** | " + " | ".join(row) + " |")
    moves = sum(cell < states.STAY for cell in cells)
    stays, odd = cells.count(states.STAY), cells.count(states.ODD)
    counted = f"{len(cells)} cells: {moves} moves, {stays} stay, {odd} odd."
    return "\n".join([*lines, "", counted])


def _cell(code: int) -> str:
    return {states.STAY: "·", states.ODD: "odd"}.get(code) or STATES[code]


def _id(state: str) -> str:
    return state.replace("-", "_")


def _short(event: str | None) -> str:
    return (event or "").replace("_", " ").lower()
