"""synfin: one row per TCP connection, from captures or a live interface.

`read` gives a pyarrow table, `scan` a stream of record batches in bounded memory, `columns` the schema as data,
`Settings` what can be set about tracking.
"""

__version__ = "0.1.0"

from synfin.api import Scan, columns, read, scan
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

__all__ = [
    "SCHEMA_VERSION",
    "CaptureFormatError",
    "CaptureOpenError",
    "Column",
    "ConfigError",
    "ExportError",
    "NotACaptureError",
    "Scan",
    "Settings",
    "SynfinError",
    "__version__",
    "columns",
    "read",
    "scan",
]
