"""A child that is about to become another program: it inherits nothing of what its parent or the fan-out had open."""

import os

_SIGNALS = range(1, 32)


def detach(null: int, output: int) -> None:
    """A session and signals of its own, `null` as its standard input, `output` as its standard output and error, and
    no other descriptor beyond the exec."""
    import _signal as signals  # type: ignore[import-not-found, unused-ignore]

    os.setsid()
    os.umask(0o022)
    for number in _SIGNALS:
        if number not in (signals.SIGKILL, signals.SIGSTOP):
            signals.signal(number, signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_SETMASK, ())
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:  # the descriptor of the listing itself
                continue
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
