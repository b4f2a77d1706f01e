"""What a node is called: its identity by file or host name, and the names of its loop devices."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot import commands, errors, loop
from udiroot.errors import SetupFailed, UdiError
from udiroot.fields import is_token

TOKEN = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
JOB = st.from_regex(r"[0-9]{1,12}(\[[0-9]{0,8}\])?(\.[A-Za-z0-9][A-Za-z0-9.-]{0,100})?", fullmatch=True)


@given(TOKEN)
def test_tokens(token: str) -> None:
    assert is_token(token)
    assert not is_token(f"{token}/") and not is_token(f"-{token}") and not is_token(token + "\n")


@pytest.mark.parametrize("text", ["", ".", "-a", "_a", "a,b", "a b", "a:b", "a\0", "é", "\udc80", "a" * 65])
def test_what_is_no_token(text: str) -> None:
    assert not is_token(text)


def test_a_node_is_known_by_the_number_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "nid"
    path.write_text("00412\n")
    assert commands.read_identity(str(path)) == "412"
    for wrong in ("", "x", "-3"):
        path.write_text(wrong)
        with pytest.raises(SetupFailed, match=f"no nid in {path}: ") as raised:
            commands.read_identity(str(path))
        assert "node.nid_file" in raised.value.hint


def test_without_a_file_it_is_known_by_its_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("node-7", "node7.cluster.site.gov"):
        monkeypatch.setattr(os, "uname", lambda name=name: SimpleNamespace(nodename=name))
        assert commands.read_identity("") == name
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="a b"))
    with pytest.raises(SetupFailed, match="invalid host name: 'a b'"):
        commands.read_identity("")


@given(TOKEN, TOKEN, JOB, JOB)
def test_labels_of_loop_devices_fit_and_are_one_node_s_and_one_job_s(one: str, other: str, job: str, more: str) -> None:
    label = loop.label(one, job)
    assert len(label.encode()) <= 63
    assert label.startswith(loop.label(one, ""))
    assert loop.job_of(label) in (job, "")
    if other != one:
        assert not loop.label(other, job).startswith(loop.label(one, ""))
    if more != job:
        assert loop.label(one, more) != label


def test_a_node_whose_name_begins_with_another_s_is_another() -> None:
    assert loop.label("12", "1.sdb") == "udi:12:1.sdb"
    assert not loop.label("123", "1.sdb").startswith(loop.label("12", ""))
    long = "node-of-a-cluster-with-a-long-name"
    assert not loop.label(long + "2", "1.sdb").startswith(loop.label(long, ""))
    assert loop.label(long, "1" * 60) != loop.label(long, "1" * 61)


OWNERS = {
    "user": {"UsageError", "NotFound", "NotPermitted", "ImageInvalid"},
    "site": {"UdiError", "ConfigError", "UpstreamFailed", "TimedOut"},
    "node": {"SetupFailed", "TeardownIncomplete"},
}


def test_every_error_has_an_owner() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UdiError)]
    found: dict[str, set[str]] = {}
    for kind in classes:
        found.setdefault(kind.owner, set()).add(kind.__name__)
        assert kind("x").is_users is (kind.owner == "user")
    assert found == OWNERS


def test_numbers_with_their_nouns() -> None:
    assert errors.counted(1, "mount") == "1 mount"
    assert errors.counted(2, "process", "processes") == "2 processes"
