"""An image by the container engine of a workstation, Docker or podman, with what a job on a node would have.

The engine makes the root; `udi-run` inside does the rest, with the same data that a node's root has.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from udi.facts import Facts
from udi.launch import RUN
from udiroot.errors import NotFound, UpstreamFailed, printable
from udiroot.plan import NodePlan

ENGINES = ("docker", "podman")
_ASK_SECONDS = 60.0
_ETC = ("passwd", "group", "nsswitch.conf")
"""Files of /etc that are ours in a container; the engine has its own hosts and resolv.conf."""


@dataclass(frozen=True)
class Engine:
    """An engine's own program, which runs as the user."""

    program: str

    @property
    def name(self) -> str:
        return os.path.basename(self.program)

    def facts(self, reference: str, *, pull: bool) -> Facts:
        """What the engine says of an image, which it pulls if it must. Raises NotFound, UpstreamFailed."""
        found = None if pull else self._inspected(reference)
        if found is None:
            done = subprocess.run([self.program, "pull", reference], stdout=sys.stderr.fileno(), check=False)
            if done.returncode:
                raise NotFound(f"{self.name} cannot pull {printable(reference)}", "its message is above")
            found = self._inspected(reference)
        if found is None:
            raise UpstreamFailed(f"{self.name} does not show the image {printable(reference)}")
        return found

    def _inspected(self, reference: str) -> Facts | None:
        done = subprocess.run(
            [self.program, "image", "inspect", reference], capture_output=True, timeout=_ASK_SECONDS, check=False
        )
        if done.returncode:
            return None
        try:
            [image] = json.loads(done.stdout)
            config = image.get("Config") or {}
            identity = str(image["Id"]).removeprefix("sha256:")
        except (ValueError, KeyError, AttributeError) as error:
            raise UpstreamFailed(f"{self.name} says what is no image: {type(error).__name__}") from error
        return Facts(
            id=identity,
            format="directory",
            size=0,
            sha256=identity,
            arch=str(image.get("Architecture", "")),
            env=tuple(config.get("Env") or ()),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            cmd=tuple(config.get("Cmd") or ()),
            workdir=config.get("WorkingDir") or "",
        )

    def run(self, plan: NodePlan, reference: str, words: Sequence[str], cwd: str) -> int:
        """Run udi-run with these words in a container of the image; the exit code."""
        with tempfile.TemporaryDirectory(prefix="udi-run-") as place:
            argv = [self.program, "run", "--rm", "--interactive", *self._options(plan, place, cwd)]
            if os.isatty(0) and os.isatty(1):
                argv.append("--tty")
            return subprocess.run([*argv, reference, *words], check=False).returncode

    def _options(self, plan: NodePlan, place: str, cwd: str) -> list[str]:
        user = plan.user
        options = ["--network=host", "--pid=host", "--uts=host", "--read-only", f"--user={user.uid}:{user.gid}"]
        options += ["--cap-drop=ALL", "--security-opt=no-new-privileges", f"--entrypoint={RUN}"]
        options += [f"--tmpfs={path}:rw,exec,mode=1777,size={plan.tmp_bytes}" for path in ("/tmp", "/var/tmp")]  # noqa: S108
        if self.name == "podman":
            options += ["--userns=keep-id", "--group-add=keep-groups"]
        else:
            options += [f"--group-add={gid}" for gid in user.groups if gid != user.gid]
        options += [option for name in os.environ for option in ("--env", name)]
        mounts = [(site.source, site.target, site.read_only) for site in (*plan.sites, *plan.volumes)]
        options += [f"--volume={source}:{target}{':ro' if only else ''}" for source, target, only in mounts]
        options += [f"--volume={source}:{target}:ro" for source, target in _own_files(plan, Path(place))]
        is_there = any(cwd == target or cwd.startswith(f"{target}/") for _, target, _ in mounts)
        return [*options, f"--workdir={cwd if is_there else '/'}"]


def _own_files(plan: NodePlan, place: Path) -> list[tuple[str, str]]:
    """The files that a root has of ours: where they are here, and there."""
    etc = [(f"/etc/{file.path}", file.mode, file.text) for file in plan.etc if file.path in _ETC]
    found = []
    for number, (target, mode, text) in enumerate([*etc, *((each.path, each.mode, each.text) for each in plan.files)]):
        path = place / str(number)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        path.chmod(mode)
        found.append((str(path), target))
    place.chmod(0o755)
    return found


def find_engine(wanted: str) -> Engine | None:
    """The engine that was asked for, or that this host has; None where it has none, or where `none` was asked for.

    Raises NotFound where the wanted one is not there.
    """
    if wanted == "none":
        return None
    for name in [wanted] if wanted else ENGINES:
        if program := shutil.which(name):
            return Engine(program)
    if wanted:
        raise NotFound(f"this host has no {printable(wanted)}", f"engines are {', '.join(ENGINES)}, or none")
    return None
