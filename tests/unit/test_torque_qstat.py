"""Torque's own texts: qstat's XML, hook arguments, directives, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cray_standins import StandIns
from torque_hooks.arguments import config_and_rest, epilogue_call, prologue_call
from torque_hooks.directives import read_submission
from torque_hooks.exit_codes import prologue_code
from torque_hooks.qstat import parse_hosts, parse_job, read_job, split_variables
from torque_hooks.settings import TorqueConfig
from udi.command import Deadline, Late
from udi.platform import Host
from udiroot import errors
from udiroot.errors import UdiError, UpstreamFailed, UsageError

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("number", "job", "expected"),
    [
        ("1", "28.vm", {"UDI": "image:tag", "UDI_VOLUMES": "/a:/b"}),
        ("3", "30.vm", {"UDI_VOLUMES": '"/a:/b', '/c:/d"': "", "Z": "1"}),
        ("7", "34.vm", {"X": '<a&b>"q" tick\'', "Y": "backslashn", "Z": "1"}),
        ("11", "38.vm", {"UDI": "héllo☃", "NL": "line1", "line2": "", "TAB": "a\tb"}),
    ],
)
def test_captures(number: str, job: str, expected: dict[str, str]) -> None:
    found = parse_job((DATA / f"qstat-x-f1.qs{number}.xml").read_bytes(), job)
    assert expected.items() <= found.variables.items()
    assert found.name == f"qs{number}" and not found.is_interactive and found.join == "n"
    assert found.error_path == f"vm:/home/alice/qs{number}.e{job[:2]}"
    assert found.hosts == (Host("vm", 1),)


def test_capture_in_cray_mode() -> None:
    assert parse_job((DATA / "qstat-x-in-prologue.xml").read_bytes(), "74.vm").hosts == (Host("101", 4), Host("102", 4))


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("", ()),
        ("login1/0", (Host("login1", 1),)),
        ("login1/0+23/0-15+24/0-15", (Host("login1", 1), Host("23", 16), Host("24", 16))),
        ("nid00012/1+nid00012/0+nid00013/0", (Host("nid00012", 2), Host("nid00013", 1))),
        ("c1/0-3,6,8-9", (Host("c1", 7),)),
        ("c1", (Host("c1", 1),)),
    ],
)
def test_hosts(text: str, hosts: tuple[Host, ...]) -> None:
    assert parse_hosts(text) == hosts


@given(st.text(alphabet="c1/+-,9", max_size=30))
def test_any_hosts_are_read(text: str) -> None:
    assert all(host.slots > 0 for host in parse_hosts(text))


_NAMES = st.text(alphabet="ABCXYZ_", min_size=1)
_VALUES = st.text(alphabet="ab=,\\\"' \t\n;:/é", max_size=20)


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in ",\\\"'\n" else c for c in text)


@given(st.dictionaries(_NAMES, _VALUES))
def test_variables_survive_escaping(variables: dict[str, str]) -> None:
    text = ",".join(f"{name}={_escaped(value)}" for name, value in variables.items())
    assert split_variables(text) == variables


@given(st.text())
def test_any_text_splits(text: str) -> None:
    split_variables(text)


def test_last_duplicate_wins_and_empty_items_go() -> None:
    assert split_variables("A=1,,A=2,B,C=x\\") == {"A": "2", "B": "", "C": "x"}


@given(st.binary(max_size=300))
def test_garbage_is_refused(raw: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        parse_job(raw, "1.vm")


@pytest.mark.parametrize(
    "answer", [b"", b"<Data></Data>", b"<Data><Job><Job_Id>12.vm</Job_Id></Job></Data>", b"<Data>"]
)
def test_answer_without_the_job(answer: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        parse_job(answer, "1.vm")


def test_raw_control_characters_and_bad_utf8_are_harmless() -> None:
    raw = b"<Data><Job><Job_Id>1.vm</Job_Id><Variable_List>UDI=a\x01b\xff\x1b[2J</Variable_List></Job></Data>"
    assert parse_job(raw, "1.vm").variables == {"UDI": "a\ufffdb\ufffd\ufffd[2J"}


def test_entities_are_not_resolved() -> None:
    raw = b'<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]><Data><Job><Job_Id>1.vm</Job_Id>'
    raw += b"<Variable_List>UDI=&e;</Variable_List></Job></Data>"
    with pytest.raises(UpstreamFailed, match="document type"):
        parse_job(raw, "1.vm")


def test_qstat_that_fails(tmp_path: Path) -> None:
    cray = StandIns(tmp_path)
    torque = cray.site.table(TorqueConfig)
    cray.tell("qstat.exit", "153")
    with pytest.raises(UpstreamFailed, match="does not know job"):
        read_job(torque, "1.vm", Deadline(5))
    cray.tell("qstat.exit", "7")
    with pytest.raises(UpstreamFailed, match="exited with 7"):
        read_job(torque, "1.vm", Deadline(5))
    cray.tell("qstat.hang", "")
    with pytest.raises(Late):
        read_job(torque, "1.vm", Deadline(0.3))


def test_an_answer_that_the_caller_has_spares_qstat(tmp_path: Path) -> None:
    cray = StandIns(tmp_path)
    torque = cray.site.table(TorqueConfig)
    cray.qstat_job("A=asked", job="1.vm")
    given = b"<Data><Job><Job_Id>1.vm</Job_Id><Variable_List>A=given</Variable_List></Job></Data>"
    assert read_job(torque, "1.vm", Deadline(5), given).variables == {"A": "given"}
    assert cray.calls("qstat") == []
    for invalid in (given[:-20], given.replace(b"1.vm", b"2.vm"), b"x"):
        assert read_job(torque, "1.vm", Deadline(5), invalid).variables == {"A": "asked"}
    assert cray.calls("qstat") == ["-x 1.vm"] * 3


@pytest.mark.parametrize("count", [7, 8])
def test_prologue_arguments(count: int) -> None:
    call = prologue_call(["123.sdb", "u", "g", "n", "r", "q", "a", "/x.SC"][:count])
    assert (call.job, call.account, call.script) == ("123.sdb", "a", "/x.SC" if count == 8 else "")


@pytest.mark.parametrize("count", [10, 11])
def test_epilogue_arguments(count: int) -> None:
    call = epilogue_call(["12[3].sdb", "u", "g", "n", "s", "r", "u", "q", "a", "0", "/x.SC"][:count])
    assert (call.job, call.status, call.script) == ("12[3].sdb", "0", "/x.SC" if count == 11 else "")


@pytest.mark.parametrize("arguments", [[], ["1.vm"] * 6, ["1.vm"] * 12, ["../1"] * 7])
def test_wrong_arguments(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        prologue_call(arguments)
    with pytest.raises(UsageError):
        epilogue_call(arguments)


def test_only_the_first_words_are_options() -> None:
    assert config_and_rest(["--config", "/a", "1.vm", "--config", "/b"]) == ("/a", ["1.vm", "--config", "/b"])
    assert config_and_rest(["1.vm", "--config", "/b"])[1] == ["1.vm", "--config", "/b"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 1),
        (errors.NotFound, 1),
        (errors.NotPermitted, 1),
        (errors.ImageInvalid, 1),
        (errors.ConfigError, 2),
        (errors.UpstreamFailed, 2),
        (errors.SetupFailed, 2),
        (errors.TeardownIncomplete, 2),
        (errors.TimedOut, 2),
    ],
)
def test_exit_codes(kind: type[UdiError], code: int) -> None:
    assert prologue_code(kind("x")) == code


_ENVIRONMENT = {"UDI": "env:1", "X": "a,b"}


@pytest.mark.parametrize(
    ("arguments", "script", "expected"),
    [
        ("-v UDI=a:1", "", "a:1"),
        ("-v OTHER=1", "#PBS -v UDI=b:1\n", None),
        ("", "#!/bin/sh\n#PBS -v UDI=b:1\n#PBS -v UDI=c:1\n", "b:1"),
        ("", "#PBS -v A=1\n#PBS -v UDI=c:1\n", None),
        ("", '#PBS -N x -v UDI="b:1",Y=2\n', "b:1"),
        ("", "\n# comment\n  #PBS -v UDI=b:1\n", "b:1"),
        ("", "echo hello\n#PBS -v UDI=b:1\n", None),
        ("-v UDI", "", "env:1"),
        ("-v UDI=", "", "env:1"),
        ("-v NONE,UDI=d:1", "", "d:1"),
        ("-V", "", "env:1"),
        ("", "#PBS -V\n", "env:1"),
        ("-V -v UDI=a:1", "", "a:1"),
        ("-C #X", "#X -v UDI=b:1\n#PBS -v UDI=c:1\n", "b:1"),
        ("-v UDI=a\\b", "", "ab"),
        ("-I -v UDI=a:1", "", "a:1"),
        ("-l nodes=1 script.sh -v UDI=a:1", "", None),
        ("-? x", "#PBS -v UDI=b:1\n", None),
        ("-v UDI=a:1 -v B=1", "", None),
        ("", "#PBS -v A=1,\\\nUDI=b:1\n", "b:1"),
        ("", "#PBS -v A=1,\\\r\nUDI=b:1\r\n", "b:1"),
        ("", "#PBS -v UD\\\nI=b:1", "b:1"),
        ("", "#PBS -N x \\\n -q y\n#PBS -v UDI=b:1\n", "b:1"),
        ("", "#PBS -v A=1,\\", None),
        ("", "  : x\n#PBS -v UDI=b:1\n", None),
        ("", ": x\n#PBS -v UDI=b:1\n", "b:1"),
        ("-E -v UDI=a:1", "", "a:1"),
    ],
)
def test_directives(arguments: str, script: str, expected: str | None) -> None:
    assert read_submission(arguments.split(), script.encode(), _ENVIRONMENT).variables.get("UDI") == expected


@given(st.lists(st.text(max_size=8), max_size=6), st.binary(max_size=200))
def test_any_submission_is_read(arguments: list[str], script: bytes) -> None:
    read_submission(arguments, script, _ENVIRONMENT)
    read_submission([], b"#PBS " + script, _ENVIRONMENT)
