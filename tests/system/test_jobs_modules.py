"""Site modules in whole jobs on a Cray: who gets which, what programs find, and an MPI that is swapped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mpich.program import DEBIANS, program_with_libraries, put_own
from tests.system import images
from tests.system.cray import Cray
from tests.system.test_sessions import left

_RUN = "aprun -q -n 4 -N 2 -b /opt/udi/bin/udi-run"
_LOOK = "sh -c 'echo $UDI_MODULES_USED,$LIST,$(cat /opt/udi-site/*/name 2>/dev/null)'"
_MODULES = {
    "base": {
        "default": True,
        "mounts": ["/scratch/site/base:/opt/udi-site/base:ro"],
        "environment": {"prepend": {"LIST": "base"}},
    },
    "absent": {"default": True, "present": ["/no/such/path"], "environment": {"append": {"LIST": "absent"}}},
    "hers": {
        "description": "alice's own",
        "users": ["alice"],
        "mounts": ["/scratch/site/hers:/opt/udi-site/hers:ro"],
        "environment": {"prepend": {"LIST": "hers"}},
    },
    "gpu": {"present": ["/dev/no-such-device"], "environment": {"set": {"GPU": "1"}}},
    "mpich": {
        "mounts": ["/scratch/site/mpich:/opt/udi-site/mpich:ro"],
        "environment": {"prepend": {"LD_LIBRARY_PATH": "/opt/udi-site/mpich"}},
    },
}


@pytest.fixture
def site(cray: Cray) -> Iterator[Cray]:
    for name in ("base", "hers"):
        directory = cray.machine.path(f"/scratch/site/{name}")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "name").write_text(f"{name}\n")
    with cray.configured({"modules": _MODULES}):
        yield cray


def test_by_default_and_on_request(site: Cray) -> None:
    for user, image, more, wanted in (
        ("alice", "tiny:1", "", "base,base,base"),
        ("alice", "tiny:1", "UDI_MODULES=hers", "base;hers,hers:base,base hers"),
        ("alice", "tiny:1", "UDI_MODULES=none", ",,"),
        ("bob", "secret:1", "", "base,base,base"),
    ):
        done = site.run(user, f"{_RUN} {_LOOK}\n", image=image, more=more)
        assert done.output.splitlines() == [wanted] * 4, (more, done.error)
        site.assert_clean()


def test_without_udi_run_a_program_sees_the_mounts_alone(site: Cray) -> None:
    done = site.run("alice", f"aprun -q -n 1 -N 1 -b {_LOOK}\n", more="UDI_MODULES=hers")
    assert done.output.splitlines() == [",,base hers"], done.error


@pytest.mark.parametrize(
    ("user", "image", "modules", "said"),
    [
        ("bob", "secret:1", "hers", "module hers is not for bob (see udi modules)"),
        ("alice", "tiny:1", "her", "no module 'her' on this system (did you mean hers?; see udi modules)"),
        ("alice", "tiny:1", "a b", "not a module's name: 'a b' (modules are separated by ;)"),
        ("alice", "", "base", "UDI_MODULES=base is given, but no image (add UDI=NAME:TAG to the same list)"),
    ],
)
def test_refused_at_submission(site: Cray, user: str, image: str, modules: str, said: str) -> None:
    listed = ",".join([*([f"UDI={image}"] if image else []), f"UDI_MODULES={modules}"])
    ours = site.refused(user, "-v", listed)
    assert said in ours


def test_past_the_filter_the_prologue_refuses(site: Cray) -> None:
    with site.without_filter():
        done = site.run("bob", image="secret:1", more="UDI_MODULES=hers")
    assert (done.state, done.starts) == ("C", 1) and "module hers is not for bob" in done.error
    site.assert_clean()


def test_a_node_that_lacks_what_was_asked_for_ends_the_job_and_stays_in_service(site: Cray) -> None:
    done = site.run("alice", more="UDI_MODULES=gpu")
    assert done.starts == 1 and done.output == ""
    assert "module gpu is not for this node, which has no /dev/no-such-device; request nodes that have it" in done.error
    assert set(site.statuses().values()) == {"up"}
    site.assert_clean()


def test_the_mpich_of_each_rank_is_the_image_s_or_the_site_s(site: Cray, tmp_path: Path) -> None:
    """xcsim has ranks and no PMI, so which library each rank has loaded; messages go under a real Slurm."""
    put_own(site.machine.path("/scratch/site/mpich"))
    home = site.machine.path("/home/alice")
    owner = home.stat()
    layers = [*images.tiny("ring"), program_with_libraries(tmp_path)]
    site.ids["ring:1"] = images.save(home / "ring.tar", layers, "ring:1", (owner.st_uid, owner.st_gid))
    site.udi("alice", "pull", "docker-archive:/home/alice/ring.tar")
    for more, line in (
        ("UDI_MODULES=none", f"inside {DEBIANS} ch4:"),
        ("UDI_MODULES=none;mpich", "inside /opt/udi-site/mpich/libmpich.so.12 ch3:"),
    ):
        done = site.run("alice", f"{_RUN} /bin/ring\n", image="ring:1", more=more)
        assert done.output.splitlines() == [line] * 4, done.error
    site.assert_clean()


def test_udi_modules(site: Cray) -> None:
    assert site.udi("bob", "modules").stdout.splitlines()[3] == "hers    not for you  alice's own"
    assert site.udi("alice", "modules").stdout.splitlines()[3] == "hers    on request  alice's own"


def test_a_session_on_a_login_node(site: Cray) -> None:
    with site.configured({"modules": _MODULES, "sessions": {"enabled": True, "users": ["alice"]}}):
        site.admin("install", "--root", "/")
        script = "echo $UDI_MODULES_USED,$LIST,$(cat /opt/udi-site/*/name)"
        done = site.udi("alice", "shell", "--module", "hers", "tiny:1", "--", "sh", "-c", script)
        assert done.stdout == "base;hers,hers:base,base hers\n"
        refused = site.udi("alice", "shell", "--module", "gpu", "tiny:1", code=3)
        assert "module gpu is not for this node, which has no /dev/no-such-device" in refused.stderr
    assert left(site) == []


def test_udi_submit(site: Cray) -> None:
    done = site.udi("alice", "submit", "--print", "--module", "hers", "--module=base", "tiny:1", "--", "id")
    assert "UDI=tiny:1,UDI_MODULES=hers;base" in done.stdout
