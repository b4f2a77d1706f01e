"""What `udi-run` reads in a root: the image's environment, entry point and working directory, and what goes over them.

The format is that of `udirun/job.c`: records that NUL ends, each a keyword, a blank and a value, byte for byte. The
changes to the environment are made in their order.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from udi.accounts import Account
from udi.environment import EnvironmentConfig
from udi.facts import Facts
from udiroot.errors import ImageInvalid, printable
from udiroot.sitemodules import PLACE

_VERSION = "udi-run 1"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What Docker sets where an image has no PATH."""
_MAX_BYTES = 2 << 20
"""The kernel starts no program with more arguments and environment than a quarter of its stack, by default 8 MiB."""

Record = tuple[str, str]


def run_data(
    facts: Facts,
    site: EnvironmentConfig,
    user: Account,
    reference: str,
    programs: str = "",
    *,
    with_modules: bool = False,
) -> str:
    """The text of the file. `programs` is a directory that goes first in PATH. `with_modules` marks the place in which
    each node puts the environment of the job's modules.

    Raises ImageInvalid where the image's configuration holds what no program can be started with.
    """
    records = [
        ("workdir", _as_docker_reads_it(facts.workdir)),
        *(("entrypoint", word) for word in facts.entrypoint),
        *(("cmd", word) for word in facts.cmd),
        *_of_image(facts.env),
        *changes_of(site),
    ]
    of_job = [
        *_of_job(facts.id, user, reference),
        *((("prepend", f"PATH={programs}"),) if programs else ()),
    ]
    place = (PLACE.strip("\0"),) if with_modules else ()
    lines = (_VERSION, *map(" ".join, records), *place, *map(" ".join, of_job), "end")
    size = sum(_bytes_of(line) + 1 for line in lines)
    if size > _MAX_BYTES:
        raise ImageInvalid(f"environment, entry point and arguments of the image have {size} bytes, over {_MAX_BYTES}")
    return "".join(f"{line}\0" for line in lines)


def changes_of(environment: EnvironmentConfig) -> Iterator[Record]:
    """What a table of the configuration changes."""
    yield from (("unset", name) for name in environment.unset)
    changed = (("set", environment.set), ("prepend", environment.prepend), ("append", environment.append))
    for keyword, values in changed:
        yield from ((keyword, f"{name}={value}") for name, value in values.items())


def _as_docker_reads_it(workdir: str) -> str:
    """From `/`, also where it is relative or empty, and with `..` resolved by the text alone."""
    return posixpath.normpath("/" + workdir.lstrip("/"))


def _of_image(env: tuple[str, ...]) -> Iterator[Record]:
    """Variables of the image. A text without `=`, or with an empty name, names none."""
    variables = {name: text for text in env if (name := text.partition("=")[0]) and "=" in text}
    variables.setdefault("PATH", f"PATH={_DEFAULT_PATH}")
    return (("set", text) for text in variables.values())


def _of_job(image: str, user: Account, reference: str) -> Iterator[Record]:
    """What is the user's whatever the image says, and which image it is."""
    own = {"HOME": user.home, "USER": user.name, "LOGNAME": user.name, "UDI_IMAGE": reference, "UDI_IMAGE_ID": image}
    yield from (("set", f"{name}={value}") for name, value in own.items())
    yield "shell", user.shell


def _bytes_of(line: str) -> int:
    """How many bytes a record has, which must be without NUL, and text that has bytes at all."""
    if "\0" in line:
        raise ImageInvalid(f"image configuration: NUL in '{printable(line, 60)}'", "no program can be started with it")
    try:
        return len(line.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise ImageInvalid(f"image configuration: not text: '{printable(line, 60)}'") from error
