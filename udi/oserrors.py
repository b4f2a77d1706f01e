"""The kernel's word for what failed, as messages quote it."""

from __future__ import annotations


def reason(error: OSError) -> str:
    """`no space left on device`, `permission denied`: in lower case; the error's own text where it has no number."""
    return (error.strerror or str(error) or type(error).__name__).lower()
