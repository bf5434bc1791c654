"""Writes docs/agreement.md: what the agreement suite found on the shared captures.

SYNFIN_CAPTURES=folder python tests/agreement/write.py docs/agreement.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from suite import all_against_tshark

from synfin.verify import tools
from synfin.verify.classes import ARGUMENTS
from synfin.verify.explain import UNEXPLAINED
from synfin.verify.join import TSHARK_COLUMNS, Joined
from synfin.verify.report import class_counts

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
    total = Joined("tshark")
    for joined in found.values():
        total.add(joined)
    counts = class_counts(total)
    captures = sum(bool(joined.others or joined.mine) for joined in found.values())
    unexplained = sum(not one.explained for one in total.differences)
    lines = [
        f"\n## {tools.version('tshark')}\n",
        f"{captures} captures, {total.others:,} streams by tshark, {total.mine:,} records by synfin, {total.matched:,} matched. "
        f"Differences: {len(total.differences):,}, unexplained: {unexplained}.\n",
        "| column | compared | equal | differing | classes of the differences |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for name in [*(column.name for column in TSHARK_COLUMNS), "border"]:
        differing = sum(one.column == name for one in total.differences)
        if not total.compared[name] and not differing:
            continue
        classes = sorted(((number, key[1]) for key, number in counts.items() if key[0] == name), reverse=True)
        named = ", ".join(f"`{one}` {number:,}" for number, one in classes)
        shown = (f"{total.compared[name]:,}", f"{total.equal[name]:,}") if total.compared[name] else ("", "")
        lines.append(f"| {name} | {shown[0]} | {shown[1]} | {differing:,} | {named} |")
    lines += [
        "\nA difference may fall into several classes, one for each packet that it comes from. `border` counts pairs of ends that the "
        "two cut into connections in different places. Of the marks (the last five columns) each tool has its own definition.\n",
        "### Classes\n",
        "| class | differences | argument |",
        "| --- | ---: | --- |",
    ]
    for name, argument in ARGUMENTS.items():
        number = sum(count for (_, one), count in counts.items() if one == name)
        lines.append(f"| `{name}` | {number:,} | {argument} |")
    if unexplained:
        lines.append(f"| `{UNEXPLAINED}` | {unexplained} | none of the rules above holds |")
    return lines


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(HEAD + "\n".join(tshark_section(all_against_tshark())) + "\n", encoding="utf-8")
