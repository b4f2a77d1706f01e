"""Loop devices where /dev has only the control device, and one that cannot be opened yet when the kernel names it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes mounts and loop devices")

_SCRIPT = """
import os, stat, sys, time
from udiroot import kernel, loop
from udiroot.errors import SetupFailed

kernel.mount("dev", "/dev", "tmpfs")
os.mknod("/dev/loop-control", 0o600 | stat.S_IFCHR, os.makedev(10, 237))
backing = os.open(sys.argv[1], os.O_RDONLY)

def numbers():
    return [name for name in os.listdir("/sys/block") if name.startswith("loop")]

def put(major):
    for name in numbers():
        with open(f"/sys/block/{name}/dev") as stream:
            minor = int(stream.read().partition(":")[2])
        os.mknod(f"/dev/{name}.new", 0o600 | stat.S_IFBLK, os.makedev(major, minor))
        os.rename(f"/dev/{name}.new", f"/dev/{name}")

if sys.argv[2] == "no such device or address":
    control = os.open("/dev/loop-control", os.O_RDWR)
    __import__("fcntl").ioctl(control, loop._CTL_GET_FREE)
    put(240)  # a major number that no driver has
tries, sleep = [], time.sleep
def then(seconds):
    tries.append(seconds)
    if sys.argv[3] == "late" and len(tries) == 20:
        put(7)
    sleep(seconds)
time.sleep = then
start = time.monotonic()
try:
    device, path = loop.attach(backing, "udi:test:1")
    print("attached", loop.name_of(path), os.path.exists("/dev/loop0"))
except SetupFailed as error:
    print(error.message)
print(time.monotonic() - start < 30)
"""


_MISSING, _DEAD = "no such file or directory", "no such device or address"


@pytest.mark.parametrize(("fault", "comes"), [(_MISSING, "late"), (_DEAD, "late"), (_MISSING, "never")])
def test_a_device_that_cannot_be_opened_yet_is_waited_for_but_not_for_ever(
    tmp_path: Path, fault: str, comes: str
) -> None:
    backing = tmp_path / "file"
    backing.write_bytes(bytes(1 << 20))
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", _SCRIPT, backing, fault, comes],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    said, in_time = done.stdout.splitlines()
    assert in_time == "True"
    if comes == "late":
        assert said.startswith("attached udi:test:1 ")
    else:
        assert said.lower().startswith("no free loop device: /dev/loop") and said.lower().endswith(fault)
