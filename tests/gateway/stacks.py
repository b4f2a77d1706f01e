"""Stacks of layers that oracles are asked about: hand-made ones for the bugs that other tools had, and any others."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence

from hypothesis import strategies as st

from tests.gateway.archives import (
    BASE,
    Entry,
    another_name,
    directory,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)

Stack = Sequence[Sequence[Entry]]

ODD_NAMES = (
    "new\nline",
    " blank ",
    "back\\slash",
    "...",
    "a.wh.b",
    "tab\t",
    "*",
    "'\"$(x)",
    "-n",
    "%41",
    "c:d",
    "n" * 255,
)
_ONE = file("d/one", b"1" * 5000, uid=1000, gid=100)
_THREE = another_name("d/three", _ONE)
_LINK = symlink("usr/l", "../../../etc/passwd")
RICH: Stack = (
    [
        *BASE,
        directory("etc", 0o755),
        file("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
        directory("dark", 0o000),
        file("dark/inside", b"unreadable", mode=0o000),
        _ONE,
        another_name("d/two", _ONE),
        another_name("d/three", file("/d/one", uid=1000, gid=100)),
        _LINK,
        another_name("usr/l2", _LINK),
        Entry(b"d/fifo", tarfile.FIFOTYPE, mode=0o622),
        file(b"d/\xff\xfe caf\xe9", b"bytes"),
        file("/".join(["deep" * 20] * 12), b"long"),
        file("big", os.urandom(1 << 20) + bytes(1 << 20)),
        *(file(f"d/{name}", b"odd") for name in ODD_NAMES),
        file("setuid", b"s", mode=0o4755, uid=12345, gid=54321),
        directory("sticky", 0o1777),
        file("x", b"x", xattrs={"user.one": b"1", "user.two": b"\x00\xff=\n"}),
        file("many/owners", b"", uid=4_000_000_000, gid=3_000_000),
    ],
    [whiteout("d/one"), file("etc/passwd", b"new"), directory("etc", 0o700), another_name("d/four", _THREE)],
    [directory("dark", 0o100), file("d/two", b"replaced"), opaque("many"), file("many/fresh", b"f")],
)
"""One image with something of everything."""

_OLD = {
    "file": [file("x", b"old")],
    "directory": [directory("x"), file("x/old/deep")],
    "symlink": [symlink("x", "bin")],
}
_NEW = {
    "file": [file("x", b"new")],
    "directory": [directory("x", 0o700), file("x/new")],
    "symlink": [symlink("x", "new")],
}
_A = file("a", b"1", mode=0o640, uid=3)

HAND_MADE: dict[str, Stack] = {
    "rich": RICH,
    **{f"{old} to {new}": [BASE, _OLD[old], _NEW[new]] for old in _OLD for new in _NEW},
    "whiteouts": [BASE, [file("a"), file("d/x/y")], [whiteout("a"), whiteout("d/x")]],
    "whiteout before what is made anew": [
        BASE,
        [directory("a", 0o700), file("a/old")],
        [whiteout("a"), directory("a", 0o711), file("a/new")],
    ],
    "whiteout of nothing": [BASE, [directory("d"), file("d/a")], [directory("d"), whiteout("d/b"), file("d/new")]],
    "opaque first": [
        BASE,
        [directory("d"), file("d/old"), directory("d/sub"), file("d/sub/old")],
        [directory("d", 0o711), opaque("d"), file("d/new"), directory("d/sub"), file("d/sub/new")],
    ],
    "opaque last": [
        BASE,
        [directory("d"), file("d/old")],
        [directory("d", 0o711), file("d/new"), directory("d/sub"), file("d/sub/new"), opaque("d")],
    ],
    "a directory gone and back": [
        BASE,
        [directory("d"), file("d/one")],
        [whiteout("d")],
        [directory("d"), file("d/two")],
    ],
    "links across layers": [BASE, [_A, another_name("b", _A)], [another_name("c", _A)]],
    "a link whose first name is replaced": [
        BASE,
        [_A, another_name("b", _A), another_name("c", _A)],
        [file("a", b"new")],
    ],
    "a link whose first name is removed": [BASE, [_A, another_name("b", _A)], [whiteout("a")]],
    "a link with an absolute target": [BASE, [_A, hardlink("b", "/a", mode=0o640, uid=3)]],
    "implicit parents": [BASE, [file("p/q/r", mode=0o600), hardlink("x/y/z", "p/q/r", mode=0o600)]],
    "an entry twice": [BASE, [file("a", b"1"), file("a", b"2", mode=0o600)]],
    "a layer twice": [BASE, [_A, another_name("b", _A)], [_A, another_name("b", _A)]],
    "a directory described again": [BASE, [directory("d", 0o700), file("d/x")], [directory("d", 0o511, uid=7, gid=8)]],
    "through a symlink": [BASE, [directory("real"), symlink("link", "/real")], [file("link/x", b"1")]],
    "leading slashes": [BASE, [directory("/d"), file("/d/a"), symlink("/d/l", "/d/a")]],
    "odd directories": [
        BASE,
        [directory("s", 0o2775, gid=9), directory("s/d"), directory("s/d/ ", 0o700), file("s/d/ /x", mode=0o6711)],
    ],
}

_NAMES = ("a", "b", "c")
_PATHS = st.lists(st.sampled_from(_NAMES), min_size=1, max_size=3).map("/".join)
_MODES = st.sampled_from([0o700, 0o755, 0o1777, 0o511])


def _entries(path: str) -> st.SearchStrategy[Entry]:
    return st.one_of(
        st.builds(lambda data, mode: file(path, data, mode=mode), st.binary(max_size=3), _MODES),
        st.builds(lambda mode, uid: directory(path, mode, uid=uid), _MODES, st.integers(0, 70_000)),
        st.builds(lambda target: symlink(path, target), st.sampled_from(["a", "/b", "../c", "nowhere", "../../a/b"])),
    )


def _is_within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def _overlap(one: str, other: str) -> bool:
    return _is_within(one, other) or _is_within(other, one)


@st.composite
def stacks(draw: st.DrawFn) -> list[list[Entry]]:
    """Layers as a container engine would write them: a name once, parents first, and they are directories.

    So much umoci, Docker and the specification agree on; what else archives do has its named tests.
    """
    layers: list[list[Entry]] = [[*BASE]]
    for _ in range(draw(st.integers(1, 4))):
        hidden: list[str] = []
        made: dict[str, Entry] = {}
        for path in draw(st.lists(_PATHS, max_size=6, unique=True)):
            parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
            if any(parent in made and made[parent].kind != tarfile.DIRTYPE for parent in parents):
                continue
            for parent in parents:
                made.setdefault(parent, directory(parent))
            if path not in made:
                made[path] = draw(_entries(path))
        for path in draw(st.lists(_PATHS, max_size=2, unique=True)):
            if not any(_overlap(path, gone) for gone in hidden) and not any(_is_within(other, path) for other in made):
                parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
                if all(parent not in made or made[parent].kind == tarfile.DIRTYPE for parent in parents):
                    hidden.append(path)
                    for parent in parents:
                        made.setdefault(parent, directory(parent))
        directories = sorted(path for path, entry in made.items() if entry.kind == tarfile.DIRTYPE)
        markers = [opaque(path) for path in directories if draw(st.integers(0, 3)) == 0]
        files = sorted(path for path, entry in made.items() if entry.kind == tarfile.REGTYPE)
        links = [another_name(f"link{len(layers)}{number}", made[path]) for number, path in enumerate(files[:2])]
        ordered = [made[path] for path in sorted(made)]
        layers.append([*ordered, *(whiteout(path) for path in hidden), *markers, *links])
    return layers
