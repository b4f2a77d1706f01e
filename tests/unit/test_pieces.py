"""Lists of volumes and of site modules: one spelling, taken apart in one place."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from admin.sitefiles.documents import commands
from tests.commands import commands_of
from tests.unit.test_import_order import MAY_IMPORT
from udi.pieces import pieces
from udi.sitemodules import parse_modules

ROOT = Path(__file__).parents[2]
OTHER_LISTS = {"udi/carried.py"}
"""It takes apart what a job carries of an environment file, a text of our own."""


@pytest.mark.parametrize(
    ("text", "found"),
    [("", ()), (" ; ;", ()), ("mpich;gpu", ("mpich", "gpu")), (" a ; b c;", ("a", "b c")), ("a,b", ("a,b",))],
)
def test_pieces(text: str, found: tuple[str, ...]) -> None:
    assert pieces(text) == found


def test_no_other_place_takes_such_lists_apart() -> None:
    files = [path for room in {room.split(".")[0] for room in MAY_IMPORT} for path in (ROOT / room).rglob("*.py")]
    splitting = {str(path.relative_to(ROOT)) for path in files if 'split(";")' in path.read_text()}
    assert splitting == {"udi/pieces.py", *OTHER_LISTS}


def test_what_commands_say_of_lists_of_modules_can_be_given() -> None:
    """The form that the help shows, for each option that takes such a list."""
    told = []
    for whole in commands().values():
        assert isinstance(whole, click.Group)
        for command in commands_of(whole).values():
            for option in command.params:
                if isinstance(option, click.Option) and option.name == "modules":
                    form = f"{option.metavar} {option.help}"
                    told.append(form)
                    assert "NAME;..." in form.replace("[;", ";").replace("...]", "..."), form
    assert len(told) == 3
    assert parse_modules("NAME;OTHER") == ("NAME", "OTHER")
