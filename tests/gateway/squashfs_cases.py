"""Layers at the edges of what squashfs has room for, for tests of its writer: made by hand, and any others."""

from __future__ import annotations

import random
import tarfile

from hypothesis import strategies as st

from tests.gateway.archives import BASE, Entry, another_name, directory, file, symlink

RANDOM = random.Random(1)
NOISE = RANDOM.randbytes(3 << 20)


def of_sizes(block: int) -> list[Entry]:
    """Files around the sizes of blocks, of noise, of text and of zeros; with zeros before, within and behind; twice."""
    sizes = {0, 1, 511, 512, 513, block - 1, block, block + 1, 2 * block, 2 * block + 1}
    made: list[Entry] = [directory("sizes")]
    for size in sorted(sizes):
        for kind, data in (("noise", NOISE), ("text", b"words of a text " * (size // 16 + 1)), ("zeros", bytes(size))):
            made.append(file(f"sizes/{size}-{kind}", data[:size], mode=0o640))
            made.append(file(f"sizes/{size}-{kind}-again", data[:size], uid=7))
    for name, parts in (("before", (0, 1)), ("within", (1, 0, 1)), ("behind", (1, 0)), ("around", (0, 0, 1, 0))):
        for more in (b"", b"x", bytes(1), bytes(513), bytes(600) + b"x"):
            data = b"".join(NOISE[:block] if part else bytes(block) for part in parts) + more
            made.append(file(f"sizes/{name}-{len(more)}-{more[-1:].hex()}", data))
    return made


def of_kinds(depth: int = 600) -> list[Entry]:
    """All kinds of inodes, short and extended, with all that they may have."""
    one, link, pipe = file("kinds/one", b"1" * 5000, uid=5), symlink("kinds/link", "one"), _fifo("kinds/fifo")
    attributed = {"user.a": b"1"}
    return [
        directory("kinds", 0o1777, gid=9),
        one,
        *(another_name(f"kinds/one-{number}", one) for number in range(70)),
        link,
        another_name("kinds/link-2", link),
        pipe,
        another_name("kinds/fifo-2", pipe),
        directory("kinds/attributed", 0o2711, xattrs=attributed),
        file("kinds/attributed/small", b"small", xattrs=attributed),
        file("kinds/attributed/large", NOISE[: 300 << 10], xattrs={**attributed, "trusted.b": b"\0\xff"}),
        file("kinds/attributed/empty", b"", xattrs=attributed),
        symlink("kinds/attributed/link", "small", xattrs={"trusted.of-a-link": b""}),
        _fifo("kinds/attributed/fifo", xattrs={"trusted.of-a-fifo": b"x"}),
        symlink("kinds/far", "x" * 4095),
        directory("kinds/empty", 0o000),
        file("kinds/setuid", b"s", mode=0o6755),
        *(file(f"kinds/time-{time}", b"", mtime=time) for time in (0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)),
        directory("kinds/" + "d" * 255),
        file("kinds/" + "d" * 255 + "/" + "f" * 255, b"long"),
        *(directory("deep" + "/d" * above) for above in range(depth)),
        file("deep" + "/d" * (depth - 1) + "/f", b"deep"),
    ]


def _fifo(name: str, **more: dict[str, bytes]) -> Entry:
    return Entry(name.encode(), tarfile.FIFOTYPE, mode=0o622, **more)  # type: ignore[arg-type]


def of_very_many_names(files: int) -> list[Entry]:
    """One directory of more subdirectories than 16 bits count, each of which is a link to it, in any order. Between
    them are files, with names so long that the index is large as well."""
    made = [directory(f"d/{number:05}", 0o700 | number % 64, uid=number % 50_000) for number in range(65_537)]
    for number in range(0, 65_536, 65_536 // files):
        name, text = f"d/{number:05}-{'n' * 249}", NOISE[number : number + number % 99]
        mode, gid = 0o600 | number % 64, number % 50_000
        made.append(file(name, text, mode=mode, gid=gid, mtime=number * 60_000))
    made.append(symlink("d/link", "00000"))
    return [*BASE, directory("d"), *RANDOM.sample(made, len(made))]


def of_many_attributes(kind: str) -> list[Entry]:
    """Many of one file, large ones, and many sets of them; `kind` is what their names begin with."""
    many = {f"{kind}.{number:03}{'n' * (number % 200)}": b"%d" % number * (number % 50) for number in range(500)}
    large = {f"{kind}.large": NOISE[:65_535], f"{kind}." + "n" * (254 - len(kind)): b"1", "trusted.x": b""}
    return [
        *BASE,
        file("many", b"", xattrs=many),
        file("again", b"", xattrs=many),
        file("large", b"", xattrs=large),
        directory("sets"),
        *(file(f"sets/{number}", b"", xattrs={f"{kind}.set": b"%d" % (number // 2)}) for number in range(3000)),
    ]


def of_many_owners() -> list[Entry]:
    """More than one block of metadata has, which has 2048 numbers."""
    owners = [(number * 65_537, (number * 3) ^ 0xFFFF_0000) for number in range(3000)]
    files = (file(f"d/{number}", b"", uid=uid, gid=gid) for number, (uid, gid) in enumerate(owners))
    return [*BASE, directory("d", uid=(1 << 32) - 2, gid=(1 << 32) - 2), *files]


_NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: not {0, 47} & set(name) and not _is_special(name))
_BYTES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda start, zeros, length: NOISE[start : start + length] + bytes(zeros) + NOISE[start : start + length % 999],
        st.integers(0, 9000),
        st.integers(0, 9000),
        st.integers(0, 13_000),
    ),
    st.builds(lambda blocks, more: bytes(4096 * blocks + more), st.integers(0, 3), st.integers(0, 2)),
)
_XATTRS = st.dictionaries(
    st.sampled_from(["user.a", "user.b", "trusted.c", "user." + "n" * 250]), st.binary(max_size=90), max_size=3
)
_OWNER, _MODE, _TIME = st.integers(0, (1 << 32) - 2), st.integers(0, 0o7777), st.integers(0, (1 << 32) - 1)


def _is_special(name: bytes) -> bool:
    """Whether it means something to layers, or to a node."""
    return name in (b".", b"..") or name.startswith(b".wh.")


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    """One layer, with parents first."""
    made = [*BASE, directory("top")]
    paths = {entry.name for entry in made}
    directories = [b"top"]
    for name in draw(st.lists(_NAMES, max_size=25)):
        path = draw(st.sampled_from(directories)) + b"/" + name
        if path in paths or len(path) > 3000:
            continue
        paths.add(path)
        made.append(draw(_entry(path, [entry for entry in made if entry.kind == tarfile.REGTYPE])))
        if made[-1].kind == tarfile.DIRTYPE:
            directories.append(path)
    return made


def _entry(path: bytes, files: list[Entry]) -> st.SearchStrategy[Entry]:
    common = {"mode": _MODE, "uid": _OWNER, "gid": _OWNER, "mtime": _TIME}
    targets = st.binary(min_size=1, max_size=300).filter(lambda target: 0 not in target)
    return st.one_of(
        st.builds(file, st.just(path), _BYTES, xattrs=_XATTRS, **common),
        st.builds(directory, st.just(path), xattrs=_XATTRS, **common),
        st.builds(symlink, st.just(path), targets, uid=_OWNER, gid=_OWNER, mtime=_TIME),
        st.builds(Entry, st.just(path), st.just(tarfile.FIFOTYPE), **common),
        st.builds(another_name, st.just(path), st.sampled_from(files)),
    )
