"""What a file that is no capture looks like, by its first bytes."""

from __future__ import annotations

from synfin.sources.codecs import codec_of

ACCEPTED = "accepted are pcap and pcapng, plain or compressed with gzip, zstd, lz4, xz or bzip2"

_MAGICS = (
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ", "a program (Windows)"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\xff\xff\xff\xff", "an Arrow stream"),
    (b"SQLite format 3", "an SQLite database"),
    (b"snoop\0\0\0", "a snoop capture; convert it with `editcap -F pcap`"),
    (b"RTSS", "a Network Monitor capture; convert it with `editcap -F pcap`"),
    (b"GMBU", "a Network Monitor capture; convert it with `editcap -F pcap`"),
    (b"TRSNIFF data", "a Sniffer capture; convert it with `editcap -F pcap`"),
    (b"XCP\0", "a NetXRay capture; convert it with `editcap -F pcap`"),
    (b"iptrace", "an iptrace capture; convert it with `editcap -F pcap`"),
    (b"btsnoop\0", "a Bluetooth capture (btsnoop)"),
    (b"\x1c\x00\x01\xac", "an Ixia capture (lcap); convert it with `editcap -F pcap`"),
    (b"\xac\x01\x00\x1c", "an Ixia capture (lcap); convert it with `editcap -F pcap`"),
    (b"\x02\x21\x4c\x18", "lz4 data in the legacy format; recompress it with a current lz4"),
    (b"\x04\x22\x4d\x18", "lz4 data"),
    (b"LZIP", "lzip data; decompress it first"),
    (b"\x1f\x9d", "compress (.Z) data; decompress it first"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy data; decompress it first"),
)  # fmt: skip


def looks_like(head: bytes) -> str:
    """A noun phrase for the content that begins with ``head`` (some 512 bytes; fewer for a short file)."""
    if not head:
        return "an empty file"
    if name := codec_of(head):
        return f"{name} data"
    for magic, text in _MAGICS:
        if head.startswith(magic):
            return text
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if not head.strip(b"\0"):
        return "a file of zero bytes"
    return _text(head) or "unknown binary data"


def _text(head: bytes) -> str | None:
    # A cut character at the end of the head must not make text look binary.
    try:
        text = head[:-3].decode("utf-8") if len(head) > 3 else head.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if any(ord(char) < 32 and char not in "\t\r\n\f\x1b" for char in text):
        return None
    start = text.lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype html", "<html")):
        return "an HTML page (a failed download?)"
    if start.startswith("<?xml"):
        return "XML"
    if start.startswith(("{", "[")):
        return "JSON"
    return "text"
