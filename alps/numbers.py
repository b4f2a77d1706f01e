"""Numbers as ALPS prints them: ids, nids and counts."""

from __future__ import annotations

from typing import TypeGuard


def is_number(text: str | None) -> TypeGuard[str]:
    """Whether the text is digits alone, and of a size that fits into 64 bits."""
    return text is not None and text.isascii() and text.isdecimal() and len(text) < 19
