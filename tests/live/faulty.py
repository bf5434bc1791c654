"""`synfin live` into whose worker 1 a fault is laid, which SIGUSR1 sets off: FAULT ARGUMENT... (those of `synfin live`).

fails : it meets an exception that nobody expects.
hangs : it does not come back.
segfaults : it reads where there is no memory.
"""

import ctypes
import signal
import sys
import threading

from synfin.cli.main import main
from synfin.sidecar import snapshot
from synfin.sources.live import LiveInput


def fails():
    raise LookupError("laid in")


def hangs():
    threading.Event().wait()


def segfaults():
    ctypes.string_at(0)


def lay_in(fault):
    usual, set_off = LiveInput.fill, threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: set_off.set())

    def fill(source, batch):
        if set_off.is_set() and source._place == 1:
            fault()
        return usual(source, batch)

    LiveInput.fill = fill


if __name__ == "__main__":
    snapshot.STUCK_SECONDS = 2.0
    lay_in({"fails": fails, "hangs": hangs, "segfaults": segfaults}[sys.argv[1]])
    main(["live", *sys.argv[2:]])
