"""A node's report: one line under 512 bytes, so that the mixed output of many nodes stays readable.

    UDI-REPORT <nonce> <node> ok|failed <ms> <code> <jobs> <left> <words>

Fields for programs come first, then words for people. `jobs` are the ids of jobs that left something, joined by commas,
and `left` counts it as `mounts=3,loops=1`; `-` stands for none. The nonce is new for every fan-out, so that no other
line is taken for a report.
"""

import os

from udiroot.errors import TeardownIncomplete, UdiError, printable
from udiroot.fields import is_token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "UDI-REPORT"
HIDES = "hides="
"""Begins what the report of a set-up counts where volumes hide what the image has; its words say which."""
UNREAD = "unread=1"
"""What that of a teardown counts where nothing was read from the image (`udiroot.entered`)."""
UNKNOWN_NODE = "unknown"
"""The identity in the report of a node that cannot read its own."""
_MAX_BYTES = 511
_MAX_WORDS = 400
_NONE = "-"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")
_JOB_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_JOB_REST = _JOB_FIRST | frozenset("._[]-")


class NodeReport:
    """What one node reported: it took `milliseconds`, and `words` are for people. `code` is 0, or the exit code of the
    error. `jobs` left something on the node; `left` counts what, each as `kind=count`."""

    __slots__ = ("code", "jobs", "left", "milliseconds", "node", "words")

    def __init__(
        self,
        node: str,
        code: int,
        milliseconds: int,
        words: str,
        jobs: "tuple[str, ...]" = (),
        left: "tuple[str, ...]" = (),
    ) -> None:
        self.node, self.code, self.milliseconds, self.words = node, code, milliseconds, words
        self.jobs, self.left = jobs, left

    @property
    def ok(self) -> bool:
        """Whether the node did what it was sent to do."""
        return self.code == 0

    @property
    def warns(self) -> bool:
        """Whether the words of a set-up that has succeeded are a warning."""
        return self.ok and any(each.startswith(HIDES) for each in self.left)

    @classmethod
    def of_error(cls, node: str, milliseconds: int, error: UdiError) -> "NodeReport":
        """The report of a step that failed with `error`."""
        hint = f" ({error.hint})" if error.hint else ""
        made = cls(node, error.exit_code, milliseconds, error.message + hint)
        if isinstance(error, TeardownIncomplete):
            made.jobs, made.left = error.jobs, error.left
        return made

    def line(self, nonce: str) -> str:
        """The report as one printable line with its newline.

        Where it is too long, words are cut, and then job ids that do not fit are left out, each completely. A text that
        is not a job id or a count is left out too.
        """
        verdict = "ok" if self.ok else "failed"
        head = f"{MARK} {nonce} {self.node} {verdict} {self.milliseconds} {self.code}"
        left = _joined(self.left, _is_count, _MAX_BYTES - len(head) - len(f" {_NONE} "))
        jobs = _joined(self.jobs, _is_job, _MAX_BYTES - len(head) - len(f"  {left}"))
        text = f"{head} {jobs} {left} {printable(self.words, _MAX_WORDS)}"
        return text[: _MAX_BYTES - 1].rstrip(" ") + "\n"

    def send(self, nonce: str, descriptor: int = 1) -> None:
        """Write the line in one write(2), which a pipe does not divide."""
        os.write(descriptor, self.line(nonce).encode("ascii"))

    @classmethod
    def parse(cls, line: str, nonce: str) -> "NodeReport | None":
        """The report in `line`, or None for any other text, cut lines and other fan-outs' reports included."""
        fields = line.strip().split(" ", 8)
        if len(fields) < 8 or fields[0] != MARK or fields[1] != nonce or len(line) > _MAX_BYTES:
            return None
        node, verdict, milliseconds, code, jobs, left = fields[2:8]
        if not (is_token(node) and _is_number(milliseconds) and _is_number(code)) or int(code) > 255:
            return None
        if verdict != ("ok" if code == "0" else "failed"):
            return None
        all_jobs, all_left = _parts(jobs), _parts(left)
        if not (all(map(_is_job, all_jobs)) and all(map(_is_count, all_left))):
            return None
        words = fields[8] if len(fields) > 8 else ""
        return cls(node, int(code), int(milliseconds), words, all_jobs, all_left)


def _joined(tokens: "tuple[str, ...]", is_valid: "Callable[[str], bool]", room: int) -> str:
    """As many of the tokens as `room` bytes hold, joined by commas."""
    kept = ""
    for token in tokens:
        longer = f"{kept},{token}" if kept else token
        if is_valid(token) and len(longer) <= room:
            kept = longer
    return kept or _NONE


def _parts(field: str) -> "tuple[str, ...]":
    return () if field == _NONE else tuple(field.split(","))


def _is_job(text: str) -> bool:
    return bool(text) and text[0] in _JOB_FIRST and _JOB_REST.issuperset(text)


def _is_count(text: str) -> bool:
    kind, _, count = text.partition("=")
    return bool(kind) and _LETTERS.issuperset(kind) and _is_number(count)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and (text == "0" or text[0] != "0")
