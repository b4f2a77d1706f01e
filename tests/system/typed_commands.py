"""Commands of README.md, and of the pages about modules, metrics and the gateway, typed on a Cray as they stand there.

`make test-recipes` runs this. Names of users, nodes and jobs are those of this machine, and where a page has a thousand
ranks, it has two.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pages, recipes, typed_lines
from tests.gateway.archives import file
from tests.system import desk, images
from tests.system.cray import A, Cray, home_of
from tests.system.page_files import holds_a_tree
from tests.system.terminals import LAPTOP
from tests.unit.test_cdi import NVIDIA
from xcsim import registry

_ALICE, _STORE_ACCOUNT = 1001, 990
_FIGURES = "/var/lib/node-exporter"
_MODULES = {
    "mpich": {"environment": {"set": {"MPI": "the site's"}}},
    "gpu": {"environment": {"set": {"GPU": "none"}}},
    "licenses": recipes.LICENSES,
}
_JOB = "#!/bin/sh\naprun -q -n 1 -b /bin/sh -c 'echo in $(cat /etc/app-release)'\n"
_PLOTS = b'#!/bin/sh\necho "plots: $*"\n'
_HERE = {"/scratch/me/": "/scratch/alice/", "/data/me": "/scratch/alice", "-n 64 -N 16": "-n 2 -N 1"}


def run(cray: Cray, user: str, line: str, cwd: str = "") -> str:
    """A line of a page; what it printed."""
    for page, here in _HERE.items():
        line = line.replace(page, here)
    words = ["/bin/bash", "-lc", f"PATH=/usr/bin:$PATH; {line}"]
    done = cray.machine.run_as(user, words, cwd=cwd or None, env=desk.HOST)
    assert done.returncode == 0, f"{line}: {done.returncode} {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def site(cray: Cray, tmp_path: Path) -> Iterator[Cray]:
    """alice has the pages' files, in both of her directories; the registry has the pages' images, and so has Docker."""
    home = cray.machine.path(home_of("alice"))
    app = [*recipes.layers("app:1.0"), [file("usr/bin/make-plots", _PLOTS, mode=0o755)]]
    config = {**recipes.CONFIG, "Env": ["PATH=/opt/app/bin:/bin:/usr/bin"]}
    images.save(home / "app.tar", app, "app:1.0", (_ALICE, _ALICE), config)
    images.save(tmp_path / "debian.tar", images.tiny("debian"), "debian:12", (0, 0))
    for archive, name in ((home / "app.tar", "app:1.0"), (tmp_path / "debian.tar", "debian:12")):
        registry.push(cray.machine, archive, name)
    (tmp_path / "tree").mkdir()
    holds_a_tree(home, tmp_path / "tree", tmp_path)
    texts = {"job.sh": _JOB, "solver": "#!/bin/sh\necho mine\n", "run.toml": 'image = "app:1.0"\n'}
    for name, text in texts.items():
        (home / name).write_text(text)
        (home / name).chmod(0o755)
    for name in ("run", "data"):
        run(cray, "alice", f"mkdir -p /scratch/me/{name}")
    run(cray, "alice", f"mkdir -p {LAPTOP}")
    with cray.configured({"modules": _MODULES, "sessions": {"enabled": True}}), desk.dockerd(cray):
        cray.admin("install", "--root", "/")  # the rule of sudo
        for archive in (home / "app.tar", tmp_path / "debian.tar"):
            desk.load(cray, archive)
        yield cray


def _typed(cray: Cray, page: str, *programs: str) -> list[str]:
    """Type these lines of a page as alice; what they printed, and what jobs wrote."""
    said = []
    for line in typed_lines.lines(page, *programs):
        shown = run(cray, "alice", line, LAPTOP if line.startswith("docker") else home_of("alice"))
        if line.startswith(("qsub", "udi submit")) and "--print" not in line:
            ended = cray.ended(shown.strip())
            assert (ended.state, ended.status) == ("C", "0"), (line, ended)
            shown = ended.output
        said.append(shown)
    return said


def test_commands_for_users_of_the_readme(site: Cray) -> None:
    said = "\n".join(_typed(site, "README.md", "udi", "docker", "qsub", "["))
    assert said.count("in app 1.0") >= 4 and "plots: --dpi 300" in said and "NAME=tiny" in said, said


def test_commands_of_the_script_of_the_readme(site: Cray) -> None:
    site.udi("alice", "pull", "app:1.0")
    script = "".join(f"{line}\n" for line in typed_lines.lines("README.md", "aprun"))
    for page, here in _HERE.items():
        script = script.replace(page, here)
    words = ["-l", "nodes=2", "-v", "UDI=app:1.0"]
    job = site.machine.qsub("alice", words, f"#!/bin/sh\nset -e\ncd {home_of('alice')}\n{script}")
    ended = site.ended(job)
    said = {line for line in ended.output.splitlines() if not line.startswith("Application")}
    assert ended.status == "0", ended
    assert said == {"solver: ", "solver: default.in", "plots: ", "solver: -v input.dat", "mine"}


def test_commands_for_operators_of_the_readme(site: Cray) -> None:
    site.udi("alice", "pull", "debian:12")
    job = site.run("alice").id
    here = {"123.sdb": job, "nid00012": f"nid{A:05d}", "--watch": "--watch 0.1"}
    for line in typed_lines.lines("README.md", "udi-admin"):
        for page, ours in here.items():
            line = line.replace(page, ours)
        if "recover" in line:
            run(site, "root", f"udi-nodehealth admindown {A} --reason trial")
        if "--watch" in line:  # until it is interrupted
            line = f"timeout --preserve-status --signal=INT 3 {line} || [ $? = 130 ]"
        run(site, "root", line)


def test_commands_of_the_page_about_modules(site: Cray) -> None:
    site.udi("alice", "pull", "app:1.0")
    _typed(site, "docs/modules.md", "udi", "qsub")
    (site.machine.path("/root") / "nvidia.json").write_text(json.dumps(NVIDIA))
    with site.configured({"node": {"devices": ["/dev/nvidia*", "/dev/dri/*"]}}):
        [line] = typed_lines.lines("docs/modules.md", "udi-admin")
        assert "[modules.gpu]" in run(site, "root", line, "/root")


def test_commands_of_the_page_about_metrics(site: Cray) -> None:
    site.machine.path(_FIGURES).mkdir(parents=True, exist_ok=True)
    with site.configured({"metrics": {"directory": _FIGURES}}):
        for line in typed_lines.lines("docs/metrics.md", "chgrp", "udi-admin"):
            run(site, "root", line)
        text = (pages.DOCS / "metrics.md").read_text()
        for line in re.findall(r"`((?:cat|runuser) [^`]*)`", text):
            if line.startswith("cat"):
                site.run("alice")
            assert "udi_" in run(site, "root", line)
        run(site, "udi", "udi-gateway metrics --write")
        assert os.stat(site.machine.path(f"{_FIGURES}/udi-gateway.prom")).st_uid == _STORE_ACCOUNT


def test_commands_for_repair_of_the_gateway(site: Cray) -> None:
    for line in typed_lines.lines("docs/gateway.md", "udi-admin", "udi-gateway"):
        run(site, "root" if line.startswith("udi-admin") else "udi", line)
