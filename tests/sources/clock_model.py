"""The clock rules of SPEC 2 ("Time") once more, over whole lists and without any of the package's code."""

from __future__ import annotations

HOUR = 3600 * 10**9


class FileModel:
    """One file whose clock may be stepped back from outside, so packets are judged one at a time."""

    def __init__(self, number: int, stamps: list[int]):
        self.number = number
        self.stamps = stamps
        self.at = 0
        self.clock: int | None = None
        self.head: tuple[int, int] | None = None  # timestamp, clock after it
        self.outliers = 0

    def look(self) -> bool:
        """Judge the next packet, if there is one."""
        if self.head is not None:
            return True
        if self.at == len(self.stamps):
            return False
        stamp, after = self.stamps[self.at], self.stamps[self.at + 1 : self.at + 3]
        if self.clock is None:
            if len(after) == 2 and stamp > after[0] + HOUR and stamp > after[1] + HOUR:
                stamp = after[0]
                self.outliers += 1
            self.clock = stamp
        elif stamp <= self.clock + HOUR:
            self.clock = max(self.clock, stamp)
        elif after and after[0] <= self.clock + HOUR:
            stamp = self.clock
            self.outliers += 1
        else:
            self.clock = min([stamp, *after[:1]])
        self.head = (stamp, self.clock)
        return True


def merged(files: list[list[int]]) -> tuple[list[tuple[int, int, int, int, bool]], int]:
    """Packets in merged order as (file, number, timestamp, input clock, step back after it), and how many were replaced."""
    models = [FileModel(i, stamps) for i, stamps in enumerate(files)]
    out = []
    clock, behind = 0, 0
    while ready := [model for model in models if model.look()]:
        model = min(ready, key=lambda m: (m.head[1], m.number))
        stamp, own = model.head
        model.head = None
        model.at += 1
        clock = max(clock, own)
        behind = behind + 1 if clock - stamp > HOUR else 0
        out.append((model.number, model.at, stamp, clock, behind == 1000))
        if behind == 1000:
            clock = model.clock = stamp
            behind = 0
    return out, sum(model.outliers for model in models)
