"""The node's record of a job: written before the first change, removed after the last.

It holds what the kernel does not know: the boot that it belongs to, the process that sets up, and since when. It is
put in place atomically, by link(2), which also makes it the claim on the node: there is one at a time. The lock on its
directory keeps set-up and teardown apart.
"""

import errno
import fcntl
import os
import stat
import time

from udiroot import smallfile
from udiroot.errors import SetupFailed, TeardownIncomplete
from udiroot.fields import escape, unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

RECORD = "job"
"""The record's name in the run directory. With a dot and a pid appended, one that is being written."""
_HEAD = "udi-record 1"
_MAX_BYTES = 65536


class Record:
    """The owner of the root on a node. `pid` and `start` identify the set-up process; `since` is in seconds since the
    epoch; `made` is true where set-up created the directory that the root is mounted on. `modules` are files of kernel
    modules that were absent before set-up; `krsip` is the switch that it turns on. `sshd` is pid and start time of the
    private sshd. `reads` is how much was read from the image when set-up was complete (`udiroot.entered`). `cache` is
    the file of a cache that was to be bound to a loop device last (`udiroot.loop.file_id`)."""

    __slots__ = (
        "boot", "cache", "image", "job", "krsip", "made", "modules", "pid", "reads", "root", "since", "sshd", "start",
        "uid",
    )  # fmt: skip

    def __init__(
        self,
        *,
        job: str,
        uid: int,
        root: str,
        image: str,
        pid: int,
        start: int,
        since: int,
        boot: str,
        made: bool,
        modules: "tuple[str, ...]" = (),
        krsip: str = "",
        sshd: "tuple[int, int] | None" = None,
        reads: str = "",
        cache: str = "",
    ) -> None:
        self.job, self.uid, self.root, self.image = job, uid, root, image
        self.pid, self.start, self.since, self.boot = pid, start, since, boot
        self.made, self.modules, self.krsip, self.sshd, self.reads = made, modules, krsip, sshd, reads
        self.cache = cache

    @property
    def is_of_this_boot(self) -> bool:
        """Otherwise its processes and modules are gone, and only files and directories are left to remove."""
        return self.boot == boot_id()

    def text(self) -> str:
        rows = [
            ("job", self.job), ("uid", self.uid), ("root", self.root), ("image", self.image), ("pid", self.pid),
            ("start", self.start), ("since", self.since), ("boot", self.boot), ("made", int(self.made)),
            ("krsip", self.krsip), ("reads", self.reads),
        ]  # fmt: skip
        rows += [("module", name) for name in self.modules]
        rows += [("cache", self.cache)] if self.cache else []
        rows += [("sshd", f"{self.sshd[0]}/{self.sshd[1]}")] if self.sshd else []
        return "\n".join((_HEAD, *(f"{name} {escape(str(value))}" for name, value in rows), "end", ""))

    @classmethod
    def parse(cls, data: bytes) -> "Record | None":
        """The record in `data`, or None where it is truncated or invalid: then only the kernel's tables are left."""
        try:
            lines = data.decode("ascii").split("\n")
            if lines[0] != _HEAD or lines[-2:] != ["end", ""]:
                return None
            pairs = [line.split(" ", 1) for line in lines[1:-2]]
            values = {name: unescape(value) for name, value in pairs}
            return cls(
                job=values["job"],
                uid=int(values["uid"]),
                root=values["root"],
                image=values["image"],
                pid=int(values["pid"]),
                start=int(values["start"]),
                since=int(values["since"]),
                boot=values["boot"],
                made=values["made"] == "1",
                krsip=values["krsip"],
                reads=values["reads"],
                cache=values.get("cache", ""),
                sshd=_process(values["sshd"]) if "sshd" in values else None,
                modules=tuple(unescape(value) for name, value in pairs if name == "module"),
            )
        except (ValueError, KeyError):
            return None


class RunDirectory:
    """/var/run/udi: the record and the staging directory. `lock` creates it where it is missing; `with` gives the lock
    back.

    It is owned by root and closed to all others, and `remove` removes it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = -1

    @property
    def stage(self) -> str:
        """Where a root is composed."""
        return self.path + "/stage"

    def lock(self, seconds: float) -> bool:
        """Take the lock, waiting for at most `seconds`; False when another process still holds it then."""
        end = time.monotonic() + seconds
        while True:
            try:
                descriptor = self._open()
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError:  # a teardown removed the directory between the two steps
                pass
            except BlockingIOError:
                os.close(descriptor)
            else:
                if self._is_in_place(descriptor):
                    self.unlock()
                    self._descriptor = descriptor
                    return True
                os.close(descriptor)
            if time.monotonic() >= end:
                return False
            time.sleep(0.005)

    def unlock(self) -> None:
        """Give the lock back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close_others(self) -> None:
        """Close everything that this process has open but the lock and its standard streams.

        Where an alarm comes just after a descriptor was opened, no variable has it, and it would keep a mount busy.
        """
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != self._descriptor:
                try:
                    os.close(int(name))
                except OSError:  # that of the listing itself
                    continue

    def read(self) -> "Record | None":
        """The record; None where there is none, or an invalid one."""
        return Record.parse(self.raw() or b"")

    def raw(self) -> "bytes | None":
        """The record's bytes, valid or not; None where there is no such file."""
        try:
            descriptor = os.open(f"{self.path}/{RECORD}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with open(descriptor, "rb") as stream:
            return stream.read(_MAX_BYTES)

    def names(self) -> "list[str]":
        """Names in the directory; none where it does not exist."""
        try:
            return sorted(os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def write(self, record: Record) -> None:
        """Put the record in place atomically. Raises SetupFailed where there is one already."""
        unfinished = self._write_unfinished(record)
        try:
            os.link(unfinished, f"{self.path}/{RECORD}")
        except FileExistsError as error:
            raise SetupFailed(f"the node already has a record in {self.path}") from error
        finally:
            os.unlink(unfinished)

    def rewrite(self, record: Record) -> None:
        """Replace the record that the caller wrote, atomically."""
        os.rename(self._write_unfinished(record), f"{self.path}/{RECORD}")

    def _write_unfinished(self, record: Record) -> str:
        path = f"{self.path}/{RECORD}.{os.getpid()}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, record.text().encode("ascii"))
        finally:
            os.close(descriptor)
        return path

    def remove(self) -> None:
        """Remove the record, what a killed writer left, and the directory, which must then be empty."""
        for name in self.names():
            if name == RECORD or name.startswith(RECORD + "."):
                os.unlink(f"{self.path}/{name}")
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EBUSY):
                raise TeardownIncomplete(
                    f"{self.path} has files that shifter-xc does not own: {', '.join(self.names()[:3])}",
                    left=(f"files={len(self.names())}",),
                ) from error
            raise

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self.unlock()

    def _open(self) -> int:
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            pass
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        status = os.fstat(descriptor)
        if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o077:
            os.close(descriptor)
            raise SetupFailed(f"{self.path} must be owned by root and closed to all others", f"chmod 700 {self.path}")
        return descriptor

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the locked directory is still the one at its path: a teardown may have removed it."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(descriptor), there)


def _process(text: str) -> "tuple[int, int]":
    pid, start = text.split("/")
    return int(pid), int(start)


def boot_id() -> str:
    """The kernel's name for this boot."""
    return smallfile.read("/proc/sys/kernel/random/boot_id").decode("ascii").strip()
