"""docs/cray-mpi.toml.example is a table that the configuration takes, as it is and with what it leaves out."""

from __future__ import annotations

import re

from admin.seams.tables import all_tables
from tests.pages import DOCS
from udi import config

_TEXT = (DOCS / "cray-mpi.toml.example").read_text()


def _is_valid(text: str) -> bool:
    return not config.errors_in('[store]\npath = "/scratch/udi"\n' + text, "udi.toml", all_tables())


def test_it_is_valid() -> None:
    assert _is_valid(_TEXT)
    assert not _is_valid(_TEXT.replace(":ro", ":re"))


def test_its_lines_for_later_releases_are_valid() -> None:
    text, lines = re.subn(r'^    # "', '    "', _TEXT, flags=re.MULTILINE)
    assert lines == 1
    assert _is_valid(text)
