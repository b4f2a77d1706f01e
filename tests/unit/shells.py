"""Interactive shells on a terminal of their own, as a person at a prompt has them."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Sequence
from typing import Self

_DONE = "that-was-it"
_SAY_DONE = f"echo {_DONE[:5]}'{_DONE[5:]}'"
"""So that the word is not in what the terminal shows of the keys."""
_PROMPT = "(at the prompt) "
_SECONDS = 30.0
_TO_BEGIN, _CLEAR = "\x01", "\x15"


class Terminal:
    """A shell that reads keys. All keys may be sent at once: the shell takes them one after the other."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str], setup: str) -> None:
        self._pid, self._file = pty.fork()
        if not self._pid:
            os.execve(argv[0], list(argv), environment | {"TERM": "vt100", "PS1": _PROMPT, "COLUMNS": "200"})
        self._type(f"{setup}; {_SAY_DONE}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._file)

    def words_of(self, keys: str) -> list[str]:
        """The words that a line has after these keys, tabulators among them. The line is not run, but printed."""
        shown = self._type(f"{keys}; {_SAY_DONE}{_TO_BEGIN}printf '<%s>' \n")
        found = re.search(rf"((?:<[^<>]*>)+){_DONE}", shown)
        assert found, shown
        return re.findall("<([^<>]*)>", found[1])

    def shown_for(self, keys: str) -> str:
        """What the shell shows while these keys are pressed; the line is then cleared."""
        return self._type(f"{keys}{_CLEAR}{_SAY_DONE}\n")

    def _type(self, keys: str) -> str:
        os.write(self._file, keys.encode())
        seen = b""
        end = time.monotonic() + _SECONDS
        while _PROMPT.encode() not in seen.partition(_DONE.encode())[2]:
            assert time.monotonic() < end, seen
            if select.select([self._file], [], [], 0.2)[0]:
                seen += os.read(self._file, 65536)
        return seen.decode(errors="replace").replace("\r", "")
