"""A node whose plugstack.conf does not load the plugin is found, as Slurm reads that file."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_hooks.plugstack import PluginMissing, require_plugin
from slurm_hooks.settings import SlurmConfig

LINE = "required /opt/udi/lib/udi.so submit=/opt/udi/bin/udi-slurm-submit"


def check(directory: Path, text: str) -> None:
    path = directory / "plugstack.conf"
    path.write_text(text)
    require_plugin(SlurmConfig(plugstack=str(path)))


@pytest.mark.parametrize("text", [LINE, f"optional other.so\n\t{LINE}  # ours\n", f"# {LINE}\n{LINE}\n"])
def test_the_line(tmp_path: Path, text: str) -> None:
    check(tmp_path, text)


@pytest.mark.parametrize("pattern", ["parts/*", "{directory}/parts/udi.conf"])
def test_an_included_line(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/udi.conf").write_text(LINE)
    check(tmp_path, f"include {pattern.format(directory=tmp_path)}\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"# {LINE}",
        LINE.replace("required", "optional"),  # Slurm goes on without an optional plugin that it cannot load
        LINE.replace("udi.so", "udi.so.old"),
        "required",
        "include nothing/*",
        "include plugstack.conf",  # itself, and so on
    ],
)
def test_no_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(PluginMissing, match=r"tasks would run outside of their image: .* has no line 'required"):
        check(tmp_path, text)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PluginMissing, match=r"absent: no such file"):
        require_plugin(SlurmConfig(plugstack=str(tmp_path / "absent")))
