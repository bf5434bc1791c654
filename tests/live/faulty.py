"""`synfin live` into which a fault is laid that SIGUSR1 sets off: FAULT ARGUMENT... (those of `synfin live`).

fails : worker 1 meets an exception that nobody expects.
hangs : worker 1 does not come back.
segfaults : worker 1 reads where there is no memory.
breaks : the main thread meets an exception that nobody expects.
"""

import ctypes
import signal
import sys
import threading

from synfin.cli.main import main
from synfin.sidecar import service, snapshot
from synfin.sources.live import LiveInput


def fails():
    raise LookupError("laid in")


def hangs():
    threading.Event().wait()


def segfaults():
    ctypes.string_at(0)


def lay_in(place, name, fault, here=lambda _: True):
    usual, set_off = getattr(place, name), threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: set_off.set())

    def faulty(self, *arguments):
        if set_off.is_set() and here(self):
            fault()
        return usual(self, *arguments)

    setattr(place, name, faulty)


if __name__ == "__main__":
    snapshot.STUCK_SECONDS = 2.0
    if sys.argv[1] == "breaks":
        lay_in(service.Service, "_tell_changes", fails)
    else:
        faults = {"fails": fails, "hangs": hangs, "segfaults": segfaults}
        lay_in(LiveInput, "fill", faults[sys.argv[1]], lambda source: source._place == 1)
    main(["live", *sys.argv[2:]])
