"""The lists that users write, of volumes and of site modules: pieces with `;` between them.

Everything that takes such a list apart does it here, so that what one command shows is what another one grants.
"""

from __future__ import annotations


def pieces(text: str) -> tuple[str, ...]:
    """The pieces in their order, without the blanks around them; an empty piece is none."""
    return tuple(found for piece in text.split(";") if (found := piece.strip()))
