"""From layers to one tar stream: an index pass that builds the final tree, then a data pass that writes it.

There is no unpacked tree on disk, and no privileges are needed. Where a layer is not compressed, the index pass reads
its headers only, and the data pass seeks to each file; meanwhile its sha256 is checked against the configuration's
diff_id (`gateway.image.checking`). A compressed layer is expanded in memory (`gateway.image.kept`), and then read, and
checked, like one that is not compressed. What finds no room is read completely, and checked, by the index pass, and
decompressed again, in layer order, by the data pass.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.image import accounts, tar_writer, tree
from gateway.image.budgets import HeaderBudget
from gateway.image.checking import Checks
from gateway.image.kept import KeptLayers
from gateway.image.layer_index import LayerIndex
from gateway.image.layers import BlobStream, Budget, Digester, Layer, LayerStream, check_diff_id, chunks
from gateway.image.limits import Limits
from gateway.image.reached import Reached
from gateway.image.tar_writer import TarWriter
from gateway.image.tree import Tree
from udiroot.errors import ImageInvalid
from udiroot.rules import check_names

_NAMED_ON_NODES: tuple[tuple[bytes, ...], ...] = ((), (b"etc",), (b"var",), (b"opt",))
"""Directories whose entries a node mounts one by one, so that their names appear in its plans and tables."""

Progress = Callable[[int], None]


@dataclass
class Flattened:
    """The final tree, with the layers that have its data."""

    final: Tree
    layers: Sequence[Layer]
    limits: Limits
    checks: Checks | None = None
    contents: dict[int, bytes] = field(default_factory=dict)
    """What the data pass kept of the files that it was asked to keep."""
    watched: frozenset[int] = frozenset()
    """The inodes of those files."""
    reached: Reached = field(init=False)
    data_bytes: int = field(init=False)
    """Bytes of files that an image file gets."""

    def __post_init__(self) -> None:
        self.reached = Reached(self.final)
        self.data_bytes = sum(self.final.sizes[row] for row in self.reached.files())

    def write(self, descriptor: int, wrote: Progress) -> None:
        """The data pass: the tree as one tar stream. Raises ImageInvalid as soon as a layer is known to be wrong."""

        def written(count: int) -> None:
            if self.checks:
                self.checks.look()
            wrote(count)

        _DataPass(self, TarWriter(descriptor, written)).run()
        if self.checks:
            self.checks.packed()


def flatten(
    layers: Sequence[Layer],
    limits: Limits,
    progress: Progress,
    checks: Checks | None = None,
    kept: KeptLayers | None = None,
) -> Flattened:
    """The index pass over `layers`, the lowest first. `progress` gets the bytes as they are read.

    With `kept`, compressed layers are expanded by its threads, as far as it has room, while the headers of those below
    are read; then `progress` is called by them too, one at a time. With `checks`, which reads layers that are not
    compressed, or kept, at the same time, only their headers are read here.
    Raises ImageInvalid: a damaged layer, one that does not match its diff_id, more than the limits allow, names that a
    node would refuse.
    """
    headers = HeaderBudget(limits.max_header_bytes)
    final = Tree(limits.max_entries, headers)
    budget = kept.budget if kept else limits.budget()
    advance = _one_at_a_time(progress)
    if kept:
        kept.begin(layers, advance)
    to_read = []
    for layer in layers:
        found = kept.expanded(layer) if kept else layer
        if checks and found.is_plain():
            checks.add(found)
            if not found.is_expanded:
                budget.spend(found.blob.size)
                advance(found.blob.size)
            _index_headers(found, final, headers)
            checks.look()
        else:  # the bytes of an expanded layer were counted when it was expanded
            _index(found, final, headers, limits.budget() if found.is_expanded else budget, advance)
        to_read.append(found)
    _check_logical_size(final, limits)
    _check_names(final)
    account_files(final)
    return Flattened(final, to_read, limits, checks)


def verify(layers: Sequence[Layer], limits: Limits, progress: Progress, kept: KeptLayers) -> None:
    """Check every layer against its diff_id and nothing else."""
    advance = _one_at_a_time(progress)
    kept.begin(layers, advance)
    for layer in layers:
        found = kept.expanded(layer)
        budget = limits.budget() if found.is_expanded else kept.budget
        digester = Digester()
        for chunk in chunks(found, budget):
            digester.update(chunk)
            if not found.is_expanded:
                advance(len(chunk))
        check_diff_id(layer, digester.finish())


def _one_at_a_time(progress: Progress) -> Progress:
    lock = threading.Lock()

    def advance(count: int) -> None:
        with lock:
            progress(count)

    return advance


def _index_headers(layer: Layer, final: Tree, headers: HeaderBudget) -> None:
    LayerIndex(final, layer.number, layer.label, headers).read(BlobStream(layer.blob, layer.label))


def _index(layer: Layer, final: Tree, headers: HeaderBudget, budget: Budget, progress: Progress) -> None:
    digester = Digester()

    def watch(chunk: bytes) -> None:
        digester.update(chunk)
        progress(len(chunk))

    stream = LayerStream(chunks(layer, budget), layer.label, watch)
    try:
        LayerIndex(final, layer.number, layer.label, headers).read(stream)
        stream.drain()
    finally:
        found = digester.finish()
    check_diff_id(layer, found)


def _check_logical_size(final: Tree, limits: Limits) -> None:
    """Sparse files may be far larger than their layer."""
    if sum(final.sizes[row] for row in final.sparse) > limits.max_bytes:
        raise ImageInvalid(
            f"sparse files have more than {limits.max_bytes} bytes in total", "limit set by gateway.max_image_bytes"
        )


def _check_names(final: Tree) -> None:
    for parts in _NAMED_ON_NODES:
        row: int | None = tree.ROOT
        for part in parts:
            row = final.find(row, part) if row is not None else None
        children = final.children.get(row, {}) if row is not None else {}
        kept = [name for name, child in children.items() if final.kind(child) != tree.DEVICE]
        check_names([name.decode("utf-8", "surrogateescape") for name in kept], (b"/" + b"/".join(parts)).decode())


def account_files(final: Tree) -> dict[int, bytes]:
    """The inodes of the files that a node merges with the site's, with their names. Raises ImageInvalid."""
    etc, missing = final.resolve([b"etc"])
    found: dict[int, bytes] = {}
    for name in accounts.NUMBERS:
        row = None if missing else final.find(etc, name)
        if row is not None and final.kind(row) == tree.FILE:
            inode = final.inodes.get(row, row)
            accounts.check_size(name, final.sizes[inode])
            found[inode] = name
    return found


class _DataPass:
    """Directories and small things first, in the order of their paths; then files in the order of their data, so that
    each layer is read once from its start; then further names of hard links."""

    def __init__(self, flattened: Flattened, writer: TarWriter) -> None:
        self._final = flattened.final
        self._layers = {layer.number: layer for layer in flattened.layers}
        self._limits = flattened.limits
        self._writer = writer
        self._accounts = account_files(self._final)
        self._watched, self._contents_kept = flattened.watched, flattened.contents
        self._files = array("I")
        self._main_name: dict[int, int] = {}
        self._links: list[tuple[int, int]] = []
        self._directories: dict[int, bytes] = {}
        """Paths of the directories whose files come later, each with its slash."""

    def run(self) -> None:
        self._bound = set(self._final.inodes.values())
        for row, inside in self._final.walk():
            self._first(row, inside)
        self._write_files()
        for row, inode in self._links:
            self._writer.entry(self._path(row), tar_writer.LINK, linkname=self._path(self._main_name[inode]))
        self._writer.finish()

    def _path(self, row: int) -> bytes:
        """The path of a row that is not a directory."""
        return self._directories[self._final.parents[row]] + self._final.names[row]

    def _first(self, row: int, inside: bytes) -> None:
        final = self._final
        inode = final.inodes.get(row, row)
        kind = final.kinds[inode]
        if kind == tree.DEVICE:
            return
        path = inside + final.names[row]
        if kind != tree.DIRECTORY and (inode in self._bound or final.sizes[inode]):
            self._directories.setdefault(final.parents[row], inside)
        if inode in self._bound:
            if inode in self._main_name:
                self._links.append((row, inode))
                return
            self._main_name[inode] = row
        if kind == tree.DIRECTORY:
            self._entry(path + b"/" if row else b"./", inode, tar_writer.DIRECTORY)
        elif kind == tree.SYMLINK:
            self._entry(path, inode, tar_writer.SYMLINK, linkname=final.targets[inode])
        elif kind == tree.FIFO:
            self._entry(path, inode, tar_writer.FIFO)
        elif not final.sizes[inode]:
            self._entry(path, inode, tar_writer.REGULAR)
        else:
            self._files.append(inode)

    def _entry(self, path: bytes, inode: int, kind: bytes, *, linkname: bytes = b"") -> None:
        final = self._final
        self._writer.entry(
            path,
            kind,
            mode=final.modes[inode],
            owner=final.owner_pairs[final.owners[inode]],
            mtime=final.mtimes[inode],
            size=final.sizes[inode] if kind == tar_writer.REGULAR else 0,
            linkname=linkname,
            xattrs=final.xattrs.get(inode, ()),
        )

    def _write_files(self) -> None:
        """Rows were made in the order of the layers and of the members in them, so their numbers give the order."""
        final = self._final
        number, copy = 0, None
        for inode in sorted(self._files):
            if final.layers[inode] != number or copy is None:
                number = final.layers[inode]
                copy = self._copier(self._layers[number])
            self._entry(self._path(self._main_name.get(inode, inode)), inode, tar_writer.REGULAR)
            judged, wanted = inode in self._accounts, inode in self._watched
            self._writer.kept = kept = bytearray() if judged or wanted else None
            self._contents(inode, copy)
            if kept is not None and judged:
                accounts.check_accounts(self._accounts[inode], bytes(kept))
            if kept is not None and wanted:
                self._contents_kept[inode] = bytes(kept)
            self._writer.pad(final.sizes[inode])

    def _contents(self, inode: int, copy: Callable[[int, int], None]) -> None:
        data, size = self._final.data[inode], self._final.sizes[inode]
        sparse = self._final.sparse.get(inode)
        if sparse is None:
            copy(data, size)
            return
        at = 0
        for start, length in sparse:
            self._writer.write_zeros(start - at)
            copy(data, length)
            data, at = data + length, start + length
        self._writer.write_zeros(size - at)

    def _copier(self, layer: Layer) -> Callable[[int, int], None]:
        """A function that copies data of a layer to the writer, by its position in the uncompressed stream."""
        if layer.is_plain():
            return lambda position, count: self._writer.copy(layer.blob, position, count)
        budget = self._limits.budget()
        stream = LayerStream(chunks(layer, budget), layer.label)

        def copy(position: int, count: int) -> None:
            stream.skip(position - stream.position)
            for piece in stream.pieces(count):
                self._writer.write(piece)

        return copy
