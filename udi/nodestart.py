"""What a node's Python is told to run. Apart from `udi.nodezip`, which makes what it runs: hooks need no compiler."""

from __future__ import annotations

START = "bundle"
"""The module by which the line begins."""


def start_line(archive: str, module: str, sign: str = "") -> str:
    """The Python text that a node runs: `main` of `module`, out of the zip at `archive`.

    With `sign`, that word is printed to stderr once everything was found and loaded, just before `main`.
    """
    signs = f"sys.stderr.write({sign + chr(10)!r}); sys.stderr.flush(); " if sign else ""
    return (
        f"import sys; sys.path.insert(0, {archive!r}); import {START}; {START}.install({archive!r}); "
        f"from {module} import main; {signs}main()"
    )
