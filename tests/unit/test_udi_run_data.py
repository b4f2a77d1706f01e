"""What `udi-run` is given for a job, and the site's part of it: all that cannot be started with is refused before."""

from __future__ import annotations

from pathlib import Path

import pytest

from admin.install.built import built
from udi.accounts import Account
from udi.config import parse
from udi.facts import Facts
from udi.rundata import run_data
from udiroot.errors import ConfigError, ImageInvalid
from udiroot.fields import escape, unescape

ALICE = Account("alice", 1001, 1001, (1001,), "/home/alice", "/bin/tcsh")


def site(text: str) -> str:
    return f'[store]\npath = "/x"\n[environment]\n{text}\n'


def data(text: str = "", **facts: object) -> str:
    values: dict[str, object] = {"id": "ab" * 32, "format": "squashfs", "size": 1, "sha256": "0" * 64}
    made = Facts(**(values | facts))  # type: ignore[arg-type]
    return run_data(made, parse(site(text), "udi.toml").environment, ALICE, "app:1", "/opt/udi/bin")


def test_records_in_their_order() -> None:
    text = data(
        'set = { "a.b" = "1 2" }\nunset = ["X"]\nprepend = { L = "/p" }\nappend = { L = "/q" }',
        env=("A=x\ny",),
        workdir="analysis",
        entrypoint=("/e", ""),
        cmd=("c d",),
    )
    assert text.split("\0") == [
        "udi-run 1", "workdir /analysis", "entrypoint /e", "entrypoint ", "cmd c d", "set A=x\ny",
        "set PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "unset X", "set a.b=1 2",
        "prepend L=/p", "append L=/q", "set HOME=/home/alice", "set USER=alice", "set LOGNAME=alice",
        "set UDI_IMAGE=app:1", f"set UDI_IMAGE_ID={'ab' * 32}", "shell /bin/tcsh", "prepend PATH=/opt/udi/bin",
        "end", "",
    ]  # fmt: skip
    assert unescape(escape(text)) == text


@pytest.mark.parametrize(
    "facts",
    [
        {"env": ("A=x\0end\0",)},
        {"entrypoint": ("/a\0",)},
        {"cmd": ("\0",)},
        {"workdir": "/a\0set LD_PRELOAD=x"},
        {"env": ("A=\ud800",)},
        {"env": tuple(f"A{number}={'x' * 100_000}" for number in range(30))},
    ],
    ids=["forged", "entrypoint", "cmd", "workdir", "surrogate", "large"],
)
def test_what_no_program_can_be_started_with_is_the_image_s_fault(facts: dict[str, object]) -> None:
    with pytest.raises(ImageInvalid):
        data(**facts)  # type: ignore[arg-type]


def test_an_installation_without_the_program_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"install\.udi_run_built: .*/udi-run: no such file") as caught:
        built(f"{tmp_path}/udi-run", "install.udi_run_built", "udi-run")
    assert "make udi-run" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('unset = ["HOME"]', "environment.unset must not have HOME, which is the job's"),
        ('set = { UDI_IMAGE = "x" }', "environment.set must not have UDI_IMAGE, which is the job's"),
        ('append = { SHELL = "x" }', "environment.append must not have SHELL"),
        ('set = { "" = "x" }', "environment.set must name variables, not ''"),
        ('set = { "A=B" = "x" }', "environment.set must name variables, not 'A=B'"),
        ('unset = ["A\\u007fB"]', "control character"),
        ('set = { "A\\nB" = "x" }', "environment.set must name variables"),
        ('set = { A = "a\\nb" }', "environment.set.A contains a control character"),
        ("set = { A = 1 }", "environment.set.A must be a string, not 1"),
        ('set = ["A=1"]', "environment.set must be a table of names and values"),
        ('prepend = { A = "/x:" }', "environment.prepend must have no empty element, and A is '/x:'"),
        ('append = { A = "" }', "environment.append must have no empty element, and A is ''"),
        ('append = { A = ":/x" }', "environment.append must have no empty element"),
        ('prepend = { A = "/x::/y" }', "environment.prepend must have no empty element"),
        ('unset = ["A"]\nset = { A = "" }', "environment.unset: A is also in set"),
        ('prepended = { A = "/x" }', "unknown key environment.prepended"),
    ],
)
def test_a_site_s_environment_that_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(site(text), "udi.toml")
    assert message in caught.value.message
