"""Which threads of a process have descriptors of their own: nearly always all share one table, but one that has called
unshare(CLONE_FILES) can hold a file that no other thread shows."""

import os

_SYS_KCMP = 272 if os.uname().machine == "aarch64" else 312
_FILES = 2
_SAME, _BEFORE, _AFTER = 0, 1, 2


def with_own_descriptors(threads: "list[str]") -> "list[str]":
    """One thread for each table of descriptors among `threads`, which are directories of /proc.

    The kernel orders tables (kcmp(2), Linux 3.5), so that each thread is compared with a few others only. Where it
    does not, each thread counts as one with a table of its own.
    """
    if len(threads) < 2:
        return threads
    import ctypes

    kcmp = ctypes.CDLL(None).syscall
    kcmp.restype = ctypes.c_long

    def order(one: int, other: int) -> int:
        return int(kcmp(*map(ctypes.c_long, (_SYS_KCMP, one, other, _FILES, 0, 0))))

    chosen: list[tuple[int, str]] = []
    lone = []
    for thread in threads:
        number = int(thread.rpartition("/")[2])
        low, high, answer = 0, len(chosen), _BEFORE
        while low < high:
            middle = (low + high) // 2
            answer = order(number, chosen[middle][0])
            if answer == _BEFORE:
                high = middle
            elif answer == _AFTER:
                low = middle + 1
            else:
                break
        if answer in (_BEFORE, _AFTER):
            chosen.insert(low, (number, thread))
        elif answer != _SAME:
            lone.append(thread)
    return [thread for _, thread in chosen] + lone
