from typing import final

@final
class PacketBatch:
    def __len__(self) -> int: ...
    def clear(self) -> None: ...
    def append(
        self,
        data: bytes,
        time_ns: int,
        clock_ns: int | None = None,
        number: int = 0,
        file_id: int = -1,
        interface_id: int = -1,
        link_type: int = 1,
        wire_len: int | None = None,
        flags: int = 0,
    ) -> None: ...
    def part(self, low: int, high: int) -> PacketBatch: ...
    def captured(self, which: int) -> tuple[bytes, int, int, int, int]: ...
    def packets(self) -> list[tuple[bytes, int, int, int, int, int, int, int, int]]: ...
