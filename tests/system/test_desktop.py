"""`udi run` on a workstation, which is the login node here: by a real dockerd, by namespaces of the user's own; and the
same image and command in a job. What a program sees of itself must be the same in all three."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.system import desk, images
from tests.system.cray import Cray
from xcsim import registry

_LOOK = """
echo "uid $(id -u) gid $(id -g) name $(id -un)"
echo "in $PWD home $HOME user $USER greeting $GREETING image $UDI_IMAGE"
for path in /data /scratch /home /tmp /var/tmp /etc/passwd; do
    [ -e $path ] || echo "no $path"
done
touch /data/new && rm /data/new && echo "data is writable"
cat /scratch/physics/shared && echo "group counts"
touch /x 2>/dev/null || echo "root is read-only"
touch /tmp/x && ls /tmp
grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status
hostname
echo "$@"
"""


@pytest.fixture(scope="module")
def workstation(standing: Cray) -> Iterator[Cray]:
    """The login node with a Docker daemon that alice may use, and the image in the centre's registry."""
    cray = standing
    archive = cray.machine.state / "desk.tar"
    images.save(archive, images.tiny("desk"), "team/desk:1", (0, 0))
    registry.push(cray.machine, archive, "team/desk:1")
    shared = cray.machine.path("/scratch/physics")
    shared.mkdir()
    (shared / "shared").write_text("of the group\n")
    subprocess.run(["chgrp", "-R", "2001", shared], check=True)
    shared.chmod(0o750)
    (shared / "shared").chmod(0o640)
    try:
        with desk.dockerd(cray):
            desk.load(cray, archive)
            yield cray
    finally:
        subprocess.run(["rm", "-rf", shared], check=True)


def run(cray: Cray, user: str, engine: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`udi run`, as that user."""
    return cray.machine.run_as(user, ["/opt/udi/bin/udi", "run", "--engine", engine, *words], env=desk.HOST)


def test_the_same_on_a_desktop_and_in_a_job(workstation: Cray, cray: Cray) -> None:
    words = ("--volume", "/scratch/alice:/data", "team/desk:1", "--", "sh", "-c", _LOOK, "0", "a  b")
    found = {}
    for engine in ("docker", "none"):
        done = run(cray, "alice", engine, *words)
        assert done.returncode == 0, done.stderr
        found[engine] = done.stdout.splitlines()
    job = cray.udi("alice", "submit", *words[:2], "-l", "nodes=1:ppn=1", *words[2:]).stdout.strip()
    found["job"] = cray.ended(job).output.splitlines()
    hosts = {way: lines.pop(-2) for way, lines in found.items()}
    assert hosts["docker"] == hosts["none"] != hosts["job"]
    assert found["docker"] == found["none"]
    # On a node of this machine, ALPS's stand-in leaves the bounding set; a program gets no capability all the same.
    without = {
        way: [line for line in lines if not line.startswith(("CapBnd", "NoNewPrivs"))] for way, lines in found.items()
    }
    assert without["job"] == without["docker"]
    lines = found["docker"]
    assert lines[:2] == [
        "uid 1001 gid 1001 name alice",
        'in /analysis home /home/alice user alice greeting it\'s "here" image team/desk:1',
    ]
    assert {"data is writable", "of the group", "group counts", "root is read-only", "x", "a  b"} <= set(lines)
    assert not [line for line in lines if line.startswith("no ")]
    assert {line.split()[1].strip("0") for line in lines if line.startswith("Cap")} == {""}
    assert "NoNewPrivs:\t1" in lines


@pytest.mark.parametrize("engine", ["docker", "none"])
def test_the_entry_point_and_exit_codes(workstation: Cray, cray: Cray, engine: str) -> None:
    done = run(cray, "alice", engine, "team/desk:1")
    assert done.stdout == 'entered in /analysis: it\'s "here" one two\n'
    assert run(cray, "alice", engine, "team/desk:1", "--", "sh", "-c", "exit 7").returncode == 7
    assert run(cray, "alice", engine, "team/desk:1", "--", "nothing").returncode == 127
    done = run(
        cray, "alice", engine, "--env", "A=b c", "--workdir", "/tmp", "team/desk:1", "--", "sh", "-c", 'echo "$A" $PWD'
    )
    assert done.stdout == "b c /tmp\n"


@pytest.mark.parametrize("engine", ["docker", "none"])
def test_an_environment_file(workstation: Cray, cray: Cray, engine: str) -> None:
    """Site modules are passed over with a line, since a workstation has none; the rest is as in a job."""
    cray.machine.path("/home/alice/desk.toml").write_text(
        'image = "team/desk:1"\nvolumes = ["/scratch/${USER}:/data"]\nmodules = ["mpich"]\nworkdir = "/tmp"\n'
        'entrypoint = ["/bin/sh", "-c"]\nargs = [\'[ -d /data ] && echo "$A in $PWD"\']\n[environment]\nA = "b  c"\n'
    )
    done = run(cray, "alice", engine, "@/home/alice/desk.toml")
    assert done.stdout == "b  c in /tmp\n"
    assert done.stderr.splitlines()[0] == "udi: without modules mpich: this host has none"


@pytest.mark.parametrize("engine", ["docker", "none"])
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("team/none:1",), 3, "team/none"),
        (("--volume", "/etc:/x", "team/desk:1"), 4, "source /etc is not in a directory that the site allows"),
        (("--volume", "/scratch/alice/none:/x", "team/desk:1"), 2, "/scratch/alice/none does not exist"),
        (("team/desk:1", "ls"), 2, "'ls' after the image"),
        (("vm:x",), 2, "is in the store of the site alone"),
    ],
)
def test_what_is_refused(
    workstation: Cray, cray: Cray, engine: str, words: tuple[str, ...], code: int, message: str
) -> None:
    done = run(cray, "alice", engine, *words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert message in done.stderr


def test_one_who_may_not_read_what_the_group_may(workstation: Cray, cray: Cray) -> None:
    """And bob's own cache is his: alice's image is fetched again."""
    done = run(cray, "bob", "none", "team/desk:1", "--", "cat", "/scratch/physics/shared")
    assert (done.returncode, done.stdout) == (1, "")


def test_what_stays_and_what_does_not(workstation: Cray, cray: Cray) -> None:
    """The image in the user's cache, and nothing else: no mount, no directory, no container."""
    before = set(cray.machine.path("/tmp").iterdir())
    run(cray, "alice", "none", "team/desk:1", "--", "true")
    run(cray, "alice", "docker", "team/desk:1", "--", "id")
    assert set(cray.machine.path("/tmp").iterdir()) == before
    cache = cray.machine.path("/home/alice/.cache/udi")
    [image] = [path for path in cache.iterdir() if len(path.name) == 64]
    assert sorted(path.name for path in image.iterdir()) == ["facts.json", "tree"]
    assert json.loads((image / "facts.json").read_text())["format"] == "directory"
    docker = ["docker", "ps", "--all", "--quiet"]
    assert cray.machine.run_as("alice", docker, env=desk.HOST).stdout == ""
    assert not [line for line in open("/proc/self/mountinfo") if "udi-run-" in line]
