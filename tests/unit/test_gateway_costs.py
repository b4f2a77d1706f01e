"""What a stranger's archive may cost: work and memory are linear in its bytes, and bounded, whatever its headers claim.

Work is counted where it can be: bytes that are read, blocks of headers, rows and steps of the interpreter. Where a
single call of the interpreter could be quadratic, the processor's time has a bound that is far from what is right.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tracemalloc
from collections.abc import Callable

import pytest

from gateway.image.manifest import MAX_LAYERS, ImageConfig
from gateway.image.tar_writer import TarWriter
from tests.gateway.archives import BASE, Entry, Layer, directory, file, hardlink, opaque, symlink, whiteout
from tests.unit.flattened import LIMITS, Result
from tests.unit.headers import (
    reason,
    steps,
)
from udiroot.errors import ImageInvalid

# Trees


def flattening(*layers: Layer, **limits: int) -> int:
    return steps(lambda: Result([BASE, *layers], limits=dataclasses.replace(LIMITS, **limits)))


DEEP = "/".join("d" * 400)
TREES: dict[str, Callable[[int], list[list[Entry]]]] = {
    "one name again and again": lambda n: [[file("d/a", b"")] * n],
    "a directory and a file by turns": lambda n: [[e for _ in range(n // 2) for e in (file("d/a/b/c"), file("d"))]],
    "an opaque marker for each directory": lambda n: [
        [file(f"d/{number}/f") for number in range(n // 2)],
        [opaque(f"d/{number}") for number in range(n // 2)],
    ],
    "one opaque marker again and again": lambda n: [
        [file(f"d/{number}/f") for number in range(n // 2)],
        [opaque("d"), opaque("")] * (n // 4),
    ],
    "opaque markers between entries": lambda n: [
        [file(f"d/{number}/f") for number in range(n // 2)],
        [e for number in range(n // 6) for e in (file(f"d/{number}/g"), opaque("d"), opaque(""))],
    ],
    "whiteouts between entries": lambda n: [
        [file(f"d/{number}/f") for number in range(n // 2)],
        [e for number in range(n // 6) for e in (file(f"d/{number}/g"), whiteout("d"), whiteout(f"d/{number}"))],
    ],
    "whiteouts of what is not there": lambda n: [[whiteout(f"d/{number}") for number in range(n)]],
    "many names of one file": lambda n: [[file("d/a"), *(hardlink(f"d/{number}", "d/a") for number in range(n))]],
    "chains of hard links": lambda n: [
        [file("0"), *(hardlink(f"{number + 1}", f"{number}") for number in range(n))],
    ],
    "one directory": lambda n: [[file(f"d/{number}") for number in range(n)]],
    "names that begin alike": lambda n: [[file("d/" + "p" * (number % 200) + str(number)) for number in range(n)]],
    "layers": lambda n: [[file(f"d/{number}")] for number in range(n // 10)],
}  # fmt: skip


@pytest.mark.parametrize("shape", TREES)
def test_twice_the_entries_are_twice_the_work(shape: str) -> None:
    small, large = (flattening(*TREES[shape](count)) for count in (300, 1200))
    assert large < 4.6 * small, "four times the entries"


def test_paths_have_the_kernel_s_own_limit_also_when_links_make_them_longer() -> None:
    deep = "/".join("d" * 2000)
    layer = [directory(deep), symlink("link", deep), file(f"link/{'/'.join('e' * 100)}")]
    assert "a path is longer than 4095 bytes" in reason(lambda: Result([BASE, layer])).message


def test_what_a_short_name_makes_the_packer_read_is_charged() -> None:
    """A name of 4 KB makes 2000 directories, whose names the packer gets in full."""
    layer = [file(f"{number}/{'/'.join('d' * 1900)}") for number in range(10)]
    limits = dataclasses.replace(LIMITS, max_header_bytes=10 << 20)
    assert "paths" in reason(lambda: Result([BASE, layer], limits=limits)).message
    links = [file(f"{DEEP}/f"), symlink("l", DEEP), *(hardlink(f"h{number}", "l/f") for number in range(2000))]
    limits = dataclasses.replace(LIMITS, max_header_bytes=1 << 20)
    assert "paths" in reason(lambda: Result([BASE, links], limits=limits)).message


def test_links_that_a_name_leads_through_are_charged() -> None:
    """38 links a name, each with 1600 components, within the kernel's limit of 40."""
    around = "/".join(["e/.."] * 800)
    chain = [
        directory("e"),
        *(symlink(f"l{number}", f"{around}/l{number + 1}") for number in range(38)),
        directory("l38"),
    ]
    names = [entry for number in range(500) for entry in (file(f"l0/{number}"), file(f"other/{number}"))]
    found: list[ImageInvalid] = []
    used = steps(lambda: found.append(reason(lambda: Result([BASE, [*chain, *names]]))))
    assert found[0].hint == "limit set by gateway.max_entries" and "symbolic links" in found[0].message
    assert used < 5 * 32 * LIMITS.max_entries, "some steps for each byte that may be followed"
    assert "real/0" in Result([BASE, [directory("real"), symlink("l", "real"), *(file(f"l/{n}") for n in range(2000))]])


# Bombs and honest files of zeros


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_large_file_of_zeros_is_honest(how: str) -> None:
    """A lastlog: gzip makes it 1030 times smaller, zstd 30,000 times."""
    image = Result([BASE, [file("var/log/lastlog", bytes(100 << 20))]], how)
    assert image["var/log/lastlog"].size == 100 << 20


def test_the_ratio_counts_above_a_size_alone() -> None:
    zeros = [BASE, [file("a", bytes(3 << 20))]]
    limits = dataclasses.replace(LIMITS, max_ratio=100)
    assert Result(zeros, "gzip", limits=dataclasses.replace(limits, ratio_from=4 << 20))
    error = reason(lambda: Result(zeros, "gzip", limits=dataclasses.replace(limits, ratio_from=2 << 20)))
    assert "times its size" in error.message and "gateway.max_ratio" in error.hint


def test_layers_have_a_bound_wherever_they_come_from() -> None:
    text = json.dumps({"rootfs": {"diff_ids": [f"sha256:{0:064}"] * (MAX_LAYERS + 1)}}).encode()
    assert "has 1001 layers, the limit is 1000" in reason(lambda: ImageConfig.parse(text)).message


# What is written for the packer


def test_entries_without_data_do_not_collect_in_memory() -> None:
    with open(os.devnull, "wb") as sink:
        writer = TarWriter(sink.fileno(), lambda count: None)
        tracemalloc.start()
        for number in range(10_000):
            writer.entry(b"%d" % number, b"0")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 2 << 20
