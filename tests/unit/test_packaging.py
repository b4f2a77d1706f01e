"""What an installation has: every package of the source, and nothing that is only for its tests."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NOT_INSTALLED = ("tests", "benchmarks")


def test_setup_cfg_lists_every_package() -> None:
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    listed = metadata["options"]["packages"].split()
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("*/**/__init__.py")}
    wanted = {name for name in found if not name.startswith((".", *_NOT_INSTALLED))}
    assert len(listed) == len(set(listed))
    assert set(listed) == wanted


def test_the_source_archive_has_what_is_built() -> None:
    """Directories of C and scripts, which no package holds."""
    manifest = (ROOT / "MANIFEST.in").read_text()
    for directory in ("packaging", "slurm", "sshd", "udirun", "docs", "tests"):
        assert f"graft {directory}\n" in manifest
