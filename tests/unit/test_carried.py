"""What a job carries of an environment file: nothing is lost on the way, and whatever else is there is refused."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torque_hooks.pin import carried_text, with_carried
from udi.accounts import Account
from udi.carried import MAX_TEXT, UNCHANGED, Carried, RunChanges, asked
from udi.environment import EnvironmentConfig
from udi.facts import Facts
from udi.rundata import run_data
from udiroot.errors import UsageError

ALICE = Account("alice", 1500, 1500, (1500,), "/home/alice", "/bin/bash")
PRINTABLE = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))
TEXT = st.text(PRINTABLE, max_size=20)
NAME = st.text(string.ascii_uppercase + "_", min_size=1, max_size=8).map("X{}".format)
ELEMENT = TEXT.filter(lambda text: "" not in text.split(":"))
CHANGE = (
    NAME.map(lambda name: ("unset", name))
    | st.tuples(NAME, TEXT).map(lambda pair: ("set", "=".join(pair)))
    | st.tuples(st.sampled_from(["prepend", "append"]), NAME, ELEMENT).map(lambda one: (one[0], f"{one[1]}={one[2]}"))
)
WORDS = st.none() | st.lists(TEXT, max_size=3).map(tuple)
RUNS = st.builds(
    RunChanges,
    st.sampled_from(["", "/", "/a/b c", "/é;="]),
    WORDS.filter(lambda words: not words or words[0] != ""),
    WORDS,
    st.lists(CHANGE, max_size=5).map(tuple),
)
CARRIED = st.builds(Carried, TEXT.filter(bool), TEXT.filter(bool), TEXT, TEXT, RUNS)


@given(CARRIED)
def test_what_is_carried_arrives_through_a_script(carried: Carried) -> None:
    text = carried.text()
    assert Carried.parse(text) == carried
    assert not set(text) - set(string.ascii_letters + string.digits + ";=%/:@.+-_~")
    for script in (b"#!/bin/sh\ntrue\n", b"true", b"", with_carried(b"#!/bin/sh", "file=other;image=old")):
        assert carried_text(with_carried(script, text)) == text
        assert all(len(line) < 1000 for line in with_carried(script, text).split(b"\n"))


@given(st.text(max_size=80) | st.text("fileimagset=;%0A/", max_size=80))
def test_any_text_is_refused_or_means_one_thing(text: str) -> None:
    try:
        found = Carried.parse(text)
    except UsageError:
        return
    assert Carried.parse(found.text()) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not understood"),
        ("file=a", "is not understood, at file and image"),
        ("file=a;image=b;image=c", "is not understood, at image"),
        ("file=a;image=b%0Aid", "is not understood, at image"),
        ("file=a;image=%FF", "is not understood, at image"),
        ("file=a;image=é", "is not understood, at image"),
        ("file=a;image=b;arg=x", "is not understood, at arg"),
        ("file=a;image=b;own=own", "is not understood, at own"),
        ("file=a;image=b;prog=x", "is not understood, at prog"),
        ("file=a;image=b;workdir=../x", "a: workdir must be a plain absolute path, not '../x'"),
        ("file=a;image=b;workdir=/x%0Ay", "workdir"),
        ("file=a;image=b;set=HOME%3D/", "a: environment must not have HOME, which is the job's"),
        ("file=a;image=b;set=A%3D1%00", "a: environment has a control character at A"),
        ("file=a;image=b;set=A", "a: environment has no variable at A"),
        ("file=a;image=b;unset=A%3D", "a: environment has no variable at A"),
        ("file=a;image=b;prepend=A%3D", "must have no empty element"),
        ("file=a;image=b;own=entrypoint;word=", "a: entrypoint must begin with a program"),
        ("file=a;image=b;own=args;arg=%1B", "a: args has a control character"),
        ("x" * (MAX_TEXT + 1), f"carries {MAX_TEXT + 1} bytes"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Carried.parse(text)
    assert said in caught.value.message


def test_what_is_too_much_for_a_job() -> None:
    with pytest.raises(UsageError, match="over 16384"):
        Carried("f", "a", run=RunChanges(environment=(("set", f"A={'x' * MAX_TEXT}"),))).text()


def test_asked() -> None:
    carried = Carried("run.toml", "debian:12", "/a:/b", "mpich", RunChanges("/w")).text()
    assert asked("debian", "/a:/b", "x", carried) == ("debian", "/a:/b", "x", UNCHANGED)
    assert asked(" @run.toml", "/c:/d", "gpu", carried) == ("debian:12", "/a:/b;/c:/d", "mpich;gpu", RunChanges("/w"))
    with pytest.raises(UsageError, match=r"environment file run.toml: the job carries nothing of it"):
        asked("@run.toml")
    with pytest.raises(UsageError, match=r"was to have environment file /b.toml, and carries run.toml"):
        asked("@/b.toml", carried=carried)


def data(run: RunChanges) -> list[str]:
    facts = Facts(
        id="ab" * 32,
        format="squashfs",
        size=1,
        sha256="0" * 64,
        env=("A=image", "B=image"),
        entrypoint=("/e",),
        cmd=("c",),
        workdir="/image",
    )
    text = run_data(facts, EnvironmentConfig(set={"A": "site"}), ALICE, "debian", with_modules=True, changes=run)
    return text.split("\0")


def test_over_the_image_the_site_and_its_modules() -> None:
    lines = data(RunChanges("/own", ("/p", "q"), None, (("set", "A=own"), ("unset", "B"))))
    assert "workdir /own" in lines and "workdir /image" not in lines
    assert [line for line in lines if line.startswith(("entrypoint", "cmd"))] == ["entrypoint /p", "entrypoint q"]
    order = [lines.index(each) for each in ("set A=image", "set A=site", "modules", "set A=own", "unset B")]
    assert order == sorted(order) and order[-1] < lines.index("set HOME=/home/alice")


@pytest.mark.parametrize(
    ("run", "program"),
    [
        (UNCHANGED, ["entrypoint /e", "cmd c"]),
        (RunChanges(args=("x", "y")), ["entrypoint /e", "cmd x", "cmd y"]),
        (RunChanges(args=()), ["entrypoint /e"]),
        (RunChanges(entrypoint=()), ["cmd c"]),
        (RunChanges(entrypoint=("/p",), args=("x",)), ["entrypoint /p", "cmd x"]),
    ],
)
def test_program(run: RunChanges, program: list[str]) -> None:
    assert [line for line in data(run) if line.startswith(("entrypoint", "cmd"))] == program
