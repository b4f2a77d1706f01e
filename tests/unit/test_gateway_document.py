"""docs/gateway.md has the fields of requests and answers, the keys of `--json` and the exit codes of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

import pytest

from gateway.audit.rescan import Rescanned
from gateway.store.expire import Expired
from gateway.wire import messages
from gateway.wire.messages import FILE_KINDS, UPSTREAM_KINDS, PullFiles, PullReference, Request
from tests.pages import DOCS
from udi.facts import Facts
from udiroot import errors

_TEXT = (DOCS / "gateway.md").read_text()


def _names(cell: str) -> list[str]:
    """The code spans of a cell, but for those in parentheses, which say something about the one before."""
    return re.findall(r"`([\w/-]+)`", re.sub(r"\([^)]*\)", "", cell))


def _rows(head: str) -> dict[str, list[str]]:
    """The rows of the table of that head, by what their first cells name."""
    table = _TEXT.partition(f"| {head} |")[2].partition("\n\n")[0]
    rows: dict[str, list[str]] = {}
    for line in table.splitlines()[2:]:
        first, rest = line.strip("| ").split(" | ", 1)
        for name in re.findall(r"`([\w -]+)`", first):
            rows.setdefault(name, []).append(rest)
    return rows


def _keys(kind: Any) -> set[str]:
    return {field.name for field in fields(kind)}


def _requests() -> Iterator[type[Request[Any]]]:
    yield from (kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Request))


@pytest.mark.parametrize("kind", [kind for kind in _requests() if kind is not Request], ids=lambda kind: kind.__name__)
def test_the_table_of_the_protocol(kind: type[Request[Any]]) -> None:
    rows = _rows("`do` | fields of the request | fields of `done`")[kind.do]
    row = rows[kind is PullReference]
    asked, answered = row.strip("| ").split(" | ") if " | " in row.strip("| ") else ("", row.strip("| "))
    required, _, optional = asked.partition("optional:")
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    assert set(_names(required)) == needed
    assert set(_names(optional)) == _keys(kind) - needed
    assert set(_names(answered.partition(": list")[0] if kind.do == "images" else answered)) >= _keys(kind.answer)


def test_the_kinds_of_source() -> None:
    rows = _rows("`do` | fields of the request | fields of `done`")["pull"]
    for kind, row, known in ((PullFiles, rows[0], FILE_KINDS), (PullReference, rows[1], UPSTREAM_KINDS)):
        listed = re.search(r"`kind` \(([^)]*)\)", row)
        assert listed and set(re.findall(r"`([\w-]+)`", listed[1])) == set(known), kind


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("pull", _keys(messages.Pulled)),
        ("images", _keys(messages.ImageList) | _keys(messages.ImageRow)),
        ("lookup", _keys(messages.Found)),
        ("inspect", _keys(messages.Inspected) | _keys(Facts)),
        ("rm", _keys(messages.Removed)),
        ("login", _keys(messages.LoggedIn)),
        ("logout", _keys(messages.LoggedOut)),
        ("udi-gateway expire", {"expired"} | _keys(Expired)),
        ("udi-gateway rescan", {"rescanned"} | _keys(Rescanned)),
    ],
)
def test_the_keys_of_json(command: str, keys: set[str]) -> None:
    assert set(_names(_rows("command | keys")[command][0])) == keys


def test_the_exit_codes() -> None:
    table = _TEXT.partition("| exit code | meaning |")[2].partition("\n\n")[0]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.UdiError)]
    of_nodes = {kind.exit_code for kind in kinds if kind.owner == "node"}
    known = {kind.exit_code for kind in kinds if kind is not errors.UdiError} - of_nodes
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == known | {0, 130, 141}
