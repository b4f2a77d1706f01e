"""`~/.chos`: the environment that a user's jobs run in where they name no image, if the site honors the file.

It is read at submission, by a program of the user's own and with the user's rights; never by root. The first line is
the name, as with NERSC's CHOS. A home directory may be shared by machines whose environments have other names, so a
name that this site does not have is a warning, and one that its user may not have is refused with the request.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from udi.chos import NAME, SCHEME
from udi.chosmap import read_map
from udi.config import SiteConfig
from udi.oserrors import reason
from udiroot.errors import printable

FILE = ".chos"
NONE = "none"
"""In the place of an environment's or an image's name: none at all."""
_MAX_BYTES = 4096
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def image_of_home(site: SiteConfig, home: str) -> tuple[str, str]:
    """What a job that names no image runs in, as `chos:NAME`; empty where that is nothing. And a warning, or nothing.

    Raises ConfigError where the site's map cannot be read.
    """
    if not site.chos.home_file or not home.startswith("/"):
        return "", ""
    name, trouble = _first_line(f"{home}/{FILE}")
    if trouble:
        return "", f"~/{FILE} is not read: {trouble}; the job runs without an image"
    if name in ("", NONE):
        return "", ""
    if not re.fullmatch(NAME, name) or name not in read_map(site).environments:
        return (
            "",
            f"~/{FILE} names '{printable(name, 60)}', which the site does not have: the job runs without an image",
        )
    return f"{SCHEME}:{name}", ""


def _first_line(path: str) -> tuple[str, str]:
    """The line, or what is wrong with the file; nothing where there is none."""
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return "", ""
    except OSError as error:
        return "", "it is a link" if error.errno == errno.ELOOP else reason(error)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return "", "it is not a regular file"
        if status.st_uid != os.geteuid():
            return "", "it belongs to somebody else"
        text = os.read(descriptor, _MAX_BYTES)
    except OSError as error:
        return "", reason(error)
    finally:
        os.close(descriptor)
    return text.split(b"\n", 1)[0].decode("utf-8", "replace").strip(), ""
