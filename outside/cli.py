"""`udi`, whole: the gateway's commands, and those that use an image outside of a job's script.

At the top it imports only what prints the help; a command imports what it needs, so that each starts fast.
"""

from __future__ import annotations

import json
import shlex

import click

from gateway.client.cli import cli
from gateway.client.completion import image_names
from outside.completion import image_or_command, module_names
from udi.commandline import files, json_option, one_of, run

_WORDS_OF_OTHERS = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_volumes = click.option(
    "--volume", "volumes", multiple=True, metavar="SOURCE:TARGET[:ro]", help="A volume; may be repeated."
)
_modules = click.option(
    "--module",
    "modules",
    multiple=True,
    metavar="NAME[;...]",
    shell_complete=module_names,
    help="A site module; may be repeated.",
)
_workdir = click.option(
    "--workdir", default="", metavar="DIR", help="Start there; a relative one is below this directory."
)
_env = click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable inside the image; may be repeated.")
_with_args = click.option(
    "--args", "with_args", is_flag=True, help="What follows -- are arguments of the image's entry point."
)
_image = click.argument("image", metavar="IMAGE", shell_complete=image_names)
_words = click.argument(
    "words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG...]]", shell_complete=files
)


@cli.command(context_settings=_WORDS_OF_OTHERS)
@_volumes
@_modules
@click.option("--workdir", default="", metavar="DIR", help="Start there; a relative one is below the job's directory.")
@_env
@_with_args
@click.option("--print", "only_print", is_flag=True, help="Print what would be submitted, and submit nothing.")
@json_option
@click.argument(
    "words",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[OPTIONS OF QSUB OR SBATCH] IMAGE [-- COMMAND...]",
    shell_complete=image_or_command,
)
@click.pass_obj
def submit(
    config_path: str,
    volumes: tuple[str, ...],
    modules: tuple[str, ...],
    workdir: str,
    env: tuple[str, ...],
    with_args: bool,
    only_print: bool,
    as_json: bool,
    words: tuple[str, ...],
) -> None:
    """Submit a job without a script: it runs the image's entry point, or COMMAND, on all that the job has.

    The options above come first, then those of qsub or sbatch, as `-l nodes=2:ppn=16` or `-N2 -n32`; a long option of
    sbatch that takes a value may have it after `=`. It prints the job's id. With --json: job.
    """
    from outside.submit import prepared
    from outside.submit import submit as submit_job
    from udi import config

    options = [*_options(workdir, env, ()), *(("--args",) if with_args else ())]
    submission = prepared(config.load(config_path), words, volumes, tuple(options), modules)
    if only_print:
        if as_json:
            click.echo(json.dumps({"argv": submission.argv, "script": submission.script}))
        else:
            click.echo(f"{shlex.join(submission.argv)} <<'END'\n{submission.script}END")
        return
    done = submit_job(submission)
    click.echo(json.dumps({"job": done.job}) if as_json else done.job)


@cli.command()
@json_option
@click.pass_obj
def modules(config_path: str, as_json: bool) -> None:
    """List what the site offers to go with an image: UDI_MODULES='NAME;NAME', --module='NAME;NAME'.

    With --json: name, description, default (whether jobs have it without asking), allowed (whether you may have it).
    """
    from outside.modules import as_table, offered
    from udi import config

    rows = offered(config.load(config_path))
    if as_json:
        click.echo(json.dumps([row._asdict() for row in rows]))
    elif rows:
        click.echo(as_table(rows))


@cli.command(context_settings=_WORDS_OF_OTHERS)
@_volumes
@_modules
@_workdir
@_env
@_image
@_words
@click.pass_obj
def shell(
    config_path: str,
    volumes: tuple[str, ...],
    modules: tuple[str, ...],
    workdir: str,
    env: tuple[str, ...],
    image: str,
    words: tuple[str, ...],
) -> None:
    """Run a shell, or COMMAND, inside an image on this host, without a job.

    Where the site allows it, as on login nodes, and as long as it allows. All that was started ends with it. The exit
    code is that of the shell or COMMAND.
    """
    from outside.shell import start
    from udi import config

    start(config.load(config_path), image, volumes, modules, (*_options(workdir, env, words), *words))


@cli.command("run", context_settings=_WORDS_OF_OTHERS)
@_volumes
@_workdir
@_env
@_with_args
@click.option(
    "--engine",
    default="",
    metavar="NAME",
    shell_complete=one_of("docker", "podman", "none"),
    help="docker, podman, or none; default: what this host has.",
)
@click.option("--pull", is_flag=True, help="Get the image again, though it is here.")
@_image
@_words
@click.pass_obj
def run_here(
    config_path: str,
    volumes: tuple[str, ...],
    workdir: str,
    env: tuple[str, ...],
    with_args: bool,
    engine: str,
    pull: bool,
    image: str,
    words: tuple[str, ...],
) -> None:
    """Run the image's entry point, or COMMAND, on this workstation, as a job would: as you, in a read-only root.

    By Docker or podman where there is one, else by namespaces of your own. The exit code is that of the program.
    """
    from outside.desktop import run as run_image

    options = _options(workdir, env, words)
    options = [*options, *(("--args",) if with_args else ())]
    raise SystemExit(run_image(config_path, image, volumes, (*options, *words), engine=engine, pull=pull))


@cli.group()
def env() -> None:
    """Environment files: a run's image, volumes, modules, environment and entry point in a file, requested as @FILE."""


@env.command()
@click.argument("file", metavar="FILE", shell_complete=files)
@click.pass_obj
def check(config_path: str, file: str) -> None:
    """Say what is wrong with FILE, a line each; exit code 0 where a job could be submitted with it, else 2."""
    from outside.environment_files import examine
    from udi.sentences import report

    wrong = examine(config_path, file)[1]
    for line in wrong:
        report("udi", line)
    if wrong:
        raise SystemExit(2)


@env.command()
@click.argument("file", metavar="FILE", shell_complete=files)
@json_option
@click.pass_obj
def show(config_path: str, file: str, as_json: bool) -> None:
    """Print what FILE amounts to now: the image and the id that a job would be pinned to, and all else that it gets.

    With --json: image, id (empty where the image is not in the store), volumes, modules, environment, workdir,
    entrypoint and args (null: as the image has it).
    """
    from outside.environment_files import as_text, shown

    found = shown(config_path, file)
    click.echo(json.dumps(found._asdict()) if as_json else as_text(found))


def _options(workdir: str, env: tuple[str, ...], words: tuple[str, ...]) -> list[str]:
    """The options of udi-run. Raises UsageError for words after the image that do not begin with --."""
    from udiroot.errors import UsageError, printable

    if words and words[0] != "--":
        raise UsageError(f"'{printable(words[0])}' after the image", "what runs inside comes after --")
    return [*(("--workdir", workdir) if workdir else ()), *(word for text in env for word in ("--env", text))]


def main() -> None:
    """The program `udi`."""
    run(cli, "udi")
