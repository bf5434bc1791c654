"""`synfin live` with a file system of its own, which nobody else sees, mounted on a folder: FOLDER SIZE ARGUMENT...

The test reaches it through /proc/PID/root. It is gone when the process is.
"""

import ctypes
import os
import sys

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18

libc = ctypes.CDLL(None, use_errno=True)


def must(result, what):
    if result:
        sys.exit(f"not allowed: {what}: {os.strerror(ctypes.get_errno())}")


folder, size, *arguments = sys.argv[1:]
must(libc.unshare(CLONE_NEWNS), "unshare")
must(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "private mounts")
must(libc.mount(b"none", folder.encode(), b"tmpfs", 0, f"size={size}".encode()), "mount")
os.execv(sys.executable, [sys.executable, "-m", "synfin", "live", *arguments])
