"""Site modules in jobs of a real Slurm: by default, on request, and refused in one line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Slurm

_LOOK = 'echo "$UDI_MODULES_USED|$LIST|$(cat /opt/udi-site/*/name 2>/dev/null | tr "\\n" " ")"'
_MODULES = {
    "base": {
        "description": "for everybody",
        "default": True,
        "mounts": ["/scratch/site/base:/opt/udi-site/base:ro"],
        "environment": {"prepend": {"LIST": "base"}},
    },
    "hers": {
        "users": ["alice"],
        "mounts": ["/scratch/site/hers:/opt/udi-site/hers:ro"],
        "environment": {"prepend": {"LIST": "hers"}},
    },
    "gpu": {"present": ["/dev/no-such-device"], "environment": {"set": {"GPU": "1"}}},
    "gone": {"mounts": ["/scratch/site/gone:/gone:ro"]},
}


@pytest.fixture
def site(slurm: Slurm) -> Iterator[Slurm]:
    for name in ("base", "hers"):
        directory = slurm.cluster.directory / f"scratch/site/{name}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "name").write_text(f"{name}\n")
    with slurm.configured({"modules": _MODULES}):
        yield slurm


def test_by_default_and_on_request(site: Slurm) -> None:
    """In a batch script and in its steps, whatever they say again of their job's modules."""
    for option, wanted in (
        ([], "base|base|base "),
        (["--module=hers"], "base;hers|hers:base|base hers "),
        (["--module=none;hers"], "hers|hers|hers "),
        (["--module=none"], "|"),
    ):
        done = site.run("alice", "srun", "--image=tiny:1", *option, "sh", "-c", _LOOK)
        assert done.stdout.strip() == (wanted.strip() if wanted != "|" else "||"), (option, done.stderr)
    script = f"{_LOOK}; [ -z $GPU ] && echo none"
    assert site.batch("alice", script, "--image=tiny:1", "--module=hers") == (
        0,
        "base;hers|hers:base|base hers \nnone\n",
    )
    assert site.batch("bob", _LOOK, "--image=secret:1") == (0, "base|base|base \n")


def test_a_step_has_its_jobs_modules(site: Slurm) -> None:
    script = f"exec 2>&1; srun sh -c '{_LOOK}'; srun --module=hers sh -c '{_LOOK}'; srun --module=gpu true; echo $?"
    done = site.run("alice", "salloc", "-Q", "--image=tiny:1", "--module=hers", "sh", "-c", script)
    inside, again, *refused = done.stdout.splitlines()
    assert inside == again == "base;hers|hers:base|base hers "
    lines = [line for line in refused if "modules" in line]
    assert len(lines) == 1, refused
    assert lines[0].endswith(
        "modules are the whole job's: give --module to sbatch, to salloc, or to an srun outside of a job"
    )
    assert refused[-1] != "0"


@pytest.mark.parametrize(
    ("user", "image", "module", "said"),
    [
        ("bob", "secret:1", "hers", "module hers is not for bob (see udi modules)"),
        ("alice", "tiny:1", "her", "no module 'her' on this system (did you mean hers?; see udi modules)"),
        ("alice", "tiny:1", "base,hers", "not a module's name: 'base,hers' (modules are separated by ;)"),
    ],
)  # fmt: skip
def test_refused_at_submission_in_one_line(site: Slurm, user: str, image: str, module: str, said: str) -> None:
    done = site.run(user, "srun", f"--image={image}", f"--module={module}", "true")
    assert (done.returncode, done.stderr.splitlines()) == (255, [f"udi-slurm-submit: {said}"])


def test_a_forged_request_is_refused_on_the_node(site: Slurm) -> None:
    """Past the submission program: what a user may have, the node decides."""
    for module, said in (("hers", "module hers is not for bob"), ("x;y", "no module 'x' on this system")):
        with site.answering(f"image secret:1\nid -\nvolumes \nmodules {module}\nend\n"):
            done = site.run("bob", "srun", "--image=secret:1", "true")
        assert done.returncode != 0
        assert said in done.stderr


def test_a_node_that_lacks_what_was_asked_for_says_so_and_stays_in_service(site: Slurm) -> None:
    done = site.run("alice", "srun", "--image=tiny:1", "--module=gpu", "true")
    assert done.returncode != 0
    assert "module gpu is not for this node, which has no /dev/no-such-device" in done.stderr
    assert set(site.cluster.states().values()) <= {"idle", "completing", "allocated", "mixed"}


def test_udi_modules(site: Slurm) -> None:
    assert site.run("bob", "udi", "modules").stdout.splitlines() == [
        "NAME  USE          DESCRIPTION",
        "base  by default   for everybody",
        "hers  not for you",
        "gpu   on request",
        "gone  on request",
    ]
