"""The known word that a person may have meant.

difflib is imported where a word is wrong: most who import this module never meet one.
"""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The one of `known` that is nearest to `word`; empty where none is near, that is below `cutoff`, from 0 to 1."""
    import difflib

    near: list[str] = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return near[0] if near else ""
