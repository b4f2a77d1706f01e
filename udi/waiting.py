"""How a user submits a job without waiting for its image to be pulled."""

from __future__ import annotations

WAIT = "UDI_WAIT"
"""The variable: `no` submits without waiting."""
_NO = ("no", "0", "false")
_YES = ("yes", "1", "true", "")


def waits(text: str) -> bool:
    """Whether a submission with this value of WAIT waits for the image."""
    return text.lower() not in _NO


def is_wait(text: str) -> bool:
    """Whether the text is a value that WAIT can have."""
    return text.lower() in (*_NO, *_YES)
