"""Jobs in images of every kind: made of a virtual machine's disk, of a file system, of an archive of a tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.system import images
from tests.system.cray import Cray
from tests.system.made import KINDS, make
from tests.system.scripts import expected, ranks

ALICE = 1001


def test_a_job_in_an_unpacked_tree(cray: Cray) -> None:
    """It belongs to the store's account, on every node, and nobody can write it."""
    home = cray.machine.path("/home/alice")
    images.save(home / "tree.tar", images.tiny("a tree"), "tree:1", (home.stat().st_uid, home.stat().st_gid))
    cray.udi("alice", "pull", "--format", "directory", "docker-archive:/home/alice/tree.tar")
    look = "aprun -q -n 1 -b /bin/sh -c 'stat -c %U:%a /bin/busybox; touch /bin/x; grep \" / \" /proc/self/mountinfo'\n"
    ended = cray.run("alice", ranks() + look, image="tree:1")
    lines = ended.output.splitlines()
    assert sorted(lines[:5]) == expected("a tree", ALICE)
    assert lines[5].endswith(":755") and not lines[5].startswith("root:")
    assert "Read-only file system" in ended.error
    assert cray.machine.run_as("bob", ["/opt/udi/bin/udi", "lookup", "tree:1"]).returncode == 3
    store = cray.machine.run_as("bob", ["/bin/sh", "-c", "cat /*/*/images/*.directory/tree/etc/marker"])
    assert store.returncode != 0
    cray.udi("alice", "rm", "tree:1")
    (home / "tree.tar").unlink()
    cray.assert_clean()


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_one_user_and_not_of_another(cray: Cray, tmp_path: Path, kind: str) -> None:
    home = cray.machine.path("/home/alice")
    file = home / "image"
    file.write_bytes(make(tmp_path, f"made of {kind}", kind).read_bytes())
    os.chown(file, home.stat().st_uid, home.stat().st_gid)
    given = "machine:1" if kind.startswith("vm-") else "made:1"
    name = f"vm:{given}" if kind.startswith("vm-") else given
    cray.udi("alice", "pull", "--env", "KIND=of it", "--entrypoint", "/bin/cat", "--cmd", "/etc/marker",
             f"{kind}:/home/alice/image", given)  # fmt: skip
    ended = cray.run("alice", ranks() + "aprun -q -n 1 -b /opt/udi/bin/udi-run\n", image=name)
    assert sorted(ended.output.splitlines()[:-1]) == expected(f"made of {kind}", ALICE)
    assert ended.output.splitlines()[-1] == f"made of {kind}"
    refused = cray.machine.run_as("bob", ["/opt/udi/bin/udi", "lookup", name])
    assert refused.returncode == 3
    cray.udi("alice", "rm", name)
    file.unlink()
    cray.assert_clean()
