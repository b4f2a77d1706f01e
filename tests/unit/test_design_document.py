"""docs/design.md has the rooms that the order of imports has, and the errors of the code."""

from __future__ import annotations

import re

from tests.pages import DOCS
from tests.unit.test_import_order import ROOMS
from udiroot import errors, plan

_TEXT = (DOCS / "design.md").read_text()


def _rows(head: str) -> list[str]:
    table = _TEXT.partition(f"| {head} |")[2].partition("\n\n")[0]
    return table.splitlines()[2:]


def test_the_errors() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.UdiError)]
    wanted = [(kind.__name__, str(kind.exit_code), kind.owner) for kind in kinds if kind is not errors.UdiError]
    rows = [re.findall(r"[\w]+", row)[:3] for row in _rows("class | exit code | owner | meaning")]
    assert sorted(map(tuple, rows)) == sorted(wanted)


def test_the_rooms() -> None:
    listed = [
        room for row in _rows("room | imports | holds") for room in re.findall(r"`([\w/]+)/`", row.split(" | ")[0])
    ]
    assert sorted(listed) == sorted([*(room.replace(".", "/") for room in ROOMS), "slurm", "slurmsim", "templates"])


def test_the_version_of_plans() -> None:
    assert set(re.findall(r"udi-plan (\d+)", _TEXT)) == {plan.VERSION}
