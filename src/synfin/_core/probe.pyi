from typing import Any

def decode(
    data: bytes, link_type: int, wire_len: int | None = None, vlan_tci: int | None = None, after: bytes = b""
) -> dict[str, Any] | str: ...
