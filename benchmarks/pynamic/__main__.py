"""The command: makes the program, the images and the stores, measures, and writes what came out."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console

from benchmarks.pynamic import peers, picture, report, rounds, scaling
from benchmarks.pynamic.generate import SIZES, generate, of_pynamic
from benchmarks.pynamic.image import DEFAULT, EXT4, OURS, TREE, VARIANTS, Packing, make_tree, squashfs
from benchmarks.pynamic.loops import READINGS
from benchmarks.pynamic.nodes import Node
from benchmarks.pynamic.sites import named, site_store, words
from benchmarks.pynamic.stores import Direct, Slow, Sshfs, Store, memory
from benchmarks.slowfs import Service
from udi.commandline import run
from udiroot.errors import UsageError

_WIDTH = 150
_FORECAST = (1, 4, 16, 64, 256, 1000, 4000, 10000)
_SMALL = (TREE, OURS, EXT4)
"""On every store."""
_USUAL = (TREE, OURS, DEFAULT, squashfs("zstd:3", 128), EXT4)
"""On the network-like one, and on a site's."""
_OWN_NAMES = ("local disk", "tmpfs", "network-like store", "sshfs")


@click.command()
@click.option(
    "--size", type=click.Choice(list(SIZES)), default="default", show_default=True, help="Size of the program."
)
@click.option(
    "--pynamic", type=click.Path(exists=True, path_type=Path), help="Directory that LLNL's Pynamic has filled."
)
@click.option("--rounds", "count", default=3, show_default=True, help="Number of rounds.")
@click.option("--latency", default=0.0005, show_default=True, help="Seconds of an operation of the network-like store.")
@click.option("--read-ahead", default=1024, show_default=True, help="Its client's read-ahead, in KiB.")
@click.option("--operations", "bound", default=2000.0, show_default=True, help="Its operations/s for several nodes.")
@click.option("--nodes", default="1,4,16", show_default=True, help="Numbers of nodes that start together; empty: none.")
@click.option(
    "--store",
    "given",
    metavar="NAME=DIRECTORY",
    callback=named,
    multiple=True,
    help="Measure a directory of any mounted file system too, as `lustre=/lus/scratch`; repeatable.",
)
@click.option(
    "--drop",
    default="",
    metavar="COMMAND",
    callback=words,
    help="Drops more of the caches of each --store than the kernel does; run before each first start.",
)
@click.option("--variants", is_flag=True, help="Every compression and block size on every store.")
@click.option("--loops", is_flag=True, help="Other ways for a loop device to read the image on the network-like store.")
@click.option(
    "--peers/--no-peers", "others", default=True, show_default=True, help="Measure docker, ch-run and sshfs too."
)
@click.option("--output", type=click.Path(path_type=Path), help="Directory for JSON, tables and pictures.")
@click.option("--directory", help="Working directory, on a local disk, to which all is compared.")
@click.option(
    "--cache", type=click.Path(path_type=Path), default=Path(".cache"), show_default=True, help="For programs."
)
def main(
    size: str, pynamic: Path | None, count: int, latency: float, read_ahead: int, bound: float, nodes: str,
    given: Sequence[tuple[str, Path]], drop: Sequence[str], variants: bool, loops: bool, others: bool,
    output: Path | None, directory: str | None, cache: Path,
) -> None:  # fmt: skip
    """Measure how fast a program of very many shared libraries starts, by where it is kept, and print tables."""
    numbers = sorted(int(number) for number in nodes.split(",") if number)
    service = Service(latency, read_ahead=read_ahead)
    taken_names = [*_OWN_NAMES, *(name for name, _ in given)]
    if len(set(taken_names)) < len(taken_names):
        raise UsageError("each --store needs a name of its own", f"taken are {', '.join(_OWN_NAMES)}")
    if drop and not given:
        raise UsageError("--drop is for the caches of a --store, and there is none")
    with ExitStack() as opened:
        work = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="udi-pynamic-", dir=directory)))
        work.chmod(0o755)
        program = of_pynamic(pynamic, work / "pynamic") if pynamic else generate(SIZES[size], cache.absolute())
        bench = _Bench(opened, work, make_tree(program, work / "tree"), max(numbers, default=1), service)
        left_out: list[str] = []
        sites = [opened.enter_context(site_store(name, where, drop)) for name, where in given]
        ways = bench.ways(sites, variants, others, left_out)
        ways += bench.other_readings(left_out) if loops else []
        taken = rounds.measure(ways, count, _told)
        bounded = Slow(bench.slow.files, work / "bounded", Service(latency, bound, read_ahead=read_ahead))
        images = [(packing, bench.image(bench.slow, packing)) for packing in (TREE, OURS)] if numbers else []
        together, programs = scaling.measure(bench.nodes, bounded, bound, images, numbers, min(count, 3), _told)
        done = report.Report(
            program=f"LLNL's Pynamic in {pynamic}" if pynamic else str(SIZES[size]),
            service=service,
            bound=bound,
            tree=f"{bench.slow.name}, {TREE.name}",
            image=f"{bench.slow.name}, {OURS.name}",
            figures=rounds.figures(taken, report.REFERENCE),
            together=together,
            forecast=scaling.forecast(programs, (bound, 25 * bound), _FORECAST),
            left_out=left_out,
            rounds=count,
        )
    report.show(done, Console(width=_WIDTH))
    if output:
        output.mkdir(parents=True, exist_ok=True)
        done.write(output / "pynamic.json")
        (output / "pynamic.md").write_text(report.markdown(done))
        for path in picture.draw(done, output):
            _told(f"wrote {path}")


class _Bench:
    """The stores and nodes of one run, with the images that were put into the stores."""

    def __init__(self, opened: ExitStack, work: Path, tree: Path, nodes: int, service: Service) -> None:
        self._opened, self._work, self._tree = opened, work, tree
        (work / "disk").mkdir()
        in_memory = opened.enter_context(memory(work / "memory"))
        self.disk = Direct("local disk", work / "disk")
        self.memory = Direct("tmpfs", in_memory)
        self.slow = Slow(in_memory, work / "slow", service)
        self._packed: dict[str, Path] = {}
        self.nodes = []
        for number in range(nodes):
            node = Node(work / f"node{number}", number)
            opened.callback(node.close)
            self.nodes.append(node)

    def image(self, store: Store, packing: Packing) -> str:
        """The name, in a store, of the tree packed so; packed at its first use."""
        return packing.made(self._tree, store.files, self._packed.setdefault(packing.name, store.files)).name

    def ways(self, sites: Sequence[Store], variants: bool, others: bool, left_out: list[str]) -> list[rounds.Way]:
        """Everything to measure. What cannot be is left out, with a line that says why."""
        stores: list[tuple[Store, tuple[Packing, ...]]] = [(self.disk, _SMALL), (self.memory, _SMALL)]
        stores.append((self.slow, _USUAL))
        if others and shutil.which("sshfs"):
            stores.append((self._opened.enter_context(Sshfs(self.slow.files, self._work / "ssh")), _SMALL))
        elif others:
            left_out.append("left out: sshfs is not installed (Debian's sshfs)")
        stores += [(site, _USUAL) for site in sites]
        ways: list[rounds.Way] = []
        for store, usual in stores:
            for packing in (*usual, *(_more(usual) if variants else ())):
                ways.append(rounds.OnNode(self.nodes[0], store, packing, self.image(store, packing)))
                _told(f"packed for {ways[-1].name}")
        if others:
            ways += self._opened.enter_context(peers.docker(self._tree, self._work / "docker", left_out.append))
            images = [(self.slow, packing, self.image(self.slow, packing)) for packing in (TREE, DEFAULT)]
            ways += peers.charliecloud(images, self._work / "charliecloud", left_out.append)
        return ways

    def other_readings(self, left_out: list[str]) -> list[rounds.Way]:
        """The image on the network-like store, read otherwise than setupRoot has it."""
        image = self.image(self.slow, OURS)
        ways = (rounds.OnNode(self.nodes[0], self.slow, OURS, image, reading) for reading in READINGS)
        return rounds.working(ways, left_out.append)


def _more(usual: Sequence[Packing]) -> Iterator[Packing]:
    """The variants that are not measured anyway."""
    names = {packing.name for packing in usual}
    return (packing for packing in VARIANTS if packing.name not in names)


def _told(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(main, "benchmarks.pynamic")
