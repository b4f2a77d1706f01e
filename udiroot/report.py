"""A node's answer: one line under 512 bytes, so that the mixed output of many nodes stays readable.

`UDI-REPORT <nonce> <nid> ok|failed <ms> <words>`; the nonce is new for every fan-out, so that no other line is taken
for one. After `failed` the words begin with the error's exit code.
"""

import os

from udiroot.errors import UdiError, printable

MARK = "UDI-REPORT"
_MAX_BYTES = 511


class NodeReport:
    """What one node said: `milliseconds` it took, and `words`. `code` is 0, or the exit code of the error."""

    __slots__ = ("code", "milliseconds", "nid", "words")

    def __init__(self, nid: int, code: int, milliseconds: int, words: str) -> None:
        self.nid, self.code, self.milliseconds, self.words = nid, code, milliseconds, words

    @property
    def ok(self) -> bool:
        return self.code == 0

    @classmethod
    def of_error(cls, nid: int, milliseconds: int, error: UdiError) -> "NodeReport":
        """The report of a step that `error` ended."""
        hint = f" ({error.hint})" if error.hint else ""
        return cls(nid, error.exit_code, milliseconds, error.message + hint)

    def line(self, nonce: str) -> str:
        """The report as one printable line with its newline, cut to size."""
        verdict = f"ok {self.milliseconds}" if self.ok else f"failed {self.milliseconds} {self.code}"
        text = f"{MARK} {nonce} {self.nid} {verdict} {printable(self.words, 400)}"
        return text[:_MAX_BYTES].rstrip() + "\n"

    def send(self, nonce: str, descriptor: int = 1) -> None:
        """Write the line in one write(2), which a pipe keeps whole."""
        os.write(descriptor, self.line(nonce).encode("ascii"))

    @classmethod
    def parse(cls, line: str, nonce: str) -> "NodeReport | None":
        """The report that `line` is, or None for any other text, cut lines and other fan-outs' reports included."""
        fields = line.strip().split(" ", 5)
        if len(fields) < 5 or fields[0] != MARK or fields[1] != nonce or len(line) > _MAX_BYTES + 1:
            return None
        nid, verdict, milliseconds = fields[2], fields[3], fields[4]
        if not (nid.isdecimal() and nid.isascii() and milliseconds.isdecimal() and milliseconds.isascii()):
            return None
        words = fields[5] if len(fields) > 5 else ""
        if verdict == "ok":
            return cls(int(nid), 0, int(milliseconds), words)
        code, _, sentence = words.partition(" ")
        if verdict != "failed" or not (code.isdecimal() and code.isascii()) or not 0 < int(code) < 256:
            return None
        return cls(int(nid), int(code), int(milliseconds), sentence)
