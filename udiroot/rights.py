"""Opening files with another account's rights, without giving up the process's own.

The kernel checks file access by the file-system uid and gid and by the supplementary groups. Those three are changed
for one step and restored; a failure to restore them aborts the process, since nothing after it could be trusted. When
they change, the kernel forgets which signal the process has asked for at its parent's end (commit_creds in
kernel/cred.c), so that is restored as well.
"""

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)
_libc.setfsuid.argtypes = (ctypes.c_uint,)
_libc.setfsgid.argtypes = (ctypes.c_uint,)
# An id is unsigned. Declared as C has it, one of 2**31 or more would come back as a negative number.
_libc.setfsuid.restype = ctypes.c_uint
_libc.setfsgid.restype = ctypes.c_uint
_NOBODY_CHANGES = 0xFFFFFFFF
"""An id that no account has: setting it changes nothing and returns the present one (setfsuid(2))."""


class FileRights:
    """`with FileRights(uid, gid, groups):` every path inside is opened as that account would open it.

    Uses process-wide groups, so it is for single-threaded programs. A process that is that account already, and not
    root, has its rights, and may not be allowed to set groups. Raises PermissionError when the rights cannot be taken.
    """

    def __init__(self, uid: int, gid: int, groups: "tuple[int, ...]" = ()) -> None:
        self._wanted = (uid, gid, groups)
        self._is_own = os.geteuid() == uid != 0 and os.getegid() == gid

    def __enter__(self) -> None:
        if self._is_own:
            return
        uid, gid, groups = self._wanted
        self._before = (_libc.setfsuid(_NOBODY_CHANGES), _libc.setfsgid(_NOBODY_CHANGES), tuple(os.getgroups()))
        self._parent, self._signal = os.getppid(), _signal_at_parents_end()
        try:
            os.setgroups(groups)
            self._set(uid, gid)
        except BaseException:
            self._restore()
            raise

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        if self._is_own:
            return
        try:
            self._restore()
        except BaseException:  # the deadline's alarm, which is raised once
            self._restore()
            raise

    def _restore(self) -> None:
        uid, gid, groups = self._before
        try:
            self._set(uid, gid)
            os.setgroups(groups)
        except OSError:
            os.abort()
        if self._signal:
            _libc.prctl(_PR_SET_PDEATHSIG, self._signal, 0, 0, 0)
            if os.getppid() != self._parent:  # it has ended meanwhile
                os.kill(os.getpid(), self._signal)

    @staticmethod
    def _set(uid: int, gid: int) -> None:
        """Set both ids and check that they were set, since setfsuid(2) has no error return."""
        _libc.setfsgid(gid)
        _libc.setfsuid(uid)
        if _libc.setfsuid(_NOBODY_CHANGES) != uid or _libc.setfsgid(_NOBODY_CHANGES) != gid:
            raise PermissionError(f"file rights of uid {uid} and gid {gid} could not be taken")


def _signal_at_parents_end() -> int:
    number = ctypes.c_int()
    _libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)
    return number.value
