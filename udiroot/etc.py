"""The files of /etc in a root that are shifter-xc's: those of the plan, some of them completed with the image's own.

The image's files are strangers' text: opened inside the image without following links, and limited in size.
"""

import os
import stat

from udiroot.accounts import MERGED, merged
from udiroot.fields import number
from udiroot.plan import NodePlan, PlanFile
from udiroot.rules import check_name
from udiroot.targets import ImageTree

_MAX_BYTES = 1 << 20
_HOSTS = "hosts"
_LOCALHOST = "127.0.0.1 localhost\n"
_FALLBACK_ADDRESS = "127.0.1.1"
"""Of a node that neither the plan nor the node's own /etc/hosts has an address for."""


def files(plan: NodePlan, node: str, image: str) -> "list[PlanFile]":
    """The files, with their paths in the root. `image` is where the image is mounted; `node` is the node's identity.

    /etc/hosts is always one of them and has the node's own name. Raises ImageInvalid for a name that no root can have.
    """
    found, hosts = [], None
    source = ImageTree(image).behind("/etc")
    image_etc = image + source if source is not None else ""
    for file in plan.etc:
        check_name(file.path, "/etc of the plan")
        if file.path == _HOSTS:
            hosts = file
            continue
        text = merged(file.path, file.text, image_etc) if file.path in MERGED and image_etc else file.text
        found.append(PlanFile(f"/etc/{file.path}", file.mode, text))
    text = hosts.text if hosts else (image_etc and _text_of(f"{image_etc}/{_HOSTS}")) or _LOCALHOST
    found.append(PlanFile(f"/etc/{_HOSTS}", hosts.mode if hosts else 0o644, _with_own_name(text, plan, node)))
    return found


def _with_own_name(text: str, plan: NodePlan, node: str) -> str:
    """The text of a hosts file in which the node finds itself."""
    name = os.uname().nodename
    if not name or _address(text, name):
        return text
    address = plan.find_address(node) or _address(_text_of("/etc/hosts"), name) or _FALLBACK_ADDRESS
    short = name.partition(".")[0]
    names = name if short == name else f"{name} {short}"
    return f"{text.rstrip()}\n{address} {names}\n".lstrip("\n")


def _address(text: str, name: str) -> str:
    """The first address that a hosts file has for a name; nothing, if none."""
    for line in text.split("\n"):
        if name not in line:
            continue
        fields = line.partition("#")[0].encode("ascii", "replace").split()  # blanks are those of C
        if name.encode() in fields[1:] and _is_address(fields[0].decode()):
            return fields[0].decode()
    return ""


def _is_address(text: str) -> bool:
    """Whether programs read an address there; they pass over a line that has none."""
    if ":" not in text:
        parts = text.split(".")
        return len(parts) == 4 and all(str(number(part, 255)) == part for part in parts)
    from _socket import AF_INET6, inet_pton  # most nodes never need it

    try:
        inet_pton(AF_INET6, text)
    except OSError:
        return False
    return True


def _text_of(path: str) -> str:
    """The text of a regular file that is no link; nothing, where there is none or it is too large."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # absent, a link, or a directory: none that may be read
        return ""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            return ""
        return os.read(descriptor, _MAX_BYTES).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
