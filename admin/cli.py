"""`udi-admin`: what an operator runs on a job host (on a Cray, the MOM node)."""

from __future__ import annotations

import os
import sys

import click

from admin.cdi import as_module, edits_of, read_specification, require_fitting
from admin.chos import chos
from admin.config_check import errors_of
from admin.example import example
from admin.installing import built, install_programs, install_sshd, planned, render_below
from admin.machines import machine_of
from admin.managers import manager_of
from admin.sitefiles import site_files
from admin.status import read_status
from udi import nodezip
from udi.commandline import config_option, directories, files, json_option, run, version_option
from udi.config import SiteConfig, load
from udi.log import start_log
from udiroot.errors import ConfigError, UsageError, complain

PROGRAM = "udi-admin"


@click.group()
@config_option
@version_option
@click.pass_context
def cli(context: click.Context, config_path: str) -> None:
    """Administer shifter-xc on this host."""
    context.obj = os.path.abspath(config_path)


cli.add_command(chos)


@cli.command("check-config")
@click.pass_obj
def check_config(config_path: str) -> None:
    """Validate the configuration, and check what it names on this host: paths, accounts, owners, programs, limits.

    Every error is printed, and what may surprise users as a note.
    """
    errors = errors_of(config_path)
    for error in errors:
        complain(PROGRAM, error)
    if errors:
        sys.exit(ConfigError.exit_code)
    site = load(config_path)
    for remark in manager_of(site).remarks():
        click.echo(f"{PROGRAM}: note: {remark}", err=True)
    click.echo(f"{config_path}: OK")


@cli.command("example-config")
def example_config() -> None:
    """Print an annotated configuration with every key and its default."""
    click.echo(example(), nl=False)


@cli.command()
@click.option(
    "--output", required=True, metavar="DIR", shell_complete=directories, help="Directory to write them below."
)
@click.pass_obj
def render(config_path: str, output: str) -> None:
    """Write the site's files below a directory, for review."""
    site = _site(config_path)
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
    site = _site(config_path)
    if os.geteuid() != 0:
        raise UsageError("only root can install: the hooks must be owned by root")
    prefix = _directory("--root", root).rstrip("/")
    manager = manager_of(site)
    programs = {"udi-run": built(site.install.udi_run_built, "install.udi_run_built", "udi-run")}
    plan = planned(prefix, site_files(site, machine_of(site), config_path))
    # The hooks come last, since what they tell the nodes' software must be known to it; so do lines that load programs.
    nodezip.build(site, prefix + site.install.zip, programs)
    others = install_programs(prefix, manager.built())
    if site.ssh.enabled or os.path.isdir(site.install.ssh_built):
        others += install_sshd(site.install.ssh_built, prefix + site.install.ssh)
    done = plan.put()
    for path in [*done.changed, *others, prefix + site.install.zip]:
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
    text = as_module(edits_of(read_specification(file), file, devices), name, file)
    require_fitting(load(config_path), name, text)
    click.echo(text, nl=False)


@cli.command()
@json_option
@click.pass_obj
def status(config_path: str, as_json: bool) -> None:
    """Show jobs, held jobs, and nodes out of service with the reasons; the gateway's queue, store and errors.

    With --json: jobs, held, nodes, troubles (what could not be read), gateway.
    """
    site = _site(config_path)
    found = read_status(site, manager_of(site).jobs(machine_of(site)))
    click.echo(found.as_json() if as_json else found.as_text())


@cli.command()
@click.argument("job")
@click.option("--nodes", default="", metavar="NODES", help="Its nodes, where its state is damaged or lost.")
@click.pass_obj
def takedown(config_path: str, job: str, nodes: str) -> None:
    """Take down a JOB whose epilogue never ran (after a crash of this host, say), and drop its hold record.

    With native Slurm, on the node itself.
    """
    site = _site(config_path)
    manager_of(site).take_down(machine_of(site), job, nodes)
    click.echo(f"job {job}: clean")


@cli.command()
@click.argument("nodes")
@click.pass_obj
def recover(config_path: str, nodes: str) -> None:
    """Clean, check and bring back NODES that shifter-xc took out of service: nid[00012-00013] or 12-13,17.

    With native Slurm, on the node itself, by its name.
    """
    site = _site(config_path)
    manager_of(site).recover(machine_of(site), nodes)


def _directory(option: str, text: str) -> str:
    """The absolute path. An empty one, as of a variable that is not set, is not taken for the directory we are in."""
    if not text:
        raise UsageError(f"{option} is empty, must be a directory")
    return os.path.abspath(text)


def _site(config_path: str) -> SiteConfig:
    site = load(config_path)
    start_log(site, PROGRAM)
    return site


def main() -> None:
    """The program `udi-admin`. What it installs and writes does not depend on the caller's umask."""
    os.umask(0o022)
    run(cli, PROGRAM)
