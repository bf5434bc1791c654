"""Writes docs/agreement.md: what the agreement suite found on the shared captures.

SYNFIN_CAPTURES=folder PYTHONPATH=tests:tests/kernel:tools python tests/agreement/write.py docs/agreement.md
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from containers import REASONS, cases, containers, hostile, reason
from netns import NotAllowed
from shared import flow_rows, zeek_traces
from suite import all_against_tcptrace, all_against_tshark
from third_opinion import SIZE, all_opinions
from zeek_borders import cut_by_zeek
from zeek_rows import EQUAL, columns, compare, verdict

from synfin.verify import tools
from synfin.verify.classes import UNEXPLAINED
from synfin.verify.join import TSHARK_COLUMNS, Joined
from synfin.verify.report import class_counts
from synfin.verify.tcptrace import COLUMNS as TCPTRACE_COLUMNS
from synfin.verify.tcptrace_classes import TCPTRACE_ARGUMENTS
from synfin.verify.tshark_classes import TSHARK_ARGUMENTS

HEAD = """# Agreement with other tools

What synfin's rows and other tools' figures of the same captures have in common, and why they differ where they do. Written by
the agreement suite (`make agreement`); repeat it on your own capture with

```console
synfin verify capture.pcap
```

A connection of one tool is matched with one of the other where both begin and end with the same packets and hold as many
each way. Counts, and the first and last instant, are compared as sums over the pair of ends, because tools cut one pair of ends
into connections in different places; everything else is compared between matched connections, each end for itself where it is
about an end.

A reason is a rule over packets: the packets on which the two differ are looked up one by one, and each must fit a class below.
What became of a packet in synfin is told by the slow tracker, which shares no code with the core. No class names a capture.
"""


def tshark_section(found: dict[str, Joined]) -> list[str]:
    total = total_of("tshark", found.values())
    captures = sum(bool(joined.others or joined.mine) for joined in found.values())
    return [
        f"\n## {tools.version(tools.TSHARK)}\n",
        counts_line(captures, total),
        *table(total, [column.name for column in TSHARK_COLUMNS]),
        "\nA difference may fall into several classes, one for each packet that it comes from. `border` counts pairs of ends that the "
        "two cut into connections in different places. Of the marks (the last five columns) each tool has its own definition.\n",
        *classes(total, TSHARK_ARGUMENTS),
    ]


def tcptrace_section(found: dict[str, Joined | str]) -> list[str]:
    read = [one for one in found.values() if isinstance(one, Joined)]
    total = total_of("tcptrace", read)
    refused = Counter(one for one in found.values() if isinstance(one, str))
    return [
        f"\n## {tools.version(tools.TCPTRACE)}\n",
        counts_line(len(read), total),
        *table(total, [column.name for column in TCPTRACE_COLUMNS]),
        "\n`rtt_syn` and the three after it are compared to a tenth of a millisecond, as tcptrace prints them; each is a round trip of "
        "what the end sent. tcptrace prints sums only: its rules are applied to the packets that it prints, and a difference in a "
        "count is explained only where they give its sum.\n",
        *classes(total, TCPTRACE_ARGUMENTS),
        "\nOf the other captures tcptrace gives nothing:\n",
        *(f"- {number}: {why}" for why, number in refused.most_common()),
    ]


def zeek_section() -> list[str]:
    """Zeek's own traces and the rows that its suite expects; there is no Zeek to run."""
    found = [
        (path, pair) for path, theirs in zeek_traces() for pair in compare(theirs, flow_rows(path), cut_by_zeek(path))
    ]
    counts = Counter(pair.why for _, pair in found)
    in_columns = Counter(item for _, pair in found if pair.why == EQUAL for item in columns(pair).items())
    names = list(dict.fromkeys(name for name, _ in in_columns))
    return [
        "\n## Zeek\n",
        f"{len({path for path, _ in found})} traces of Zeek's own test suite and the {len(found)} TCP rows that it expects of them. "
        "`zeek_conn_state` and `zeek_history` letter for letter:\n",
        "| rows | |",
        "| ---: | --- |",
        *(f"| {number} | {why} |" for why, number in counts.most_common()),
        "\nThe rows that are not equal, one by one:\n",
        "| trace | Zeek | synfin | why |",
        "| --- | --- | --- | --- |",
        *(
            f"| {path.name} | {pair.theirs['conn_state']} {pair.theirs['history']} | {' '.join(verdict(pair.ours) or ('',))} | {pair.why} |"
            for path, pair in found
            if pair.why != EQUAL
        ),
        "\nThe equal rows' further columns:\n",
        "| column | equal | for a reason |",
        "| --- | ---: | --- |",
        *(
            f"| {name} | {in_columns[name, EQUAL]} | "
            + ", ".join(f"{number}: {why}" for (one, why), number in in_columns.items() if one == name and why != EQUAL)
            + " |"
            for name in names
        ),
    ]


def kernel_section() -> list[str]:
    """Real transfers between two kernels: made afresh each time, so that the numbers are those of one run."""
    lines = [
        "\n## The kernel\n",
        f"A third opinion on resends, segments out of order and round trips: two Linux kernels in network namespaces, {SIZE:,} bytes "
        "from the client to the server over a wire that loses, delays or doubles about 3 % of the segments with payload. The tap "
        "stands beside one host and sees what that host sends and gets; the counters are that host's `nstat` and `ss -i`. "
        "`tests/kernel/third_opinion.py` repeats it; the numbers are those of one run.\n",
    ]
    try:
        found = all_opinions()
    except NotAllowed as reason:
        return [*lines, f"Not run here: {reason}."]
    return [
        *lines,
        "| wire | tap beside | counter | synfin | kernel | by the kernel's rule | |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
        *(
            f"| {one.trouble} | {one.tap} | {one.what} | {one.ours:,} | {one.kernel:,} | "
            f"{'' if one.by_its_rule is None else f'{one.by_its_rule:,}'} | {'' if one.agrees else '**differs** '}{one.why} |"
            for one in found
        ),
    ]


def containers_section() -> list[str]:
    """Which files both read, and why the others not."""
    found = cases()
    differing = Counter(reason(one) for one in found if not one.same())
    return [
        f"\n## {tools.version('capinfos') or 'capinfos'}\n",
        f"{len(hostile())} corrupt or odd files (`hostile/`) and {len(containers())} odd but sound ones (`format/`): "
        f"{len(found) - differing.total()} are read to their end by both, or both stop in them after as many packets. The others:\n",
        "| files | reason | |",
        "| ---: | --- | --- |",
        *(f"| {differing[name]} | `{name}` | {argument} |" for name, _, argument in REASONS if differing[name]),
        *(
            f"| {number} | `unexplained` | none of the rules above holds |"
            for name, number in differing.items()
            if name is None
        ),
    ]


def total_of(tool: str, found: Iterable[Joined]) -> Joined:
    total = Joined(tool)
    for joined in found:
        total.add(joined)
    return total


def counts_line(captures: int, total: Joined) -> str:
    unexplained = sum(not one.explained for one in total.differences)
    return (
        f"{captures} captures, {total.others:,} connections by {total.tool}, {total.mine:,} records by synfin, "
        f"{total.matched:,} matched. Differences: {len(total.differences):,}, unexplained: {unexplained}.\n"
    )


def table(total: Joined, names: list[str]) -> list[str]:
    counts = class_counts(total)
    lines = [
        "| column | compared | equal | differing | classes of the differences |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for name in [*names, "border"]:
        differing = sum(one.column == name for one in total.differences)
        if not total.compared[name] and not differing:
            continue
        ranked = sorted(((number, key[1]) for key, number in counts.items() if key[0] == name), reverse=True)
        named = ", ".join(f"`{one}` {number:,}" for number, one in ranked)
        shown = (f"{total.compared[name]:,}", f"{total.equal[name]:,}") if total.compared[name] else ("", "")
        lines.append(f"| {name} | {shown[0]} | {shown[1]} | {differing:,} | {named} |")
    return lines


def classes(total: Joined, arguments: dict[str, str]) -> list[str]:
    """Every reason that these captures show. Those that other captures may show stand in `synfin verify`'s code alone."""
    counts = class_counts(total)
    lines = ["| class | differences | argument |", "| --- | ---: | --- |"]
    for name, argument in [*arguments.items(), (UNEXPLAINED, "none of the rules above holds")]:
        number = sum(count for (_, one), count in counts.items() if one == name)
        if number:
            lines.append(f"| `{name}` | {number:,} | {argument} |")
    return lines


if __name__ == "__main__":
    sections = tshark_section(all_against_tshark()) + tcptrace_section(all_against_tcptrace()) + zeek_section()
    sections += kernel_section() + containers_section()
    Path(sys.argv[1]).write_text(HEAD + "\n".join(sections) + "\n", encoding="utf-8")
