"""The submission program: what the plugin reads from it, and what the user does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.client import client
from gateway.client.client import Pending
from gateway.wire.messages import Found
from slurm_hooks import submit
from udi.config import SiteConfig
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, TimedOut, UdiError, UpstreamFailed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a configuration is root's")
ID = "ab" * 32
Run = Callable[..., tuple[int, str, str]]

MODULES = """
[modules.mpi]
default = true
environment.set = {MPI = "1"}
[modules.gpu]
environment.set = {GPU = "1"}
[modules.theirs]
users = ["nobody"]
environment.set = {X = "1"}
"""


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the program; its exit code, what the plugin gets, and what the user reads. The gateway answers `found`."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/data").touch()
    config = tmp_path / "udi.toml"
    config.write_text(f'[store]\npath = "{tmp_path}"\n[volumes]\nallowed = ["{tmp_path}/scratch"]\n{MODULES}')

    def once(
        *words: str, found: str | Pending | UdiError = ID, warnings: tuple[str, ...] = (), **environment: str
    ) -> tuple[int, str, str]:
        def answer(site: SiteConfig, reference: str, **more: object) -> Found | Pending:
            if isinstance(found, UdiError):
                raise found
            return found if isinstance(found, Pending) else Found(reference=reference, id=found, warnings=warnings)

        monkeypatch.setattr(client, "submit", answer)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code = submit.main(["--config", str(config), *words])
        out, err = capfd.readouterr()
        return code, out, err

    return once


def answer(image: str, found: str = ID, volumes: str = "", modules: str = "", carried: str = "") -> str:
    return f"image {image}\nid {found}\nvolumes {volumes}\nmodules {modules}\nrun {carried}\nend\n"


@pytest.mark.parametrize("text", ["debian:12", "docker.io/library/debian:12", "docker:debian:12", " debian:12"])
def test_accepted(run: Run, text: str) -> None:
    assert run("--image", text) == (0, answer("debian:12"), "")


def test_the_file_at_home(run: Run, tmp_path: Path) -> None:
    sites = tmp_path / "chos.d"
    sites.mkdir(mode=0o755)
    (sites / "site.toml").write_text('[sl6]\npath = "/chos/sl6"\n')
    (sites / "site.toml").chmod(0o644)
    config, home = tmp_path / "udi.toml", tmp_path / ".chos"
    home.write_text("sl6\n")
    nothing = (0, answer("none", "-"), "")
    code, out, err = run("--image", "~/.chos", HOME=str(tmp_path))
    assert (code, out) == nothing[:2] and "~/.chos is not read, since chos.home_file is off" in err
    text = config.read_text() + f'[chos]\nhome_file = true\nmap = "{sites}"\n'
    config.write_text(text)
    assert run("--image", "~/.chos", HOME=str(tmp_path)) == (0, answer("chos:sl6"), "")
    code, out, err = run("--image", "~/.chos", HOME=str(tmp_path), found=UpstreamFailed("it is down"))
    assert (code, out) == (0, answer("chos:sl6", "-")) and "image not checked" in err
    home.write_text("sl5\n")
    code, out, err = run("--image", "~/.chos", HOME=str(tmp_path))
    assert (code, out) == nothing[:2] and "names 'sl5', which the site does not have" in err
    config.write_text("[chos]\n")
    home.write_text("sl6\n")
    code, out, err = run("--image", "~/.chos", HOME=str(tmp_path))
    assert (code, out) == nothing[:2] and "~/.chos is not read, the job runs without an image" in err


def test_warnings_are_shown_and_the_job_is_accepted(run: Run) -> None:
    code, out, err = run("--image", "debian:12", warnings=("image debian:12 has 1 high finding\x1b[31m",))
    assert (code, out) == (0, answer("debian:12"))
    assert err == "udi-slurm-submit: warning: image debian:12 has 1 high finding\\x1b[31m\n"


def test_an_image_that_the_site_refuses(run: Run) -> None:
    refused = NotPermitted("image debian:12 has 1 critical finding, which this site refuses for new jobs", "see it")
    code, out, err = run("--image", "debian:12", found=refused)
    assert (code, out, err.count("\n")) == (4, "", 1) and "1 critical finding" in err and "see it" in err


def test_docker_before_a_name_alone(run: Run) -> None:
    assert run("--image", "docker:debian")[1] == answer("debian:latest")


def test_volumes(run: Run, tmp_path: Path) -> None:
    volume = f"{tmp_path}/scratch/data:/data"
    assert run("--image", "debian", "--volumes", f"{volume}:ro;")[1] == answer("debian:latest", ID, f"{volume}:ro")


def test_modules(run: Run) -> None:
    """What was asked for is kept as it was asked for: which are there by default, the site says when the job starts."""
    assert run("--image", "debian", "--modules", " gpu ;;mpi;gpu")[1] == answer("debian:latest", ID, "", "gpu;mpi")
    assert run("--image", "debian", "--modules", "none")[1] == answer("debian:latest", ID, "", "none")
    assert run("--image", "debian")[1] == answer("debian:latest")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--image", "debian", "--modules", "gpus"), "no module 'gpus' on this system (did you mean gpu?"),
        (("--image", "debian", "--modules", "mpi,gpu"), "not a module's name: 'mpi,gpu'"),
        (("--image", "debian", "--modules", "theirs"), "module theirs is not for root"),
        (("--image", "debian:$(id)"), "not an image name: 'debian:$(id)'"),
        (("--image", "debian", "--volumes", "/etc:/mnt"), "source /etc is not in a directory that the site allows"),
        (("--image", "debian", "--volumes", "/etc"), "not a volume: '/etc'"),
        (("--image", "debian", "--volumes", "{scratch}/gone:/mnt"), "/scratch/gone does not exist"),
    ],
)
def test_refused_with_one_line(run: Run, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    code, out, err = run(*(word.format(scratch=tmp_path / "scratch") for word in words))
    assert code in (2, 3, 4) and out == ""
    assert err.startswith("udi-slurm-submit: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize("error", [NotFound("image 'x' not found", "did you mean y?"), ImageInvalid("no root")])
def test_what_the_gateway_refuses_for_the_user(run: Run, error: UdiError) -> None:
    code, out, err = run("--image", "x", found=error)
    assert (code, out) == (error.exit_code, "") and error.message in err


@pytest.mark.parametrize("error", [UpstreamFailed("the image gateway is not running"), TimedOut("no answer")])
def test_a_gateway_that_fails_costs_no_job(run: Run, error: UdiError) -> None:
    code, out, err = run("--image", "debian", found=error)
    assert (code, out) == (0, answer("debian:latest", "-"))
    assert f"image not checked, it will be when the job starts: {error.message}" in err


def test_a_pull_that_is_not_waited_for(run: Run) -> None:
    code, out, err = run("--image", "debian", found=Pending("debian:latest"), UDI_WAIT="no")
    assert (code, out) == (0, answer("debian:latest", "-"))
    assert "image debian:latest is being pulled (the job fails if the pull has not finished by job start)" in err
    assert run("--image", "debian", UDI_WAIT="maybe")[0] == 2


def test_without_a_configuration_the_text_is_still_checked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "udi.toml").unlink()
    code, out, err = run("--image", "docker:debian")
    assert (code, out) == (0, answer("debian:latest", "-")) and "image not checked" in err
    assert run("--image", "Debian!")[0] == 2 and run("--image", "debian", "--volumes", "x")[0] == 2
    assert run("--image", "debian", "--modules", "a b")[0] == 2
    assert run("--image", "debian", "--modules", "any;b")[1] == answer("debian:latest", "-", "", "any;b")


def test_an_environment_file(run: Run, tmp_path: Path) -> None:
    file, data = tmp_path / "run.toml", tmp_path / "scratch/data"
    file.write_text(f'image = "debian:12"\nvolumes = ["{data}:/a"]\n[environment]\nA = "1 2"\n')
    carried = f"file={file};image=debian:12;volumes={data}:/a;set=A%3D1%202"
    assert run("--image", f"@{file}") == (0, answer("debian:12", carried=carried), "")
    typed = run("--image", f"@{file}", "--volumes", f"{data}:/b", "--modules", "gpu")
    assert typed == (0, answer("debian:12", ID, f"{data}:/b", "gpu", carried), "")
    assert "have the same target" in run("--image", f"@{file}", "--volumes", f"{data}/x:/a")[2]
    job = ("--job", "7", "--job-image", f"@{file}")
    environment = {"SLURM_SPANK_UDI_RUN": carried}
    file.unlink()
    for step in ("debian:12", "docker:debian:12", f"@{file}"):
        assert run("--image", step, *job, **environment)[:2] == (0, answer("debian:12", "-"))
    code, out, err = run("--image", "@other.toml", *job, **environment)
    assert (code, out) == (2, "") and "environment file other.toml was asked for in job 7" in err
    assert run("--image", "debian:13", *job, **environment)[0] == 2
    code, out, err = run("--image", f"@{file}")
    line = f"udi-slurm-submit: environment file {file}: it cannot be read: no such file or directory\n"
    assert (code, out, err) == (2, "", line)


def test_a_step_names_its_jobs_image_by_any_name(run: Run) -> None:
    job = ("--job", "7", "--job-image", "docker:debian:12")
    environment = {"SLURM_SPANK_UDI_ID": ID}
    for text in ("debian:12", "docker.io/library/debian:12", f"id:{ID}"):
        assert run("--image", text, *job, **environment)[:2] == (0, answer("debian:12"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--image", "debian:13", "--job", "7", "--job-image", "debian:12"), "but job 7 runs in image debian:12"),
        (("--image", "id:" + "cd" * 32, "--job", "7", "--job-image", "debian:12"), "but job 7 runs in image debian:12"),
        (("--image", "debian", "--job", "7", "--job-image", ""), "but job 7 was submitted without an image"),
        (
            ("--image", "debian", "--job", "7", "--job-image", "debian", "--volumes", "/a:/b"),
            "a step of job 7 cannot have volumes of its own",
        ),
        (
            ("--image", "debian", "--job", "7", "--job-image", "debian", "--modules", "gpu"),
            "a step of job 7 cannot have modules of its own",
        ),
    ],
)
def test_a_step_that_wants_something_else(run: Run, words: tuple[str, ...], message: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_a_plugin_of_another_version(run: Run) -> None:
    assert run("--image")[0] == run("--picture", "x")[0] == run("--volumes", "x")[0] == 6
