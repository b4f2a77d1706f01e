"""Environment files in whole jobs on a Cray: read as the user at submission, and carried from then on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.cray import Cray

_RUN = "aprun -q -n 2 -N 1 -b /opt/udi/bin/udi-run"
_SAYS = 'echo "$(cat /etc/marker) $MODE $LIST $(pwd) $(cat /output/name) $UDI_MODULES_USED"'
_FILE = f"""
image = "IMAGE"
volumes = ["/scratch/${{USER}}/run:/output"]
modules = ["extra"]
workdir = "/output"
entrypoint = ["/bin/sh", "-c"]
args = ['{_SAYS}']

[environment]
MODE = "a,b;c 'd' 100%"
LIST = "mine:${{LIST}}"
"""
_MODE = "a,b;c 'd' 100%"
_MODULES = {"extra": {"environment": {"set": {"LIST": "site"}}}}


@pytest.fixture
def site(cray: Cray) -> Iterator[Cray]:
    with cray.configured({"modules": _MODULES, "volumes": {"allowed": ["/scratch"]}}):
        yield cray


def write(cray: Cray, user: str, image: str, mode: int = 0o600) -> Path:
    """The user's file, in its home directory, and what its volume shows."""
    home, run = cray.machine.path(f"/home/{user}"), cray.machine.path(f"/scratch/{user}/run")
    run.mkdir(parents=True, exist_ok=True)
    (run / "name").write_text(f"{user}'s")
    path = home / "run.toml"
    path.write_text(_FILE.replace("IMAGE", image))
    path.chmod(mode)
    owner = home.stat()
    os.chown(path, owner.st_uid, owner.st_gid)
    return path


def says(cray: Cray, user: str, image: str) -> str:
    return f"{cray.marker(image)} {_MODE} mine:site /output {user}'s extra"


@pytest.mark.parametrize(("user", "image"), [("alice", "tiny:1"), ("bob", "secret:1")])
def test_a_job_keeps_what_its_file_said(site: Cray, user: str, image: str) -> None:
    """The file is gone before the job starts."""
    path = write(site, user, image)
    job = site.qsub(user, f"{_RUN}\n", "-h", image=f"@/home/{user}/run.toml")
    path.unlink()
    site.machine.run_as(user, ["qrls", job], check=True)
    done = site.ended(job)
    assert done.output.splitlines() == [says(site, user, image)] * 2, done.error
    site.assert_clean()


def test_what_is_typed_goes_over_the_file(site: Cray) -> None:
    write(site, "alice", "tiny:1")
    script = (
        f"#PBS -v UDI=@run.toml\n{_RUN} --workdir / --env MODE=typed -- sh -c '{_SAYS.replace('$(pwd)', '$PWD')}'\n"
    )
    done = site.run("alice", script, image="")
    assert done.output.splitlines() == [f"{site.marker('tiny:1')} typed mine:site / alice's extra"] * 2, done.error
    site.assert_clean()


def test_refused_at_submission(site: Cray) -> None:
    """Another's file, a wrong one, an image that the file's reader may not use; and nothing stays."""
    path = write(site, "alice", "tiny:1")
    site.machine.path("/home/alice").chmod(0o755)
    said = site.refused("bob", "-v", "UDI=@/home/alice/run.toml")
    assert said.endswith("environment file /home/alice/run.toml: it cannot be read: permission denied"), said
    path.chmod(0o644)
    assert "tiny:1" in site.refused("bob", "-v", "UDI=@/home/alice/run.toml")
    path.write_text('imgae = "tiny:1"\n')
    assert "unknown key 'imgae' (did you mean image?)" in site.refused("alice", "-v", "UDI=@/home/alice/run.toml")
    path.write_text('image = "tiny:1"\nvolumes = ["/root:/x"]\n')
    said = site.refused("alice", "-v", "UDI=@/home/alice/run.toml")
    assert "volume /root:/x: source /root is not in a directory that the site allows" in said


def test_past_the_filter_a_job_ends_with_the_reason(site: Cray) -> None:
    """Nothing of root's reads the file; what a script carries is its user's text."""
    write(site, "alice", "tiny:1")
    with site.without_filter():
        bare = site.run("alice", image="@/home/alice/run.toml")
        forged = site.run("alice", "#UDI carries file=x;image=tiny:1;set=A%0AB\ntrue\n", image="@x")
        others = site.run("bob", "#UDI carries file=x;image=tiny:1\ntrue\n", image="@x")
    assert "environment file /home/alice/run.toml: the job carries nothing of it" in bare.error
    assert "x: environment has a control character at A" in forged.error
    assert "tiny:1" in others.error
    assert [(done.state, done.starts, done.output) for done in (bare, forged, others)] == [("C", 1, "")] * 3
    site.assert_clean()


def test_without_a_script_and_on_a_login_node(site: Cray) -> None:
    write(site, "alice", "tiny:1")
    submitted = site.udi("alice", "submit", "-l", "nodes=2:ppn=1", "@/home/alice/run.toml")
    done = site.ended(submitted.stdout.strip())
    assert done.output.splitlines() == [says(site, "alice", "tiny:1")] * 2, done.error
    sessions = {"enabled": True, "users": ["alice"]}
    with site.configured({"modules": _MODULES, "volumes": {"allowed": ["/scratch"]}, "sessions": sessions}):
        site.admin("install", "--root", "/")
        inside = site.udi("alice", "shell", "@/home/alice/run.toml", "--", "sh", "-c", _SAYS)
    assert inside.stdout == says(site, "alice", "tiny:1") + "\n"
    site.assert_clean()


def test_check_and_show(site: Cray) -> None:
    path = write(site, "alice", "tiny:1")
    site.udi("alice", "env", "check", "/home/alice/run.toml")
    shown = site.udi("alice", "env", "show", "/home/alice/run.toml").stdout.splitlines()
    assert shown[:4] == [
        "image       tiny:1",
        f"id          {site.ids['tiny:1']}",
        "volume      /scratch/alice/run:/output",
        "module      extra",
    ]
    path.write_text('image = "tiny:1"\nvolumes = ["/root:/x", "/scratch/nothing:/y"]\nmodules = ["extre"]\n')
    refused = site.udi("alice", "env", "check", "/home/alice/run.toml", code=2).stderr.splitlines()
    assert len(refused) == 3 and "no module 'extre' on this system (did you mean extra?" in refused[2]
