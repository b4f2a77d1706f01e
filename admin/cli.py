"""`udi-admin`: what an operator runs on a job host (on a Cray, the MOM node).

At the top it imports only what prints the help; a command imports what it needs, so that each starts fast.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from admin.console.program import PROGRAM, site_of
from udi.commandline import config_option, directories, files, json_option, run, version_option
from udiroot.errors import ConfigError, UsageError, complain

_IN_MODULES = {
    "chos": "admin.chos:chos",
    "job": "admin.job.cli:job",
    "status": "admin.status.cli:status",
    "try": "admin.trial.cli:attempt",
    "uninstall": "admin.uninstall_cli:uninstall",
}


class _Commands(click.Group):
    """Those of this file, and those that have a module of their own, which is imported when one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_IN_MODULES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if place := _IN_MODULES.get(cmd_name):
            module, _, name = place.partition(":")
            command = getattr(importlib.import_module(module), name)
            assert isinstance(command, click.Command)
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands)
@config_option
@version_option
@click.pass_context
def cli(context: click.Context, config_path: str) -> None:
    """Administer shifter-xc on this host."""
    context.obj = os.path.abspath(config_path)


@cli.command("check-config")
@click.option("--nodes", default="", metavar="NODES", help="Examine these nodes, too: nid[00012-00015], or host[1-4].")
@json_option
@click.pass_obj
def check_config(config_path: str, nodes: str, as_json: bool) -> None:
    """Prove the configuration on this host: a row for each check, which is ok, a warning or an error.

    Files, accounts and settings are compared; and what jobs, users and the gateway will do is tried: reading and
    writing the store, requests to the gateway, questions to the workload manager and the machine, versions of programs.

    With native Slurm, --nodes names the node that this host is. The exit code is 2 where a row is an error.

    With --json: schema, config, host, verdict, counts, and rows with check, level, what, todo, nodes.
    """
    from admin.checks import report
    from admin.config_check import read_subject, rows_of_errors

    subject, errors = read_subject(config_path)
    host = os.uname().nodename
    if subject is None and not as_json:
        for error in errors:
            complain(PROGRAM, error)
        sys.exit(ConfigError.exit_code)
    rows = subject.rows() if subject else rows_of_errors(errors)
    if subject and nodes:
        rows += subject.rows_on(nodes)
    if as_json:
        click.echo(report.as_json(config_path, host, rows))
    else:
        report.show(config_path, host, rows)
    sys.exit(report.exit_code(rows, ConfigError.exit_code))


@cli.command("example-config")
def example_config() -> None:
    """Print an annotated configuration with every key and its default."""
    from admin.sitefiles.example import example

    click.echo(example(), nl=False)


@cli.command()
@click.option(
    "--output", required=True, metavar="DIR", shell_complete=directories, help="Directory to write them below."
)
@click.pass_obj
def render(config_path: str, output: str) -> None:
    """Write the site's files below a directory, for review."""
    from admin.install.installing import render_below
    from admin.seams.machines import machine_of
    from admin.sitefiles.all_files import site_files

    site = site_of(config_path)
    for path in render_below(_directory("--output", output), site_files(site, machine_of(site), config_path)):
        click.echo(path)


@cli.command()
@click.option(
    "--root",
    default="/",
    metavar="DIR",
    show_default=True,
    shell_complete=directories,
    help="Root directory to install below.",
)
@click.pass_obj
def install(config_path: str, root: str) -> None:
    """Install the site's files and the node software. Prints the paths that changed."""
    from admin.install.built import built, sshd_programs
    from admin.install.installed import Record, line_file
    from admin.install.installing import install_programs, planned
    from admin.install.software import install_software
    from admin.install.unfinished import places, remove_unfinished
    from admin.seams.machines import machine_of
    from admin.seams.managers import manager_of
    from admin.sitefiles.all_files import site_files

    site = site_of(config_path)
    if os.geteuid() != 0:
        raise UsageError("only root can install: the hooks must be owned by root")
    prefix = _directory("--root", root).rstrip("/")
    manager = manager_of(site)
    programs = {"udi-run": built(site.install.udi_run_built, "install.udi_run_built", "udi-run")}
    record = Record.read(prefix)
    earlier = [line_file(entry) for entry in record.lines]
    plan = planned(prefix, site_files(site, machine_of(site), config_path), earlier)
    others = dict(manager.built())
    if site.ssh.enabled or os.path.isdir(site.install.ssh_built):
        others |= sshd_programs(site.install.ssh_built, site.install.ssh)
    record = record.with_installation(prefix, plan.placed, others, site.install.zip)
    record.write(prefix)
    remove_unfinished(places(prefix, record, site))
    # The hooks come last, since what they tell the nodes' software must be known to it; so do lines that load programs.
    changed = install_software(site, prefix + site.install.zip, programs)
    changed += install_programs(prefix, others)
    done = plan.put()
    for path in [*done.changed, *changed]:
        click.echo(path)
    for advice in done.advice + manager.advice():
        click.echo(f"{PROGRAM}: to do: {advice}", err=True)


@cli.command()
@click.argument("file", shell_complete=files)
@click.option("--name", required=True, metavar="NAME", help="What the module is called.")
@click.option(
    "--device", "devices", multiple=True, metavar="NAME", help="A device of it; may be repeated.  [default: all]"
)
@click.pass_obj
def cdi(config_path: str, file: str, name: str, devices: tuple[str, ...]) -> None:
    """Print a table [modules.NAME] for the configuration, made from the CDI specification FILE (JSON).

    Device nodes must be those that node.devices allows. Hooks are not run; remarks say what that means.
    """
    from admin.cdi import as_module, edits_of, read_specification, require_fitting
    from udi.config import load

    text = as_module(edits_of(read_specification(file), file, devices), name, file)
    require_fitting(load(config_path), name, text)
    click.echo(text, nl=False)


@cli.command()
@click.argument("job")
@click.option("--nodes", default="", metavar="NODES", help="Its nodes, where its state is damaged or lost.")
@click.pass_obj
def takedown(config_path: str, job: str, nodes: str) -> None:
    """Take down a JOB whose epilogue never ran (after a crash of this host, say), and drop its hold record.

    With native Slurm, on the node itself.
    """
    from admin.seams.machines import machine_of
    from admin.seams.managers import manager_of

    site = site_of(config_path)
    manager_of(site).take_down(machine_of(site), job, nodes)
    click.echo(f"job {job}: clean")


@cli.command()
@click.argument("nodes")
@click.pass_obj
def recover(config_path: str, nodes: str) -> None:
    """Clean, check and bring back NODES that shifter-xc took out of service: nid[00012-00013] or 12-13,17.

    With native Slurm, on the node itself, by its name.
    """
    from admin.seams.machines import machine_of
    from admin.seams.managers import manager_of

    site = site_of(config_path)
    manager_of(site).recover(machine_of(site), nodes)


def _directory(option: str, text: str) -> str:
    """The absolute path. An empty one, as of a variable that is not set, is not taken for the directory we are in."""
    if not text:
        raise UsageError(f"{option} is empty, must be a directory")
    return os.path.abspath(text)


def main() -> None:
    """The program `udi-admin`. What it installs and writes does not depend on the caller's umask."""
    os.umask(0o022)
    run(cli, PROGRAM)
