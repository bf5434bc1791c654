"""synfin: one row per TCP connection, from captures or a live interface.

`read` gives a pyarrow table, `scan` a stream of record batches in bounded memory, `live` that of an interface, `columns` the
schema as data, `Settings` what can be set about tracking.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synfin.api import Live, Scan, columns, live, read, scan
    from synfin.errors import (
        CaptureFormatError,
        CaptureOpenError,
        ConfigError,
        ExportError,
        NotACaptureError,
        SynfinError,
    )
    from synfin.schema import SCHEMA_VERSION, Column
    from synfin.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "SCHEMA_VERSION",
    "CaptureFormatError",
    "CaptureOpenError",
    "Column",
    "ConfigError",
    "ExportError",
    "Live",
    "NotACaptureError",
    "Scan",
    "Settings",
    "SynfinError",
    "__version__",
    "columns",
    "live",
    "read",
    "scan",
]

#: Where the public names are. A part is loaded with its first name: `synfin --help` needs none of them.
_PARTS = {
    "api": ("Live", "Scan", "columns", "live", "read", "scan"),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "schema": ("SCHEMA_VERSION", "Column"),
    "settings": ("Settings",),
}


def __getattr__(name: str) -> Any:
    for part, names in _PARTS.items():
        if name in names:
            globals()[name] = value = getattr(import_module(f"{__name__}.{part}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
