"""`xcsim`: a one-machine Cray XC for trying and testing; a thin layer over `Machine`."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from udi import commandline
from udi.nodes import folded, numbered
from udiroot.errors import NotPermitted, UsageError
from xcsim import registry
from xcsim.access import DEFAULT_STATE
from xcsim.entering import Entry
from xcsim.faults import KNOWN
from xcsim.machine import Machine
from xcsim.node import BARE_ENVIRONMENT
from xcsim.settings import Settings

_ANYTHING = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_user = click.option("--user", default="alice", show_default=True, help="The account to use: alice, bob, udi or root.")
_words = click.argument("words", nargs=-1, type=click.UNPROCESSED)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@commandline.version_option
@click.option("--state", default=str(DEFAULT_STATE), show_default=True, help="The machine's state directory.")
@click.pass_context
def cli(context: click.Context, state: str) -> None:
    """A one-machine Cray XC: real namespaces as nodes, stand-ins for Cray's and Torque's commands."""
    if os.geteuid() != 0:
        raise NotPermitted("xcsim makes namespaces and mounts, which needs root", "run it as root, or with sudo")
    context.obj = Machine(Path(state))


@cli.command()
@click.option("--nodes", default=4, show_default=True, type=click.IntRange(1, 256), help="Number of compute nodes.")
@click.option("--first-nid", default=20, show_default=True, type=click.IntRange(1), help="Number of the first node.")
@click.option("--slots", default=16, show_default=True, type=click.IntRange(1), help="CPUs per node.")
@click.option(
    "--torque-version", default="6.1", show_default=True, help="Which Torque to imitate: 4.2, 5.0, 5.1, 6.0 or 6.1."
)
@click.option(
    "--prologalarm",
    default=300,
    show_default=True,
    type=click.IntRange(1),
    help="pbs_mom's time limit for hooks, in seconds.",
)
@click.option("--libplugin/--no-libplugin", default=True, help="Whether nodes have NHC's libplugin.sh.")
@click.option("--site/--no-site", default=True, help="Whether to install the site's software.")
@click.pass_obj
def up(
    machine: Machine,
    nodes: int,
    first_nid: int,
    slots: int,
    torque_version: str,
    prologalarm: int,
    libplugin: bool,
    site: bool,
) -> None:
    """Start the machine, or any part that is not running."""
    wanted = Settings(
        nodes=nodes,
        first_nid=first_nid,
        slots=slots,
        torque_version=torque_version,
        prologalarm=prologalarm,
        libplugin=libplugin,
    )
    again = (machine.state / "settings.json").exists()
    machine.up(None if again else wanted, with_site=site)
    nodes_up = folded(numbered(nid) for nid in machine.settings.nids)
    click.echo(f"up: login node {machine.settings.login_name}, compute nodes {nodes_up}")


@cli.command()
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("reference", metavar="NAME:TAG")
@click.pass_obj
def push(machine: Machine, archive: Path, reference: str) -> None:
    """Push the image in ARCHIVE to the registry as NAME:TAG.

    ARCHIVE is a file as `docker save` writes it; the registry is the machine's own.
    """
    registry.push(machine, archive, reference)
    click.echo(f"pushed: {registry.name(machine)}/{reference}")


@cli.command()
@click.option("--keep", is_flag=True, help="Leave image store and homes on disk for the next machine.")
@click.pass_obj
def down(machine: Machine, keep: bool) -> None:
    """Stop the machine and leave the host as it was."""
    machine.down(keep=keep)


@cli.command()
@click.pass_obj
def status(machine: Machine) -> None:
    """Show nodes, jobs and faults."""
    states = machine.node_states()
    table = Table("node", "state", "init", box=None)
    for nid, node in machine.nodes().items():
        table.add_row(node.name, states[nid], str(node.pid) if node.running else "not running")
    Console().print(table)
    _finish(machine, "root", ["/usr/bin/qstat"])
    for fault in machine.faults():
        where = f" on node {fault.node}" if fault.node else ""
        click.echo(f"fault {fault.name}{where}{f' {fault.value}' if fault.value else ''}")


@cli.command(context_settings=_ANYTHING)
@_user
@_words
@click.pass_obj
def qsub(machine: Machine, user: str, words: Sequence[str]) -> None:
    """Submit a job as USER. The script is a file that USER can read on the login node, or stdin."""
    _end(_attached(machine, user, ["/usr/bin/qsub", *words]))


@cli.command(context_settings=_ANYTHING)
@_words
@click.pass_obj
def qstat(machine: Machine, words: Sequence[str]) -> None:
    """Show jobs."""
    _end(_attached(machine, "root", ["/usr/bin/qstat", *words]))


@cli.command(context_settings=_ANYTHING)
@_user
@click.option("--job", default="", help="The running job of USER whose reservation to use.")
@_words
@click.pass_obj
def aprun(machine: Machine, user: str, job: str, words: Sequence[str]) -> None:
    """Run an application in the reservation of a running job."""
    _end(_attached(machine, user, ["/usr/bin/aprun", *words], env={"PBS_JOBID": job} if job else {}))


@cli.command(context_settings=_ANYTHING)
@_user
@_words
@click.pass_obj
def run(machine: Machine, user: str, words: Sequence[str]) -> None:
    """Run a program on the login node as USER; without one, a shell."""
    _end(_attached(machine, user, list(words) or ["/bin/bash", "-l"]))


@cli.command()
@click.argument("where", metavar="[NID]", default="login")
@click.pass_obj
def shell(machine: Machine, where: str) -> None:
    """Open a root shell on the login node, or on the node with that NID."""
    if where == "login":
        _end(_attached(machine, "root", ["/bin/bash", "-l"]))
    if not where.isdigit():
        raise UsageError(f"{where!r} is neither 'login' nor a nid")
    environment = {**BARE_ENVIRONMENT, "TERM": os.environ.get("TERM", "linux")}
    process = machine.node(int(where)).popen(["/bin/sh"], entry=Entry(session=False), env=environment, stdin=None)
    _end(_wait(process))


@cli.command()
@click.argument("nid", type=int)
@click.pass_obj
def crash(machine: Machine, nid: int) -> None:
    """Crash a compute node, with all that runs on it. `xcsim up` boots it again."""
    machine.node(nid).stop()


@cli.command()
@click.argument("job")
@click.option("--timeout", default=600.0, show_default=True, help="Maximum seconds to wait.")
@click.pass_obj
def wait(machine: Machine, job: str, timeout: float) -> None:
    """Wait until a job has finished or is held.

    The exit code is the job's, or 1 if the job is held.
    """
    found = machine.wait_job(job, "CH", timeout)
    click.echo(f"{found['Job_Id']} {found['job_state']} exit status {found.get('exit_status', 'none')}")
    code = int(found.get("exit_status", "1"))
    _end(code if 0 <= code < 256 and found["job_state"] == "C" else 1)


@cli.command()
@click.pass_obj
def log(machine: Machine) -> None:
    """Show the logs of daemon, gateway, health checker and hooks."""
    inside = (machine.path(path) for path in ("/var/log/xtcheckhealth_log", "/var/log/udi/hooks.log"))
    for path in (machine.state / "log/xcsimd.log", machine.state / "log/gateway.log", *inside):
        if path.exists() and path.stat().st_size:
            click.echo(f"==> {path.name} <==\n{path.read_text(errors='replace')}")


@cli.group()
def fault() -> None:
    """Make the machine fail in a chosen way."""


@fault.command("set")
@click.argument("name")
@click.option("--node", type=int, help="Only on the node with this nid.")
@click.option("--count", type=click.IntRange(1), help="How many times; without limit if not given.")
@click.option("--value", default="", help="A number, for faults that take one.")
@click.pass_obj
def fault_set(machine: Machine, name: str, node: int | None, count: int | None, value: str) -> None:
    """Set one fault; `xcsim fault list` shows their names."""
    if name not in KNOWN:
        raise UsageError(f"no such fault: {name}", "xcsim fault list shows all faults")
    machine.set_fault(name, node=node, count=count, value=value)


@fault.command("clear")
@click.argument("name", default="")
@click.pass_obj
def fault_clear(machine: Machine, name: str) -> None:
    """Clear one fault, or all of them."""
    machine.clear_faults(name)


@fault.command("list")
@click.pass_obj
def fault_list(machine: Machine) -> None:
    """List all faults, and show which are set."""
    active = {one.name for one in machine.faults()}
    table = Table("", "fault", "effect", box=None)
    for name, meaning in KNOWN.items():
        table.add_row("*" if name in active else "", name, meaning)
    Console().print(table)


def _attached(machine: Machine, user: str, argv: Sequence[str], env: dict[str, str] | None = None) -> int:
    """Run on the login node with our own terminal and descriptors."""
    extra = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    try:
        process = machine.popen_as(user, argv, env={**extra, **(env or {})}, stdin=None, session=False)
    except FileNotFoundError:
        click.echo(f"xcsim: no program {argv[0]} on the login node", err=True)
        return 127
    return _wait(process)


def _wait(process: "subprocess.Popen[str]") -> int:
    """Wait for a program that shares our terminal and handles interrupts itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = process.wait()
    return 128 - code if code < 0 else code


def _finish(machine: Machine, user: str, argv: Sequence[str]) -> None:
    code = _attached(machine, user, argv)
    if code != 0:
        _end(code)


def _end(code: int) -> None:
    sys.stdout.flush()
    raise SystemExit(code)


def main() -> None:
    """Entry point of `xcsim`."""
    commandline.run(cli, "xcsim")


if __name__ == "__main__":
    main()
