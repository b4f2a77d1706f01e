"""What `qsub` pays for the submit filter when a job requests no image, and what `udi --help` costs, in a plain install.

    python -m benchmarks.submit [--python /usr/bin/python3] [--rounds 200]

Installs the package, not editable and without its dependencies, into a virtual environment of the interpreter that
users have, and runs each program in turns with the least that it could be: the filter with an interpreter that does
nothing, `udi --help` with a click group of one command. The ratio of the medians is what counts.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from torque_hooks.site_files import site_files
from udi import config
from udi.sitefiles import Renderer, marked

_ROOT = Path(__file__).parents[1]
_WARM_UP = 5
_SCRIPT = "#!/bin/sh\n#PBS -l nodes=2:ppn=32,walltime=01:00:00\n#PBS -N run\n" + "aprun -n 64 ./a.out\n" * 40
_FILTER = "import sys; from torque_hooks.submit_filter import main; sys.exit(main())"
_UDI = "from outside.cli import main; main()"
_GROUP = """
import click

@click.group()
def main():
    "A group."

@main.command()
def images():
    "A command."

main()
"""


def install(python: str, work: Path) -> Path:
    """Install the package as a site would; the interpreter of its virtual environment."""
    source, environment = work / "source", work / "environment"
    ignored = shutil.ignore_patterns(".*", "build", "docs", "tests", "__pycache__", "*.egg-info")
    shutil.copytree(_ROOT, source, ignore=ignored)
    subprocess.run([python, "-m", "venv", "--without-pip", str(environment)], check=True)
    installed = environment / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(installed), "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", str(source)], check=True)
    return installed


def in_turns(first: Sequence[str], second: Sequence[str], stdin: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each run of two commands that take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + _WARM_UP):
        for argv, kept in zip((first, second), times, strict=True):
            seconds = _seconds(argv, stdin)
            if number >= _WARM_UP:
                kept.append(seconds)
    return times


def _seconds(argv: Sequence[str], stdin: Path) -> float:
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, str(stdin), os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    began = time.perf_counter()
    child = os.posix_spawn(argv[0], list(argv), {"PATH": "/usr/bin:/bin"}, file_actions=actions)
    status = os.waitpid(child, 0)[1]
    seconds = time.perf_counter() - began
    if status:
        raise click.ClickException(f"{' '.join(argv)} failed with status {status}")
    return seconds


def rendered_filter(python: Path, work: Path) -> Path:
    """The program that `udi-admin install` puts in place for qsub."""
    site = config.parse('[store]\npath = "/store"\n', "udi.toml")
    program = work / "udi-submit-filter"
    render = Renderer(site, "/etc/udi/udi.toml", python=str(python))
    program.write_text(next(marked(file.text) for file in site_files(site, render) if file.path.endswith(program.name)))
    program.chmod(0o755)
    return program


def show(name: str, times: tuple[list[float], list[float]]) -> None:
    """A line: both medians in milliseconds, and their ratio."""
    ours, least = map(statistics.median, times)
    print(f"{name:36}{ours * 1000:8.1f}{least * 1000:8.1f}{ours / least:8.2f}")


@click.command()
@click.option("--python", default="/usr/bin/python3", show_default=True, help="The interpreter that users have.")
@click.option("--rounds", default=200, show_default=True)
def main(python: str, rounds: int) -> None:
    """Print a table."""
    dependencies = str(Path(click.__file__).parents[1])
    appended = f"import sys; sys.path.append({dependencies!r})\n"
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        installed = install(python, work)
        script, bare = work / "job.sh", [str(installed), "-I", "-c", "pass"]
        script.write_text(_SCRIPT)
        arguments = ["-l", "nodes=2", "job.sh"]
        print(f"{rounds} rounds; medians in milliseconds{'ours':>8}{'least':>8}{'ratio':>8}")
        filtering = [str(installed), "-I", "-c", _FILTER, *arguments]
        show("submit filter, no image", in_turns(filtering, bare, script, rounds))
        program = [str(rendered_filter(installed, work)), *arguments]
        show("the same, as installed (through sh)", in_turns(program, bare, script, rounds))
        udi = [str(installed), "-I", "-c", appended + _UDI, "--help"]
        group = [str(installed), "-I", "-c", appended + _GROUP, "--help"]
        show("udi --help", in_turns(udi, group, script, rounds))


if __name__ == "__main__":
    main()
