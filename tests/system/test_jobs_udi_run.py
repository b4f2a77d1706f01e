"""`udi-run` in whole jobs: from an image's archive to the program, with the site's environment between them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.gateway.archives import Entry, file
from tests.system import images
from tests.system.cray import Cray

_RUN = "aprun -q -n 1 -N 1 -b /opt/udi/bin/udi-run"
_SITE = {
    "environment": {"prepend": {"LD_LIBRARY_PATH": "/opt/cray/lib64"}, "set": {"MPICH_X": "1"}, "unset": ["DEBUG"]}
}


def pull(cray: Cray, name: str, entries: list[Entry], config: dict[str, Any]) -> str:
    """An image of alice's, out of one layer. Its id."""
    home = cray.machine.path("/home/alice")
    owner = home.stat()
    cray.ids[name] = images.save(home / "own.tar", [entries], name, (owner.st_uid, owner.st_gid), config)
    cray.udi("alice", "pull", "docker-archive:/home/alice/own.tar")
    return cray.ids[name]


def test_an_image_from_scratch_with_one_static_program(cray: Cray) -> None:
    program = file("busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    config = {
        "Entrypoint": ["/busybox", "env"],
        "Env": ["UID=1000", "spring.main.x=a b", "HOME=/root", "USER=root", "DEBUG=1", "LD_LIBRARY_PATH=/app"],
        "WorkingDir": "absent/app",
    }
    image = pull(cray, "scratch:1", [program], config)
    with cray.configured(_SITE):
        script = f"{_RUN}\necho and then\n{_RUN} --clear-env --workdir / -- /busybox env\n{_RUN} sh\n"
        done = cray.run("alice", script, image="scratch:1")
    first, second = (set(part.split("\n")) for part in done.output.split("and then"))
    common = {"UID=1000", "spring.main.x=a b", "HOME=/home/alice", "USER=alice", "UDI_IMAGE=scratch:1", "MPICH_X=1"}
    common |= {f"UDI_IMAGE_ID={image}", "LD_LIBRARY_PATH=/opt/cray/lib64:/app"}
    assert common | {"PWD=/home/alice"} <= first and common | {"PWD=/"} <= second
    assert any(line.startswith("ALPS_APP_PE=") for line in first)
    assert not any(line.startswith(("ALPS_", "PBS_", "DEBUG=")) for line in second)
    warning, again, missing = done.error.splitlines()
    assert "working directory /absent/app cannot be entered (No such file or directory); starting in " in warning
    assert again == warning
    assert missing.startswith("udi-run: the command: 'sh' was not found in PATH") and done.status == "127"
    cray.assert_clean()


def test_the_readme_s_commands(cray: Cray) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    lines = re.findall(r"^    aprun -n 64 -N 16 -b /opt/udi/bin/udi-run *(.*?) *(?:#.*)?$", readme, re.MULTILINE)
    assert lines == ["", "make-plots", "--args -- -v input.dat", "--workdir . --env OMP_NUM_THREADS=4 -- ./solver"]
    solver = cray.machine.path("/home/alice/solver")
    solver.write_text('#!/bin/sh\necho "solver with $OMP_NUM_THREADS in $PWD"\n')
    solver.chmod(0o755)
    done = cray.run("alice", "".join(f"{_RUN} {line}\n" for line in lines))
    greeting = 'entered in /analysis: it\'s "here" one two'
    assert done.output.splitlines() == [greeting, greeting, "solver with 4 in /home/alice"]
    assert re.fullmatch(r"udi-run: the command: 'make-plots' was not found in PATH \(.*\)\n", done.error)
    cray.assert_clean()
