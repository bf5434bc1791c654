"""What is left of root's privileges, as the kernel tells it; each drop in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's"),
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to have what is dropped"),
]
_STATUS = """
def status():
    lines = open("/proc/thread-self/status").read().splitlines()
    return dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
"""
NET_RAW = 1 << 13


def run(code, *arguments):
    """Standard output of a Python program."""
    done = subprocess.run(
        [sys.executable, "-c", _STATUS + code, *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_one_capability_is_left():
    effective, permitted, inheritable, ambient, bounding, barred, in_thread = run("""
import threading
from synfin.sidecar.privileges import drop
drop()
now = status()
print(*(now["Cap" + set] for set in ("Eff", "Prm", "Inh", "Amb", "Bnd")), now["NoNewPrivs"])
thread = threading.Thread(target=lambda: print(status()["CapEff"]))
thread.start()
thread.join()
""")
    assert int(effective, 16) == int(permitted, 16) == int(in_thread, 16) == NET_RAW
    assert int(inheritable, 16) == int(ambient, 16) == int(bounding, 16) == 0 and barred == "1"


def test_what_can_be_done_afterwards():
    assert run("""
import os, socket, subprocess, sys
from synfin.sidecar.privileges import drop
drop()
socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()     # a ring for an interface that comes back
try:
    os.setuid(65534)
except PermissionError:
    print("setuid")
try:
    socket.sethostname(socket.gethostname())
except PermissionError:
    print("hostname")
child = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('CapEff')][0])"
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout)
""") == ["setuid", "hostname", "0" * 16]


def test_another_user():
    import pwd

    entry = pwd.getpwnam("nobody")
    ids = run("""
import os, socket
from synfin.sidecar.privileges import drop
drop("nobody")
print(*os.getresuid(), *os.getresgid(), len(os.getgroups()), int(status()["CapPrm"], 16))
socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
try:
    os.seteuid(0)
except PermissionError:
    print("never root again")
""")
    assert ids[:6] == [str(entry.pw_uid)] * 3 + [str(entry.pw_gid)] * 3
    assert int(ids[6]) == len(os.getgrouplist("nobody", entry.pw_gid)) and int(ids[7]) == NET_RAW
    assert ids[8:] == ["never", "root", "again"]


def test_users_that_one_cannot_become():
    assert run("""
from synfin.errors import ConfigError
from synfin.sidecar.privileges import drop
try:
    drop("no-such-user")
except ConfigError as error:
    print(str(error) == "there is no user 'no-such-user' (--user)")
drop("nobody")
drop("nobody")      # who one is already
try:
    drop("daemon")
except ConfigError as error:
    print("CAP_SETUID and CAP_SETGID are missing" in str(error))
""") == ["True", "True"]


def test_without_capabilities_nothing_is_gained():
    assert run("""
import os
from synfin.sidecar.privileges import drop, permitted
os.setresuid(65534, 65534, 65534)
drop()
print(permitted(), status()["NoNewPrivs"])
""") == ["0", "1"]
