"""The packages that xcsim installs on its machine are those of the project's metadata, which lists them once."""

from __future__ import annotations

from pathlib import Path

from xcsim.site import packages_of

ROOT = Path(__file__).parents[2]


def test_setup_cfg_lists_them(tmp_path: Path) -> None:
    (tmp_path / "setup.cfg").write_text("[options]\npackages =\n    udi\n    gateway\n    gateway.wire\n    xcsim\n")
    assert packages_of(tmp_path) == ["gateway", "udi"]


def test_each_is_a_directory_of_the_checkout() -> None:
    packages = packages_of(ROOT)
    assert {"udiroot", "udi", "gateway", "admin"} <= set(packages)
    assert all((ROOT / name).is_dir() for name in packages)


def test_an_installation_without_setup_cfg_knows_them_too(tmp_path: Path) -> None:
    assert {"udiroot", "udi", "gateway", "nodehealth"} <= set(packages_of(tmp_path))
