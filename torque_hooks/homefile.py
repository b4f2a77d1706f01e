"""A job of Torque that names no image, of a user with `~/.chos`: the script that qsub submits names it then.

A submit filter has no way to give a job a variable but a directive of the script, and qsub goes by the first `-v` of
the script, or by that of the command line alone (torque-reference d). So the directive that is put before all others
repeats the script's own list; where there is one on the command line, the user must say it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torque_hooks.directives import Submission
from torque_hooks.variables import IMAGE
from udi.homefile import FILE, NONE
from udiroot.errors import UsageError

Reader = Callable[[bytes], Submission]


def with_image(script: bytes, submission: Submission, image: str, read: Reader) -> bytes:
    """The script with a directive that names the image; `read` is how qsub reads a script.

    Raises UsageError where qsub would not go by such a directive.
    """
    counting = next((written for written in submission.lists if written.counts), None)
    if submission.is_interactive or (counting and not counting.line):
        where = "an interactive job has no script" if submission.is_interactive else "qsub goes by its own -v alone"
        raise _cannot(image, where)
    listed = ",".join([*(item.text for item in counting.items if item.name), f"{IMAGE}={image}"]) if counting else ""
    text = _quoted(listed or f"{IMAGE}={image}")
    if b"\0" in script[:128] or not submission.prefix.startswith("#") or not text:
        raise _cannot(image, "the script can have no directive for it")
    changed = _inserted(script, f"{submission.prefix} -v {text}".encode("utf-8", "surrogateescape"))
    if not _adds_only(read(changed).variables, submission.variables, image):
        raise _cannot(image, "the script's own -v cannot be joined with it")
    return changed


def _adds_only(variables: Mapping[str, str], before: Mapping[str, str], image: str) -> bool:
    return dict(variables) == {**before, IMAGE: image}


def _inserted(script: bytes, line: bytes) -> bytes:
    first, newline, rest = script.partition(b"\n")
    if first.startswith(b"#!"):
        return first + b"\n" + line + b"\n" + rest
    return line + b"\n" + first + newline + rest


def _quoted(text: str) -> str:
    """As one word of a directive; empty where that cannot be: within quotes nothing is escaped (T64)."""
    quote = next((quote for quote in "\"'" if quote not in text), "")
    return f"{quote}{text}{quote}" if quote and "\n" not in text else ""


def _cannot(image: str, why: str) -> UsageError:
    return UsageError(
        f"~/{FILE} asks for {image}, but {why}",
        f"write it yourself: qsub -v {IMAGE}={image}; or {IMAGE}={NONE} for a job without an image",
    )
