"""What this node has of what jobs with images need: asked by `udi-admin check-config --nodes`.

    probe [--root DIR] [--run DIR] [--nid-file FILE] [--deadline SECONDS] --nonce NONCE FIELD=VALUE ...

`zip=FILE`, `store=DIR`, `owner=UID:GID`, `image=FILE`, `kind=FORMAT` and any number of `module=FILE` and
`path.NUMBER=FILE` are what the configuration says, as a node sees it; `{release}` in a module's path is the kernel's.
It looks and changes nothing, and judges nothing: the words of its NodeReport are facts, `name=value`, with each value
as a field of a plan. The job host, which also has to compare them, says what they mean (`admin.checks.nodes`).
"""

import os
import sys
import time

from nodehealth.autoload import loads_itself
from udiroot import digest, modules, smallfile
from udiroot.alarm import set_alarm
from udiroot.commands import answer, leave, parse
from udiroot.errors import UdiError, UsageError, printable
from udiroot.fields import escape
from udiroot.image import has_file_system
from udiroot.ledger import survey
from udiroot.record import RunDirectory
from udiroot.rights import FileRights
from udiroot.rules import in_real_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_MOST_OF_A_VALUE = 80
"""Characters: a report has less than 512 bytes."""
_MAX_ZIP = 64 << 20
_CONTROL = "/dev/loop-control"


def main() -> "NoReturn":
    """Run the probe with the arguments in sys.argv."""
    leave(run(sys.argv[1:]))


def run(arguments: "list[str]") -> int:
    """Run one probe; its exit code."""
    began = time.monotonic()
    try:
        options, words = parse(arguments)
        given = [word.partition("=") for word in words if "=" in word]
        if not options["nonce"] or words[:1] != ["probe"] or len(given) != len(words) - 1:
            raise UsageError(f"invalid arguments: {printable(' '.join(words))}", "see nodehealth/probe.py")
        set_alarm(int(options["deadline"]))
    except UdiError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return error.exit_code
    wanted = {name: value for name, _, value in given}
    files = tuple(value.replace("{release}", os.uname().release) for name, _, value in given if name == "module")
    others = tuple(value for name, _, value in given if name.startswith("path."))
    paths = options["root"], options["run"]
    return answer(began, options, options["nonce"], lambda node: (_facts(wanted, files, others, *paths, node),))


def _facts(
    wanted: "dict[str, str]",
    files: "tuple[str, ...]",
    others: "tuple[str, ...]",
    root: str,
    run_directory: str,
    node: str,
) -> str:
    found = {
        "zip": _digest(wanted.get("zip", "")),
        "python": ".".join(map(str, sys.version_info[:3])),
        "kind": _kind(wanted.get("kind", ""), files),
        "loop": _loops(files),
        "memory": _memory(),
        "absent": _absent(others),
        "root": _root(root, run_directory, node),
        "store": _store(wanted),
        "kernel": os.uname().release,
    }
    return " ".join(f"{name}={escape(value)[:_MOST_OF_A_VALUE]}" for name, value in found.items())


def _digest(path: str) -> str:
    """The sha256 of the node software, of which the first half is enough to tell two apart; or why it cannot be
    read."""
    try:
        with open(path, "rb") as stream:
            return digest.sha256(stream.read(_MAX_ZIP))[:32]
    except OSError as error:
        return str(error.strerror)


def _kind(kind: str, files: "tuple[str, ...]") -> str:
    """Whether the kernel can mount images of this kind: it `has` it, its module `can` be loaded by a set-up, or by the
    kernel `itself`, or it `lacks` it."""
    if not kind:
        return "has"
    kinds = smallfile.read("/proc/filesystems").decode("ascii").split()
    if kind in kinds:
        return "has"
    found = _loadable(kind, files)
    return "itself" if found == "lacks" and loads_itself(kind) else found


def _loops(files: "tuple[str, ...]") -> str:
    """Free loop devices: their number, `any` where the kernel makes more, `can` where its module is there, `lacks`."""
    if os.path.exists(_CONTROL):
        return "any"
    devices = [name for name in os.listdir("/dev") if name.startswith("loop") and name[4:].isdecimal()]
    if not devices or not os.path.exists("/sys/block/loop0"):
        return _loadable("loop", files)
    return str(sum(not os.path.exists(f"/sys/block/{name}/loop/backing_file") for name in devices))


def _loadable(name: str, files: "tuple[str, ...]") -> str:
    """`can` where a file of the configuration is the module of that name, and the kernel loads modules."""
    mine = [path for path in files if modules.name_of(path) == name]
    return "can" if mine and os.path.exists("/proc/modules") and all(map(os.path.isfile, mine)) else "lacks"


def _absent(paths: "tuple[str, ...]") -> str:
    """Which of the paths are not here: a bit for each, that of the first one the lowest, in hexadecimal."""
    bits = 0
    for number, path in enumerate(paths):
        if not os.path.exists(path):
            bits |= 1 << number
    return f"{bits:x}"


def _memory() -> str:
    """MiB that programs can get; older kernels (before 3.14) do not say it in one figure."""
    rows = (line.split() for line in smallfile.read("/proc/meminfo").decode("ascii").split("\n") if line)
    kib = {row[0].rstrip(":"): int(row[1]) for row in rows}
    free = kib.get("MemAvailable", kib.get("MemFree", 0) + kib.get("Cached", 0) + kib.get("Buffers", 0))
    return str(free >> 10)


def _root(root: str, run_directory: str, node: str) -> str:
    """`clean`, what of which jobs is there, or why it cannot become the image root."""
    for path in (root, run_directory):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        if status.st_mode & 0o170000 != 0o040000 or status.st_uid != 0:
            return f"odd {path}"
    found = survey(in_real_directory(root), RunDirectory(in_real_directory(run_directory)), node)
    return "clean" if found.clean else f"jobs {','.join(sorted(found.jobs | _named(found.remains)))}"


def _named(remains: "list[str]") -> "set[str]":
    """Jobs that have a directory of their own there, as with native Slurm."""
    return {name for name in remains if name.isdecimal()}


def _store(wanted: "dict[str, str]") -> str:
    """`read` where the store's account reads an image here, `empty` where it finds none to read, or why it cannot.

    With that account's rights, as the plan and the image are read: root may be squashed there.
    """
    uid, _, gid = wanted.get("owner", "0:0").partition(":")
    path = wanted.get("image") or wanted.get("store", "")
    try:
        with FileRights(int(uid), int(gid)):
            if not wanted.get("image"):
                os.listdir(path)
                return "empty"
            if os.path.isdir(path):
                os.listdir(path)
                return "read"
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return "read" if has_file_system(descriptor, path.rpartition(".")[2]) else "another file"
        finally:
            os.close(descriptor)
    except OSError as error:
        return str(error.strerror)
