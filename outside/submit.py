"""`udi submit`: a job whose only program is its image's entry point, or one command inside it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

from udi.config import SiteConfig
from udi.launch import Launch, Submission, Unscripted
from udi.request import Volume
from udi.sitemodules import parse_modules
from udiroot.errors import ConfigError, UdiError, UpstreamFailed, UsageError, printable

_GRAMMAR = "udi submit [OPTIONS of qsub or sbatch] IMAGE [-- COMMAND [ARG...]]"


class SubmissionRefused(UdiError):
    """qsub or sbatch has refused the job, and has said why on standard error."""

    def __init__(self, code: int) -> None:
        super().__init__("the job was not submitted")
        self.exit_code = code


@dataclass(frozen=True)
class Submitted:
    """What was submitted, and the job's id as the workload manager writes it."""

    job: str


def unscripted(site: SiteConfig) -> Unscripted:
    """How the site's workload manager submits such jobs. Raises ConfigError."""
    if site.workload_manager == "slurm":
        from slurm_hooks.settings import SlurmConfig
        from slurm_hooks.unscripted import UnscriptedSlurm

        slurm = site.table(SlurmConfig)
        return UnscriptedSlurm(inside=slurm.batch == "inside" and not slurm.over_alps)
    if site.machine not in ("", "alps"):
        raise ConfigError(
            f"jobs of Torque on the machine '{printable(site.machine)}' enter their root by the site's own launcher",
            "write a script that calls it, and submit that with qsub",
        )
    from torque_hooks.unscripted import UnscriptedTorque

    return UnscriptedTorque()


def prepared(
    site: SiteConfig,
    words: tuple[str, ...],
    volumes: tuple[str, ...],
    run: tuple[str, ...],
    modules: tuple[str, ...] = (),
) -> Submission:
    """The submission of `[OPTIONS] IMAGE [-- COMMAND]`; `run` are options of udi-run.

    Raises UsageError, ConfigError.
    """
    manager = unscripted(site)
    options, rest = manager.split(words)
    image, command = rest[:1], rest[1:]
    if not image or (command and command[0] != "--"):
        what = f"'{printable(command[0])}' after the image" if command else "no image was named"
        raise UsageError(what, f"{_GRAMMAR}; what runs inside comes after --")
    for text in volumes:
        Volume.parse(text)
    for text in modules:
        parse_modules(text)
    words = (*run, *(("--", *command[1:]) if command[1:] else ()))
    return manager.submission(options, Launch(image[0], ";".join(volumes), ";".join(modules), words))


def submit(submission: Submission) -> Submitted:
    """Submit it, as the caller; what qsub or sbatch says goes to standard error.

    Raises SubmissionRefused, UpstreamFailed where there is no such program or it prints no id.
    """
    name = submission.argv[0]
    program = shutil.which(name)
    if program is None:
        raise UpstreamFailed(f"{name} is not in PATH", "jobs are submitted on a login node")
    done = subprocess.run(
        [program, *submission.argv[1:]], input=submission.script.encode(), stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise SubmissionRefused(done.returncode if done.returncode > 0 else UpstreamFailed.exit_code)
    job = done.stdout.decode(errors="replace").strip()
    if not job or len(job.split()) > 1:
        raise UpstreamFailed(f"{name} printed no job id but '{printable(job)}'")
    return Submitted(job)
