"""Completion in real shells: commands, options, images of the caller, and names that are none."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import pytest

from admin.sitefiles.documents import commands, completions
from gateway.wire import events, protocol
from gateway.wire.events import Done
from gateway.wire.messages import ImageList, ImageRow
from tests.commands import commands_of
from tests.unit.shells import Terminal

IMAGES = ("debian:12", "debian:12-slim", "registry.example.org:5000/team/app:v1", "ubuntu:24.04")
PROGRAMS = {"udi": "outside.cli", "udi-admin": "admin.cli", "udi-gateway": "gateway.service.cli"}


class Site:
    """Programs, completion scripts, and a gateway that answers each request with the same names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names: list[str] = list(IMAGES)
        self.waits = 0.0
        self.asked = 0
        self.share = directory / "share"
        for path, text in completions().items():
            (self.share / path).parent.mkdir(parents=True, exist_ok=True)
            (self.share / path).write_text(text)
        (directory / "udi.toml").write_text(
            f'[store]\npath = "{directory}"\naccount = "0"\n[gateway]\nsocket = "{directory}/sock"\n'
        )
        self.bin = directory / "bin"
        self.bin.mkdir()
        for name, module in PROGRAMS.items():
            program = self.bin / name
            program.write_text(
                f"#!/bin/sh\nexec {sys.executable} -c 'import sys; from {module} import main; sys.exit(main())'"
                f' --config {directory}/udi.toml "$@"\n'
            )
            program.chmod(0o755)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(f"{directory}/sock")
        self._server.listen(8)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.directory),
            "XDG_DATA_DIRS": f"{self.share}:/usr/share",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "LANG": "C.UTF-8",
        }

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, ExitStack() as stack:
                protocol.receive(connection, 5, stack)
                self.asked += 1
                time.sleep(self.waits)
                rows = tuple(
                    ImageRow(reference=name, id="0" * 64, public=False, groups=(), created=0, used=0, format="", size=0)
                    for name in self.names
                )
                with contextlib.suppress(BrokenPipeError):  # a shell that has its answer from elsewhere waits no more
                    connection.sendall(events.to_json(Done(ImageList(images=rows))).encode() + b"\n")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def needs(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"needs {program}")


@pytest.fixture
def bash(site: Site) -> Iterator[Terminal]:
    """With Debian's bash-completion, which finds our scripts by itself."""
    loader = "/usr/share/bash-completion/bash_completion"
    if not os.path.exists(loader):
        pytest.skip("needs bash-completion")
    setup = f"bind 'set bell-style none' 'set page-completions off'; cd {site.directory}; . {loader}"
    with Terminal(["/bin/bash", "--norc", "-i"], site.environment, setup) as terminal:
        yield terminal


@pytest.fixture
def zsh(site: Site) -> Iterator[Terminal]:
    needs("zsh")
    setup = (
        f"unsetopt beep prompt_sp; bindkey -e; cd {site.directory}; fpath=({site.share}/zsh/site-functions $fpath);"
        " autoload -Uz compinit; compinit -u -D"
    )
    with Terminal(["/usr/bin/zsh", "-f", "-i"], site.environment, setup) as terminal:
        yield terminal


def fish(site: Site, line: str, *, word: str = "") -> list[str]:
    needs("fish")
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {site.share}/fish/vendor_completions.d/{word or 'udi'}.fish;"
         ' complete -C "$argv[1]"', line],
        env=site.environment, cwd=site.directory, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_bash(site: Site, bash: Terminal) -> None:
    assert bash.words_of("udi insp\tubu\t") == ["udi", "inspect", "ubuntu:24.04"]
    assert bash.words_of("udi lookup debian:12-\t") == ["udi", "lookup", "debian:12-slim"]
    assert bash.words_of("udi rm registry.example.org:50\t") == ["udi", "rm", IMAGES[2]]
    assert bash.words_of("udi pull --format=sq\t") == ["udi", "pull", "--format=squashfs"]
    assert bash.words_of("udi submit -N2 ubu\t-- udi.t\t") == ["udi", "submit", "-N2", "ubuntu:24.04", "--", "udi.toml"]
    shown = bash.shown_for("udi rm debian:\t\t\t")
    assert "12-slim" in shown and "ubuntu" not in shown
    assert bash.words_of("udi-admin check\t") == ["udi-admin", "check-config"]
    assert bash.words_of("udi-run --clear\t") == ["udi-run", "--clear-env"]


def test_zsh(site: Site, zsh: Terminal) -> None:
    assert zsh.words_of("udi insp\tubu\t") == ["udi", "inspect", "ubuntu:24.04"]
    assert zsh.words_of("udi lookup debian:12-\t") == ["udi", "lookup", "debian:12-slim"]
    assert zsh.words_of("udi pull --format=sq\t") == ["udi", "pull", "--format=squashfs"]
    assert zsh.words_of("udi submit -N2 ubu\t-- udi.t\t") == ["udi", "submit", "-N2", "ubuntu:24.04", "--", "udi.toml"]
    assert "Remove a name of yours" in zsh.shown_for("udi r\t\t")
    assert zsh.words_of("udi-run --clear\t") == ["udi-run", "--clear-env"]


def test_fish(site: Site) -> None:
    assert fish(site, "udi insp")[0].startswith("inspect\tShow what is known")
    assert fish(site, "udi rm deb") == ["debian:12", "debian:12-slim"]
    assert fish(site, "udi pull --format=sq") == ["--format=squashfs"]
    assert fish(site, "udi submit -N2 ubuntu:24.04 -- udi.t") == ["udi.toml"]
    assert fish(site, "udi-run --cl", word="udi-run")[0].startswith("--clear-env\t")


HOSTILE = (
    *("$(touch pwned)", "`touch pwned`", ";touch pwned", "x\ttouch", "x\nplain\tpwned"),
    *("*", "~root", "-rf$IFS", "'", "\x1b[2J", "file*"),
)


def test_what_a_shell_would_read_is_never_offered(site: Site, bash: Terminal) -> None:
    """Files with such names lie there too, so a pattern that is expanded would show."""
    site.names = ["=ls", *HOSTILE, *(f"evil{name}" for name in HOSTILE), "evil:1"]
    (site.directory / "evilfile").touch()
    assert bash.words_of("udi rm ev\t") == ["udi", "rm", "evil:1"]
    assert fish(site, "udi rm ") == ["evil:1"]
    assert not (site.directory / "pwned").exists()


def test_zsh_runs_nothing_either(site: Site, zsh: Terminal) -> None:
    site.names = ["=ls", *HOSTILE, *(f"evil{name}" for name in HOSTILE), "evil:1"]
    assert zsh.words_of("udi rm ev\t") == ["udi", "rm", "evil:1"]
    assert not (site.directory / "pwned").exists()


IMAGE_ARGUMENTS = ("image", "reference", "source")
"""What arguments are called that are an image of the store, or may be one."""
WITHOUT_THE_GATEWAY = ("udi-gateway", "convert")
"""It takes an image from where images come from."""


def image_arguments() -> Iterator[tuple[str, str]]:
    """Programs, and the words up to where an image is to be typed."""
    for program, whole in commands().items():
        assert isinstance(whole, click.Group)
        for name, command in commands_of(whole).items():
            for number, parameter in enumerate(p for p in command.params if isinstance(p, click.Argument)):
                is_image = parameter.name in IMAGE_ARGUMENTS or "IMAGE" in (parameter.metavar or "")
                if is_image and (program, name) != WITHOUT_THE_GATEWAY:
                    yield program, " ".join([program, name, *["x"] * number, "ubu"])


def test_every_image_is_completed(site: Site) -> None:
    """Of all programs: each argument that is an image is completed by the names that the gateway has."""
    found = list(image_arguments())
    assert {"udi-admin try ubu", "udi submit ubu", "udi run ubu", "udi rm ubu", "udi pull ubu"} <= {x for _, x in found}
    for program, line in found:
        environment = site.environment | {f"_{program.upper().replace('-', '_')}_COMPLETE": "fish_complete"}
        done = subprocess.run(
            [site.bin / program], env=environment | {"COMP_LINE": line}, capture_output=True, text=True, check=True,
            timeout=30,
        )  # fmt: skip
        assert done.stdout.split() == ["plain", "ubuntu:24.04"], line


def ask(site: Site, line: str, **more: str) -> tuple[str, str, float]:
    environment = site.environment | {"_UDI_COMPLETE": "fish_complete", "COMP_LINE": line} | more
    start = time.monotonic()
    done = subprocess.run([site.bin / "udi"], env=environment, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip(), done.stderr, time.monotonic() - start


def test_a_gateway_that_does_not_answer_is_not_waited_for(site: Site) -> None:
    site.waits = 8
    said, wrong, seconds = ask(site, "udi rm ")
    assert (said, wrong) == ("", "") and site.asked == 1
    assert seconds < 6


@pytest.mark.parametrize("trouble", ["no gateway", "no configuration", "nonsense"])
def test_what_is_wrong_is_not_said(site: Site, trouble: str) -> None:
    if trouble == "no gateway":
        site.close()
        (site.directory / "sock").unlink()
    else:
        (site.directory / "udi.toml").write_text("nonsense" if trouble == "nonsense" else "")
    assert ask(site, "udi rm ")[:2] == ("", "")
    assert "inspect" in ask(site, "udi ins")[0]


def test_the_scripts_are_static(site: Site) -> None:
    """At login no shell starts a program of ours; bash and zsh check their syntax."""
    for path in site.share.rglob("*"):
        if path.is_file():
            assert "eval" not in path.read_text()
            shell = {"bash-completion": "bash", "zsh": "zsh", "fish": "fish"}[path.relative_to(site.share).parts[0]]
            needs(shell)
            subprocess.run([shell, "-n", path], check=True, env=site.environment)
