"""What every table of the configuration is made of: keys with a type, a default and a line of help."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, help_text: str) -> Any:
    """A key of the configuration: its default and its line of help."""
    if isinstance(default, (list, tuple)):
        frozen = tuple(default)
        return field(default_factory=lambda: frozen, metadata={"help": help_text})
    return field(default=default, metadata={"help": help_text})


def required(help_text: str) -> Any:
    """A key that has no sensible default."""
    return field(metadata={"help": help_text})
