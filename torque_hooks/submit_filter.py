"""`udi-submit-filter`: what qsub runs as the user before it submits a job.

Every qsub of the centre runs it, so a job without an image must cost hardly more than the start of Python: this module
imports `os` and `sys` alone, and `torque_hooks.submission` only where the name of one of our variables, or what a
person may have written for it, is anywhere in what the user submits.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

REJECTED = 255
"""qsub: the job was administratively rejected."""
_NAME = b"udi"
_QUOTING = b"\"'\\"
"""What a directive may have inside a name and qsub removes."""
_LOWER = bytes(range(256)).lower()
_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
_CHUNK = 1 << 20
_MAX_SCRIPT = 4 << 20
"""Bytes of a script that are looked at. What follows, such as a self-extracting archive, is only copied."""
_CONFIG = "/etc/udi/udi.toml"
_KEY = b"home_file"
_MAX_CONFIG = 4 << 20
"""Bytes of a configuration that are searched for a key; one that is longer is left to who reads it."""
_MAX_LIST = 1 << 10
"""Bytes of a list that are searched for names that are nearly ours."""


def main(argv: list[str] | None = None) -> int:
    """Copy the script from stdin to stdout, with a pin where the job requests an image.

    0; 255 for a refusal; 1 where the script cannot be read or written, and 130 for an interrupt, by which qsub aborts.
    """
    try:
        return _copy(sys.argv[1:] if argv is None else argv)
    except OSError as error:
        _report(f"the script cannot be passed on: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        return 130


def _copy(arguments: list[str]) -> int:
    script = _read(0, _MAX_SCRIPT)
    if may_request_image(arguments, script, os.environb) or _has_home_file(arguments):
        changed = _filtered(arguments, script)
        if changed is None:
            while _read(0, _CHUNK):
                pass  # qsub writes all of it before it looks at the exit code
            return REJECTED
        script = changed
    while script:
        _write_all(1, script)
        script = _read(0, _CHUNK)
    return 0


def _has_home_file(arguments: list[str]) -> bool:
    """Whether the user has a `~/.chos`, and the site may honor it: what is in it is looked at by who reads the rest."""
    home = os.environb.get(b"HOME", b"")
    return home[:1] == b"/" and os.path.lexists(home + b"/.chos") and _may_honor(arguments)


def _may_honor(arguments: list[str]) -> bool:
    """Whether a line of the configuration may set `chos.home_file`; also where it cannot be read, which is then said
    by who reads it. A home directory may be shared with a machine that has environments, and is looked at by all."""
    path = arguments[1] if arguments[:1] == ["--config"] and len(arguments) > 1 else _CONFIG
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            text = _read(descriptor, _MAX_CONFIG + 1)
        finally:
            os.close(descriptor)
    except OSError:
        return True
    lines = (line.lstrip() for line in text.splitlines())
    return len(text) > _MAX_CONFIG or any(_KEY in line and not line.startswith(b"#") for line in lines)


def may_request_image(arguments: list[str], script: bytes, environment: "Mapping[bytes, bytes]") -> bool:
    """Whether a variable's name is anywhere in a submission, in any case, or a name in a `-v` list that is nearly one.

    Where neither is, no image is requested, nor meant to be. The environment counts because of `qsub -V`; a
    configuration's path, which the installed program passes, does not.
    """
    users = arguments[2:] if arguments[:1] == ["--config"] else arguments
    given = "\n".join(users).encode("utf-8", "surrogateescape").lower()
    written = script.replace(b"\\\r\n", b"").replace(b"\\\n", b"").translate(_LOWER, _QUOTING)
    return (
        _has_name(given)
        or _has_name(written)
        or any(name[:3].lower() == _NAME for name in environment)
        or _lists_near_name(given)
        or _lists_near_name(written)
    )


def _is_near(name: bytes) -> bool:
    """Whether a name in lower case is `udi` but for one letter that is wrong, missing, one too many, or out of place:
    `uid`, `udl`, `ud_volumes`."""
    head = name.partition(b"_")[0]
    if len(head) == 3:
        differing = [n for n in range(3) if head[n] != _NAME[n]]
        return len(differing) == 1 or head in (b"dui", b"uid")
    if len(head) == 4:
        return any(head[:n] + head[n + 1 :] == _NAME for n in range(4))
    return head in (b"ud", b"di", b"ui")


def _has_name(text: bytes) -> bool:
    """Whether the name is in the text other than within a word, as in `studio`; `-vudi` is the option and the name."""
    at = text.find(_NAME)
    while at >= 0:
        before = text[at - 1 : at] if at else b""
        if not before or before == b"v" or before not in _LETTERS:
            return True
        at = text.find(_NAME, at + 1)
    return False


def _lists_near_name(text: bytes) -> bool:
    """Whether a `-v` list in the text has an assignment to a name that is nearly ours."""
    at = text.find(b"-v")
    while at >= 0:
        listed = text[at + 2 : at + 2 + _MAX_LIST].lstrip().partition(b"\n")[0]
        for item in listed.split(b","):
            name, equals, _ = item.partition(b"=")
            if equals and _is_near(name.strip()):
                return True
        at = text.find(b"-v", at + 2)
    return False


def _filtered(arguments: list[str], script: bytes) -> bytes | None:
    try:
        from torque_hooks.submission import filtered

        return filtered(arguments, script)
    except Exception as error:  # noqa: BLE001 - an internal error must not cost the user the script
        _report(f"image not checked, it will be when the job starts: internal error: {type(error).__name__}")
        return script


def _report(message: str) -> None:
    try:  # noqa: SIM105 - contextlib is slow to import
        os.write(2, f"udi-submit-filter: {message}\n".encode())
    except OSError:
        pass  # standard error is closed


def _read(descriptor: int, most: int) -> bytes:
    """As many bytes as there are, at most so many."""
    chunks = []
    while most > 0 and (chunk := os.read(descriptor, min(most, _CHUNK))):
        chunks.append(chunk)
        most -= len(chunk)
    return b"".join(chunks)


def _write_all(descriptor: int, text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


if __name__ == "__main__":
    sys.exit(main())
