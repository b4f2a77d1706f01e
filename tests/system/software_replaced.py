"""Jobs while our software is replaced by another version, and removed: `make test-upgrade` runs this."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest

from tests import typed_lines
from tests.system.cray import MOM_PRIV, TORQUE_CFG, A, Cray
from tests.system.scripts import ranks
from xcsim.processes import wait_until

ADMIN = "import sys; from admin.cli import main; sys.exit(main())"
WAITS = "until [ -e /home/alice/go ]; do sleep 0.1; done\n" + ranks(1)


def replaced_software(cray: Cray) -> None:
    """Another version: other plans, other records, other arguments of the node's commands."""
    library = cray.machine.path("/opt/udi/lib")
    for name, old, new in (
        ("udiroot/plan.py", 'VERSION = "3"', 'VERSION = "4"'),
        ("udiroot/record.py", '"udi-record 1"', '"udi-record 2"'),
        ("udiroot/commands.py", '"shared"', '"sharing"'),
        ("udi/nodecommand.py", '"--shared"', '"--sharing"'),
    ):
        path = library / name
        text = path.read_text()
        assert old in text, name
        path.write_text(text.replace(old, new))


@pytest.fixture
def software(cray: Cray) -> Iterator[dict[str, bytes]]:
    """The installed files of the software that a test replaces, put back afterwards."""
    library = cray.machine.path("/opt/udi/lib")
    names = ("udiroot/plan.py", "udiroot/record.py", "udiroot/commands.py", "udi/nodecommand.py")
    kept = {name: (library / name).read_bytes() for name in names}
    yield kept
    put_back(cray, kept)


def put_back(cray: Cray, kept: dict[str, bytes]) -> None:
    for name, content in kept.items():
        cray.machine.path(f"/opt/udi/lib/{name}").write_bytes(content)
    cray.admin("install")


def test_jobs_outlive_an_upgrade_and_the_way_back(cray: Cray, software: dict[str, bytes]) -> None:
    go = cray.machine.path("/home/alice/go")
    old = cray.qsub("alice", WAITS, nodes=1)
    cray.running(old)
    plan = next(cray.machine.path("/scratch/udi/plans").iterdir()).read_text()
    assert plan.startswith("udi-plan 3\n")
    replaced_software(cray)
    cray.admin("install")
    new = cray.qsub("alice", WAITS, nodes=1)
    cray.running(new)
    assert len(cray.roots()) == 2
    put_back(cray, software)
    third = cray.qsub("alice", WAITS, nodes=1)
    cray.running(third)
    go.touch()
    try:
        for job in (old, new, third):
            ended = cray.ended(job)
            assert ended.status == "0" and cray.marker("tiny:1") in ended.output, ended
            assert not [line for line in ended.log if "ERROR" in line or "WARNING" in line], ended.log
    finally:
        go.unlink()
    cray.assert_clean()
    zips = sorted(path.name for path in cray.machine.path("/opt/udi/node").glob("udi-*.zip"))
    assert len(zips) == 2 and os.readlink(cray.machine.path("/opt/udi/node/udi.zip")) in zips
    assert "begins with 'udi-plan 4'; this node reads 'udi-plan 3'" in cray.set_up(A, plan.replace("plan 3", "plan 4"))


def tree(cray: Cray) -> dict[str, str]:
    """What there is of a site's files on the login node: mode and content."""
    found = {}
    for top in ("/etc", "/opt/udi", "/opt/cray", MOM_PRIV, os.path.dirname(TORQUE_CFG), "/var/lib/udi"):
        root = cray.machine.path(top)
        for path in [root, *root.rglob("*")]:
            if path.is_symlink() or path.is_file() or path.is_dir():
                content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
                found[str(path)] = f"{path.lstat().st_mode:o} {content!r}"
    return {path: what for path, what in found.items() if not re.search("/(lib|venv|jobs)(/|$)", path)}


def test_uninstalling_leaves_nothing_and_waits_for_jobs(cray: Cray) -> None:
    cray.admin("install")
    before = tree(cray)
    job = cray.qsub("alice", WAITS, nodes=1)
    cray.running(job)
    assert f"job {job} still here" in cray.admin("uninstall", code=4)
    go = cray.machine.path("/home/alice/go")
    go.touch()
    try:
        assert cray.ended(job).status == "0"
    finally:
        go.unlink()
    assert wait_until(lambda: not cray.states(), 30, 0.05)
    python = cray.machine.path("/opt/udi/bin/udi-admin").read_text().split("exec ")[1].split()[0]
    told = cray.admin("uninstall")
    try:
        assert "/scratch/udi: the image store" in told and "/etc/udi/udi.toml: the configuration" in told
        left = tree(cray)
        assert not [path for path, what in left.items() if "installed by shifter-xc" in what], told
        assert not [path for path, what in left.items() if "shifter-xc" in what and "udi.toml" not in path]
        names = ("udi.zip", "udi-admin", "prologue", "epilogue", "udi.sh", "installed.json")
        assert [path for path in left if os.path.basename(path) in names] == []
        roots = cray.machine.path("/etc/opt/cray/cnrte/roots.conf")
        assert not roots.exists() or "UDI" not in roots.read_text()
        plain = cray.run("alice", "aprun -n 1 /bin/true\n", image="", nodes=1)
        assert plain.status == "0", plain
    finally:
        words = [python, "-I", "-c", ADMIN, "--config", "/etc/udi/udi.toml", "install"]
        cray.machine.run_as("root", words, check=True)
    now = tree(cray)
    old_versions = re.compile(r"/udi-[0-9a-f]{16}\.zip$")
    assert [path for path in before if before[path] != now.get(path) and not old_versions.search(path)] == []


def test_the_commands_of_the_page(cray: Cray, software: dict[str, bytes]) -> None:
    """docs/upgrade.md, line by line; the new version's `udi-admin` is at the page's path."""
    own = cray.machine.path("/opt/udi/bin/udi-admin")
    new = cray.machine.path("/opt/udi-0.2/bin/udi-admin")
    new.parent.mkdir(parents=True)
    shutil.copy2(own, new)
    python = own.read_text().split("exec ")[1].split()[0]
    try:
        replaced_software(cray)
        zip_before = os.readlink(cray.machine.path("/opt/udi/node/udi.zip"))
        for program in ("/opt/udi-0.2/bin/udi-admin", "udi-admin"):
            for line in typed_lines.lines("docs/upgrade.md", program):
                done = cray.machine.run_as("root", ["/bin/bash", "-lc", line])
                said = f"{line}: {done.returncode} {done.stdout}{done.stderr}"
                if line.endswith(" check-config"):  # the page says of what
                    assert re.findall(r"^error +(\S+)", done.stdout, re.MULTILINE) == ["zip.version"], said
                else:
                    assert done.returncode == 0, said
                if line.endswith(" install"):
                    assert os.readlink(cray.machine.path("/opt/udi/node/udi.zip")) != zip_before
        assert not own.exists()
    finally:
        words = [python, "-I", "-c", ADMIN, "--config", "/etc/udi/udi.toml", "install"]
        cray.machine.run_as("root", words, check=True)
        shutil.rmtree(new.parents[1])
