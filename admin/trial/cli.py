"""`udi-admin try`: an image on one node, without a job."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import click
from rich.console import Console
from rich.text import Text

from admin.console.program import PROGRAM, site_of
from admin.console.screen import hanging, quoted, show, terminal
from admin.seams.machines import machine_of
from admin.seams.managers import manager_of
from admin.trial.places import Here, OnMachine, Place, new_trial
from admin.trial.trying import Step, Trial, Trying
from gateway.client.completion import image_names
from jobs.process import catch_signals
from udi.accounts import account_of
from udi.commandline import json_option
from udi.config import SiteConfig
from udi.log import plain, start_log
from udi.request import JobRequest, job_request
from udiroot.errors import UsageError, complain

_COMMAND_FAILED = 1
_MOST_SECONDS = 3600
_MOST_BYTES = 4096
"""Of a command: it has to fit into the one line that reaches a node."""
_MARK = "| "
"""In front of what COMMAND printed."""


@click.command("try", context_settings={"allow_interspersed_args": False})
@click.option("--node", "--nid", "node", required=True, metavar="N", help="The node: nid00012 or 12; a host's name.")
@click.option(
    "--user", default="nobody", metavar="NAME", show_default=True, help="Whose image it is, and who runs COMMAND."
)
@click.option("--volumes", default="", metavar="TEXT", help="Volumes as a job's UDI_VOLUMES: /source:/target[:ro];...")
@click.option("--modules", default="", metavar="TEXT", help="Site modules as a job's UDI_MODULES: NAME;...")
@click.option(
    "--seconds",
    default=60,
    type=click.IntRange(1, _MOST_SECONDS),
    metavar="N",
    show_default=True,
    help="What COMMAND may take; on a machine's node at most the time of a fan-out.",
)
@json_option
@click.argument("image", shell_complete=image_names)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def attempt(
    config_path: str,
    node: str,
    user: str,
    volumes: str,
    modules: str,
    seconds: int,
    as_json: bool,
    image: str,
    command: tuple[str, ...],
) -> int:
    """Set IMAGE up on one node without a job, run COMMAND in it if one is given, and take it down.

    \b
    udi-admin try --node nid00012 debian:12
    udi-admin try --node nid00012 --user alice alice/vasp:6 -- vasp_std --version

    Each step is shown with its time, and then what COMMAND printed (64 KiB). The node must have no job with an image;
    it may be out of service. A job that starts there meanwhile is not disturbed: its set-up ends the trial. COMMAND is
    started by udi-run, whose options may precede it, and never runs as root. On a Cray or a cluster, run this on the
    job host; with native Slurm on the node itself.

    Ctrl-C takes the node down first. Where this program is killed, udi-admin status names the node, and the next trial
    from this host, or udi-admin takedown TRIAL, cleans it.

    \b
    With --json, the keys are:
      job, node, user, image, image_id, notice
      steps       step, ok, seconds, words: in their order
      exit_code, signal, output
                  of COMMAND; null where it did not run
      error       the first one; empty where all went well

    Exit code 0; 1 where COMMAND failed; else that of the error: 2 where the node has a job, 3 for an unknown image, 7
    where the node could not be set up or a job came, 8 where it is not clean, 9 where the trial was interrupted.
    """
    site = site_of(config_path)
    _require_root(command)
    account = account_of(user)
    if account.uid == 0:
        raise UsageError("nothing runs as root in an image", "--user names another account")
    place = _place(site, node)
    request = job_request(site, new_trial(), account, image, volumes, modules=modules)
    start_log(site, PROGRAM, request.job)
    console = terminal()
    if not as_json:
        _say(console, hanging(console, f"{request.job}: ", _whose(place, request), indent=2, kind="head"))
    catch_signals()
    trial = Trying(place, request, lambda step: None if as_json else _show(console, step)).run(
        account, command, seconds
    )
    if as_json:
        names = {"job": request.job, "node": place.node, "user": account.name, "image": str(request.reference)}
        click.echo(json.dumps(names | trial.document(), indent=1, sort_keys=True))
    else:
        _show_end(console, trial)
    return _exit_code(trial)


def _place(site: SiteConfig, node: str) -> Place:
    if manager_of(site).has_machine:
        return OnMachine(site, machine_of(site), node)
    return Here(site, node)


def _require_root(command: tuple[str, ...]) -> None:
    if os.geteuid() != 0:
        raise UsageError("only root can set up an image on a node")
    if any("\0" in word for word in command) or sum(len(os.fsencode(word)) + 1 for word in command) > _MOST_BYTES:
        raise UsageError(f"COMMAND must be of at most {_MOST_BYTES} bytes", "put it into a script, and --volumes")


def _whose(place: Place, request: JobRequest) -> str:
    return f"{request.reference} on {place.node} as {request.user.name}"


def _show(console: Console, step: Step) -> None:
    start = f"{step.step:<12}{step.seconds:8.2f} s  "
    words = step.words if step.ok else f"FAILED: {step.words}"
    _say(console, hanging(console, start, words, indent=len(start), kind="" if step.ok else "bad"))


def _show_end(console: Console, trial: Trial) -> None:
    if trial.notice:
        _say(console, hanging(console, "notice: ", trial.notice, indent=2, kind="warning"))
    if trial.ended:
        for line in trial.ended.output.decode("utf-8", "replace").splitlines():
            for row in quoted(console, _MARK, plain(line)):
                _say(console, row)


def _say(console: Console, text: Text) -> None:
    """A terminal that has gone takes nothing; the node is taken down all the same."""
    with contextlib.suppress(OSError):
        show(console, text)
        sys.stdout.flush()


def _exit_code(trial: Trial) -> int:
    if trial.error:
        return complain(PROGRAM, trial.error)
    return _COMMAND_FAILED if trial.ended and (trial.ended.exit_code or trial.ended.signal) else 0
