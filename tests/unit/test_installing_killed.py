"""A killed `udi-admin install`: the next one ends its work, and neither that nor uninstalling leaves a file of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.cray_standins import StandIns
from tests.unit.test_admin_commands import admin
from tests.unit.test_uninstall import Tree, cray, tree

__all__ = ["cray", "tree"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")

_KILLED = 9
_RENAMES = [0, 2, 3, 8, 30]
"""The record is the first file that gets its name. Of the node software it is the second one, the first is built in a
temporary directory; the third is its link. The site's files are staged together."""


def _killed(cray: StandIns, tree: Tree, after: int, word: str = "install") -> None:
    """The command, in a process that ends as if killed when that many files have got their names."""
    left = after
    rename = os.rename

    def counted(source: str, target: str) -> None:
        nonlocal left
        if not left:
            os._exit(_KILLED)
        left -= 1
        rename(source, target)

    child = os.fork()
    if not child:
        try:
            os.rename = counted  # type: ignore[assignment]
            admin(cray, word, "--root", str(tree.root))
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == _KILLED


def _unfinished(tree: Tree) -> list[Path]:
    return list(tree.root.rglob(".new-*"))


def _files(tree: Tree) -> list[Path]:
    return [path for path in tree.root.rglob("*") if not path.is_dir()]


@pytest.mark.parametrize("after", _RENAMES)
def test_uninstalling_leaves_no_file(cray: StandIns, tree: Tree, after: int) -> None:
    _killed(cray, tree, after)
    assert _unfinished(tree)
    theirs = tree.put("/etc/profile.d/.new-theirs", "theirs\n")
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    assert _files(tree) == [theirs]


@pytest.mark.parametrize("after", _RENAMES)
def test_installing_again_is_as_if_nothing_had_been(cray: StandIns, tree: Tree, after: int) -> None:
    """What may be another installation's of now stays; an hour later, it is nobody's."""
    _killed(cray, tree, after)
    left = _unfinished(tree)
    assert left and admin(cray, "install", "--root", str(tree.root)) == 0
    assert set(left) == set(_unfinished(tree))
    for path in left:
        os.utime(path, (0, 0), follow_symlinks=False)
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    assert not _unfinished(tree)
    picture = tree.picture()
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    assert {path for path in picture if not path.endswith("installed.json")} == {
        path for path in tree.picture() if not path.endswith("installed.json")
    }


def test_a_shared_file_behind_a_link(cray: StandIns, tree: Tree) -> None:
    """It is written where the link leads, and so is what is left of it."""
    roots = tree.put("/site/roots.conf", "DSL=/dsl\n")
    link = tree.root / "etc/opt/cray/cnrte/roots.conf"
    link.parent.mkdir(parents=True)
    link.symlink_to(roots)
    _killed(cray, tree, 30)
    assert [path for path in _unfinished(tree) if path.parent == roots.parent]
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    assert not _unfinished(tree) and roots.read_text() == "DSL=/dsl\n"


def test_uninstalling_is_killed(cray: StandIns, tree: Tree) -> None:
    """In the middle of taking our line out of a file of the site's."""
    roots = tree.put("/etc/opt/cray/cnrte/roots.conf", "DSL=/dsl\n")
    assert admin(cray, "install", "--root", str(tree.root)) == 0
    _killed(cray, tree, 0, "uninstall")
    assert [path.parent for path in _unfinished(tree)] == [roots.parent]
    assert admin(cray, "uninstall", "--root", str(tree.root)) == 0
    assert _files(tree) == [roots] and roots.read_text() == "DSL=/dsl\n"
