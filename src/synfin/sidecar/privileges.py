"""Privileges are dropped once all sockets are open: what is left is CAP_NET_RAW, and nothing can be gained any more.

Linux capabilities belong to threads, and a thread inherits those of the one that starts it: `drop` must be called before
the first thread is started.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

from synfin.errors import ConfigError, SynfinError

CAP_NET_RAW = 13  # linux/capability.h
_VERSION_3 = 0x20080522
# linux/prctl.h
_SET_KEEPCAPS, _CAPBSET_READ, _CAPBSET_DROP, _SET_NO_NEW_PRIVS, _CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 8, 23, 24, 38, 47, 4


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
    return libc


def permitted() -> int:
    """The capabilities that this thread may use, as a bit mask."""
    header, sets = _Header(_VERSION_3, 0), (_Set * 2)()
    if _libc().capget(ctypes.byref(header), sets) != 0:
        raise SynfinError(f"capabilities cannot be read ({os.strerror(ctypes.get_errno())})")
    return sets[0].permitted | sets[1].permitted << 32


def drop(user: str | None = None) -> list[str]:
    """Keep CAP_NET_RAW, which an interface that comes back needs, and give up everything else.

    Parameters
    ----------
    user : name of the user to go on as, with that user's groups; None to stay.

    Returns
    -------
    The names of threads that are there all the same and keep more; usually none.

    Raises
    ------
    ConfigError : no such user, or no right to become that user.
    SynfinError : the kernel refuses to take capabilities away.
    """
    libc = _libc()
    kept = permitted() & 1 << CAP_NET_RAW
    # The bounding set needs CAP_SETPCAP; without it, no_new_privs alone keeps a program that is started from more.
    last = 0
    while libc.prctl(_CAPBSET_READ, last, 0, 0, 0) >= 0:
        libc.prctl(_CAPBSET_DROP, last, 0, 0, 0)
        last += 1
    if user is not None:
        libc.prctl(_SET_KEEPCAPS, 1, 0, 0, 0)
        _become(user)
    libc.prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    sets = (_Set * 2)(_Set(kept, kept, 0), _Set(0, 0, 0))
    if libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), sets) != 0 or permitted() != kept:
        raise SynfinError(f"capabilities cannot be dropped ({os.strerror(ctypes.get_errno())})")
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise SynfinError(f"no_new_privs cannot be set ({os.strerror(ctypes.get_errno())})")
    return _others_with_more(kept)


def _others_with_more(kept: int) -> list[str]:
    names = []
    for task in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{task}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            if int(status["CapPrm"], 16) & ~kept:
                names.append(status["Name"])
    return names


def _become(user: str) -> None:
    import pwd

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(f"there is no user {user!r} (--user)") from None
    if entry.pw_uid == os.geteuid() == os.getuid() and entry.pw_gid == os.getegid():
        return
    try:
        os.setgroups(os.getgrouplist(user, entry.pw_gid))
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except PermissionError as error:
        raise ConfigError(
            f"cannot become {user} (--user): CAP_SETUID and CAP_SETGID are missing; run as root, or let the service "
            "manager choose the user and give CAP_NET_RAW"
        ) from error
