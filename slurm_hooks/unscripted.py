"""A job of Slurm that is its image's entry point or one command: `sbatch` with a script of our own."""

from __future__ import annotations

from udi.launch import Launch, Submission
from udiroot.errors import UsageError, printable

_PROGRAM = "sbatch"
_SHORT_FLAGS = "HOQVWhksv"
_LONG_FLAGS = frozenset(
    (
        *("contiguous", "exclusive", "get-user-env", "help", "hold", "ignore-pbs", "nice", "no-kill", "no-requeue"),
        *("overcommit", "oversubscribe", "parsable", "propagate", "quiet", "reboot", "requeue", "spread-job"),
        *("test-only", "usage", "use-min-nodes", "verbose", "version", "wait"),
    )
)
"""Long options of sbatch(1) that take no value, or one after `=` only."""
_OURS = ("--image", "--imagevolume", "--volume", "--module", "--wrap")


class UnscriptedSlurm:
    """A batch script inside the image runs a job of one task by itself, and needs `srun` there for more. One that the
    site leaves on the node (`slurm.batch`) has it always."""

    def __init__(self, *, inside: bool) -> None:
        self._inside = inside

    def split(self, words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """sbatch's options, and what follows. Raises UsageError for an option without its value."""
        at = 0
        while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
            at += 1 + _takes_next(words[at])
        if at > len(words):
            raise UsageError(f"option {printable(words[-1])} needs a value", "options before the image are sbatch's")
        return words[:at], words[at:]

    def submission(self, options: tuple[str, ...], launch: Launch) -> Submission:
        """Raises UsageError for options that this command gives itself."""
        names = [word.partition("=")[0] for word in options]
        if ours := next((name for name in names if name in _OURS), ""):
            raise UsageError(
                f"{ours} is set by this command",
                "the image is its argument; for volumes use --volume, for modules --module",
            )
        named = any(name == "--job-name" or name.startswith("-J") for name in names)
        argv = [_PROGRAM, "--parsable", *(() if named else (f"--job-name={launch.job_name}",)), *options]
        argv += [f"--image={launch.image}"]
        argv += [f"--imagevolume={launch.volumes}"] if launch.volumes else []
        argv += [f"--module={launch.modules}"] if launch.modules else []
        return Submission(tuple(argv), _inside(launch) if self._inside else _outside(launch))


def _takes_next(option: str) -> bool:
    """Whether the next word is this option's value."""
    if option.startswith("--"):
        name, equals, _ = option[2:].partition("=")
        return not equals and name not in _LONG_FLAGS
    flags = option[1:]
    last = next((at for at, letter in enumerate(flags) if letter not in _SHORT_FLAGS), -1)
    return last == len(flags) - 1 and last >= 0


_HEAD = "#!/bin/sh\n# Written by `udi submit`: what runs inside the image, once for each task.\n"


def _outside(launch: Launch) -> str:
    return f"{_HEAD}exec srun {launch.command}\n"


def _inside(launch: Launch) -> str:
    return (
        f"{_HEAD}"
        'if [ "${SLURM_NTASKS:-1}" = 1 ] && [ "${SLURM_JOB_NUM_NODES:-1}" = 1 ]; then\n'
        f"    exec {launch.command}\n"
        "fi\n"
        "command -v srun >/dev/null || {\n"
        '    echo "udi submit: this job has several tasks, and this site shows no srun inside images;" \\\n'
        '         "ask its staff for slurm.batch = outside, or for srun in images" >&2\n'
        "    exit 125\n"
        "}\n"
        f"exec srun {launch.command}\n"
    )
