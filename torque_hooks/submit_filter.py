"""`udi-submit-filter`: what qsub runs as the user before it submits a job.

Every qsub of the centre runs it, so a job without an image must cost hardly more than the start of Python: this module
imports `os` and `sys` alone, and `torque_hooks.submission` only where the name of the variable is anywhere in what the
user submits.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

REJECTED = 255
"""qsub: the job was administratively rejected."""
_NAME = "UDI"
_QUOTING = b"\"'\\"
"""What a directive may have inside a name and qsub removes."""


def main(argv: list[str] | None = None) -> int:
    """Copy the script from stdin to stdout, with a pin where the job requests an image. 0, or 255 for a refusal."""
    arguments = sys.argv[1:] if argv is None else argv
    script = _read_all(0)
    if may_request_image(arguments, script, os.environb):
        changed = _filtered(arguments, script)
        if changed is None:
            return REJECTED
        script = changed
    _write_all(1, script)
    return 0


def may_request_image(arguments: list[str], script: bytes, environment: "Mapping[bytes, bytes]") -> bool:
    """Whether the variable's name is anywhere in a submission; where it is not, no image is requested.

    The environment counts because of `qsub -V`; a configuration's path, which the installed program passes, does not.
    """
    users = arguments[2:] if arguments[:1] == ["--config"] else arguments
    return (
        any(_NAME in argument for argument in users)
        or _NAME.encode() in environment
        or _NAME.encode() in script.translate(None, _QUOTING)
    )


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


def _read_all(descriptor: int) -> bytes:
    chunks = []
    while chunk := os.read(descriptor, 1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def _write_all(descriptor: int, text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


if __name__ == "__main__":
    sys.exit(main())
