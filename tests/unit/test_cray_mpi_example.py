"""docs/cray-mpi.toml.example is a table that the configuration takes."""

from __future__ import annotations

from admin.seams.tables import all_tables
from tests.pages import DOCS
from udi import config


def test_it_is_valid() -> None:
    text = '[store]\npath = "/scratch/udi"\n' + (DOCS / "cray-mpi.toml.example").read_text()
    assert config.errors_in(text, "udi.toml", all_tables()) == []
    assert config.errors_in(text.replace(":ro", ":re"), "udi.toml", all_tables()) != []
