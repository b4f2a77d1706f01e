"""Hosts whose software is another version's from time to time, by the commands of the pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.install.fresh import ROOT
from tests.upgrade.versions import Version

UNPACK = ("sha256sum --check shifter-xc-*.tar.gz.sha256", "tar -xzf shifter-xc-*.tar.gz", "./shifter-xc-*/install.sh")
INSTALL = "/opt/udi/venv/bin/udi-admin install"
SECOND = "/opt/udi-0.2"
"""The virtual environment of docs/upgrade.md for a version that comes without a bundle."""
Shell = Callable[[str], str]
"""Runs a script as root on the host; what it printed. Raises where it fails."""


def carry(version: Version, directory: Path) -> None:
    """Both files of a bundle, into a directory of the host that is seen here."""
    assert version.bundle, version.name
    directory.mkdir()
    for file in (version.bundle, version.bundle.with_name(version.bundle.name + ".sha256")):
        (directory / file.name).write_bytes(file.read_bytes())


def unpack(shell: Shell, directory: str, options: Sequence[str] = ()) -> str:
    """What the page types before `udi-admin install`: unpacked again by whoever comes back to a version."""
    page = (ROOT / "docs/install.md").read_text()
    assert all(line in page for line in (*UNPACK, INSTALL))
    lines = [f"cd {directory}", *UNPACK]
    return shell("\n".join(lines) + "".join(f" {word}" for word in options))


def into_environment(shell: Shell, wheels: str, environment: str = SECOND) -> None:
    """A version into a virtual environment, from its wheels instead of the checkout and a network."""
    shell(
        f"python3 -m venv {environment}\n"
        f"{environment}/bin/pip install --quiet --disable-pip-version-check --no-index --find-links {wheels} shifter-xc"
    )
