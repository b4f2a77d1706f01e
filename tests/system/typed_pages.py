"""Commands of README.md, docs/images.md and docs/environment-files.md, typed on a Cray as they stand there.

`make test-recipes` runs this. The files that a page takes for granted are made first, and what runs elsewhere (docker,
sbatch, a workstation) is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pages, recipes
from tests.gateway.archives import file, make_archive, symlink
from tests.pages import DOCS
from tests.system import images
from tests.system.cray import Cray, home_of
from tests.system.page_files import holds_a_tree, sh
from tests.typed_lines import CRAY, lines
from xcsim.machine import Machine

ROOT = DOCS.parent
_ALICE = 1001
_MAP = "/etc/udi/chos.d/experiments.toml"
_HERE = {"/global": "/scratch/global", "/project": "/scratch/project", "atlas": "physics"}
"""What the map of docs/images.md names, and what this machine has."""
_JOB = """#!/bin/sh
aprun -q -n 1 -b /bin/sh -c 'echo in $(cat /etc/app-release 2>/dev/null || echo none)'
"""


def run(cray: Cray, user: str, line: str) -> str:
    done = cray.machine.run_as(user, ["/bin/bash", "-lc", line], cwd=home_of("alice"))
    assert done.returncode == 0, f"{line}: {done.returncode} {done.stdout}{done.stderr}"
    return done.stdout


def outputs(cray: Cray, submissions: list[str]) -> list[str]:
    """What the jobs wrote."""
    jobs = [run(cray, "alice", line).strip() for line in submissions]
    return [cray.ended(job, "C").output.strip() for job in jobs]


@pytest.fixture
def home(cray: Cray, tmp_path: Path) -> Iterator[Path]:
    """alice's directory, with the files of the pages: archives of images, and one tree in each form."""
    home = cray.machine.path(home_of("alice"))
    there = set(home.iterdir())
    (home / "job.sh").write_text(_JOB)
    recipes.save(home / "app.tar", "app:1.0", _ALICE)
    make_archive(home / "both.tar", [*images.tiny("both"), [file("etc/tools")]], tags=("tools:2", "app:1.0"))
    sh("gzip", "-1", "-kf", home / "app.tar")
    sh("skopeo", "copy", "-q", f"docker-archive:{home}/app.tar", f"oci-archive:{tmp_path}/app.oci")
    sh("cp", tmp_path / "app.oci", home)
    tree = cray.machine.path("/scratch/global/chos/sl6")
    tree.mkdir(parents=True)
    holds_a_tree(home, tree, tmp_path)
    sh("cp", home / "ready.squashfs", tree.parent / "debian-12.squashfs")
    for name in ("/scratch/global/common", "/scratch/project"):
        cray.machine.path(name).mkdir()
    yield home
    sh("rm", "-r", "--", *(set(home.iterdir()) - there), tree.parents[1], cray.machine.path("/scratch/project"))


def test_kinds_of_images(cray: Cray, home: Path) -> None:
    found = lines("docs/images.md", *CRAY["docs/images.md"])
    chosen = cray.machine.path(_MAP)
    chosen.parent.mkdir(exist_ok=True)
    text = pages.block_of("docs/images.md", f"# {_MAP}")
    for there, here in _HERE.items():
        text = text.replace(there, here)
    chosen.write_text(text)
    with cray.configured({"chos": {"home_file": True}}):
        run(cray, "root", next(line for line in found if line.endswith("chos publish")))
        said = []
        for line in found:
            is_staff = line.startswith(("runuser", "udi-admin")) or "--public" in line
            if line.startswith("qsub"):
                said += outputs(cray, [line])
            else:
                run(cray, "root" if is_staff else "alice", line.replace("[NAME]", "sl6"))
    assert said == ["in tree", "in tree", "in tree", "in none"]
    kinds = {row.split("\t")[0]: row.split("\t")[2] for row in run(cray, "alice", "udi images").splitlines()}
    assert kinds["vm:sl6:1"] == "vm" and kinds["app:2"] == "archive" and kinds["tools:2"] == "docker"
    chosen.unlink()
    run(cray, "root", "runuser -u udi -- udi-gateway chos publish")


def test_environment_files(cray: Cray, home: Path) -> None:
    page = "docs/environment-files.md"
    found = re.search(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert found
    (home / "run.toml").write_text(found[1])
    for name in ("alice/run", "shared/data"):
        cray.machine.path(f"/scratch/{name}").mkdir(parents=True, exist_ok=True)
    run(cray, "alice", "udi pull docker-archive:app.tar team/app:1.0")
    mpich = {"environment": {"set": {"MPI": "the site's"}}}
    with cray.configured({"modules": {"mpich": mpich}}):
        shown = [run(cray, "alice", line) for line in lines(page, "udi env")]
        (home / "job.sh").write_text("#!/bin/sh\naprun -q -n 1 -b /opt/udi/bin/udi-run\n")
        jobs = [line.replace("/me/", "/alice/") for line in lines(page, "qsub", "udi submit")]
        said = outputs(cray, jobs)
    assert shown[0] == "" and "volume      /scratch/alice/run:/output\n" in shown[1]
    assert [set(text.splitlines()) for text in said] == [{"solver: -v input.dat"}] * 2


@pytest.mark.parametrize("number", [0, 1], ids=["a job", "the gateway"])
def test_a_walk_of_the_readme(tmp_path: Path, number: int) -> None:
    """From `xcsim up` to `xcsim down`, on a machine of its own, with a small image in the demonstration's place."""
    if os.geteuid() != 0:
        pytest.skip("namespaces and mounts need root")
    readme = (ROOT / "README.md").read_text()
    walks = re.findall(r"^    \.venv/bin/xcsim up\n(?:    .*\n)*", readme, re.MULTILINE)
    assert len(walks) == 2
    image = tmp_path / "image.tar"
    images.save(image, [*images.tiny("walk"), [symlink("usr/bin", "../bin")]], "debian:12", (0, 0))
    state = tmp_path / "state"
    first = 20_020 + 4 * (os.getpid() % 5000)
    codes, said = [], ""
    try:
        for line in walks[number].splitlines():
            words = re.sub(r"\s+#.*", "", line.strip()).replace(".cache/demo-image.tar", str(image))
            words = words.replace(".venv/bin/xcsim up", f".venv/bin/xcsim up --first-nid {first}")
            words = words.replace(".venv/bin/xcsim", f"{sys.executable} -m xcsim.cli --state {state}")
            typed_line = ["/bin/bash", "-c", words]  # the page's line, as its reader's shell takes it
            done = subprocess.run(typed_line, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
            codes.append((done.returncode, line))
            said += done.stdout + done.stderr
    finally:
        Machine(state).down()
    assert [line for code, line in codes if code and not ("lookup debain" in line and code == 3)] == [], said
    for wanted in (["1.sdb C exit status 0", "NAME=tiny"], ["did you mean debian:12?", "removed mine/debian:12"])[
        number
    ]:
        assert wanted in said, said
