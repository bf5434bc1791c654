"""A part of a capture as a capture of its own, for programs that know nothing of synfin's narrowing."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import TYPE_CHECKING

from synfin.verify.report import Part

if TYPE_CHECKING:
    from synfin.sources.filter import Filter
    from synfin.sources.window import Window


def narrowed(capture: str, filter: Filter | None, window: Window | None, options: list[str], path: Path) -> Part:
    """Write the packets of `capture` that lie in the window and pass the filter to the pcapng file `path`.

    They are written as they were captured, TCP or not. `options` are those that the filter and the window came from.
    Raises SynfinError as `CaptureInput` does, and ExportError.
    """
    from synfin.output.pcapng import PcapngFile
    from synfin.sources.captures import CaptureInput

    file, numbers, read = PcapngFile(path), array("q"), 0
    try:
        with CaptureInput([capture], window=window) as source:
            for batch in source:
                for at, (_, _, _, number, *_) in enumerate(batch.packets()):
                    data, time_ns, wire_len, link_type, interface = batch.captured(at)
                    if filter is None or filter.passes(data, wire_len, link_type):
                        file.add(
                            data, time_ns, wire_len, link_type, source.interfaces[interface] if interface >= 0 else None
                        )
                        numbers.append(number)
                read += len(batch)
            outside, report = source.outside, source.report
        file.commit()
    except BaseException:
        file.abort()
        raise
    left_out = {"filtered": read - len(numbers), "outside_window": outside}
    left_out = {name: count for name, count in left_out.items() if count}
    return Part(str(path), numbers, options, left_out, report.warnings, not report.failed)
