"""Exceptions. Each message says what is wrong, where, and what to do."""

from __future__ import annotations


class SynfinError(Exception):
    """Base of everything that synfin raises on purpose."""


class ConfigError(SynfinError, ValueError):
    """An option or setting that cannot be used."""


class CaptureOpenError(SynfinError, OSError):
    """A capture that cannot be opened or read; `path` names it."""

    def __init__(self, message: str, path: str | None = None):
        super().__init__(message)
        self.path = path


class CaptureFormatError(SynfinError, ValueError):
    """A capture whose bytes are wrong at `offset` (bytes from its start, after decompression) of `path`."""

    def __init__(self, message: str, path: str | None = None, offset: int | None = None):
        super().__init__(message)
        self.path = path
        self.offset = offset


class NotACaptureError(CaptureFormatError):
    """A file that is neither pcap nor pcapng; the message says what it looks like."""


class ExportError(SynfinError, OSError):
    """Output that could not be written."""
