"""From the final tree to an image file: contents of files and, meanwhile, their inodes; then directories and tables."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.image.flatten import Flattened
from gateway.image.squashfs import superblock
from gateway.image.squashfs.compressors import NUMBERS, Compress, Compression, compressor
from gateway.image.squashfs.contents import Contents
from gateway.image.squashfs.data import DataPass
from gateway.image.squashfs.files import FileInodes
from gateway.image.squashfs.metadata import MetadataWriter
from gateway.image.squashfs.names import TreePass
from gateway.image.squashfs.output import Output
from gateway.image.squashfs.packers import packers_for
from gateway.image.squashfs.pipeline import Pipeline, largest_piece
from gateway.image.squashfs.places import InodeTable
from gateway.image.squashfs.superblock import IdTable, Superblock
from gateway.image.squashfs.xattrs import XattrTable


def write_squashfs(
    flattened: Flattened,
    path: str,
    compression: Compression,
    block_size: int,
    advance: Callable[[int], None],
) -> None:
    """Write the tree to `path`, which must not exist.

    Raises ImageInvalid, UpstreamFailed, MemoryError, and OSError where the file cannot be written.
    """

    def new() -> Compress:
        return compressor(compression, block_size)

    final = flattened.final
    contents = Contents(len(final))
    ids, xattrs = IdTable(), XattrTable(new())
    inodes, listings = bytearray(), bytearray()
    written, listed = MetadataWriter(new(), inodes.extend), MetadataWriter(new(), listings.extend)
    table = InodeTable(final, ids, xattrs, written)
    files = FileInodes(final, flattened.reached, contents, block_size, table)
    with Output(path, superblock.SIZE) as output:
        largest = largest_piece(block_size)
        with (
            ThreadPoolExecutor(1, "reading") as reader,
            packers_for(flattened.data_bytes, compression, block_size, largest, _descriptors(flattened)) as packers,
        ):
            pipeline = Pipeline(packers, block_size)
            data = DataPass(flattened, output, pipeline, contents, block_size, reader)
            data.run(advance, files.write_before)
        block, offset = TreePass(final, table, listed).run()
        written.finish()
        listed.finish()
        inode_table = output.position
        output.add(inodes)
        listing_table = output.position
        output.add(listings)
        fragment_table = data.fragment_table.write(output, new())
        id_table = ids.write(output, new())
        xattr_table = xattrs.write(output)
        start = Superblock(
            inodes=table.count,
            block_size=block_size,
            compression=NUMBERS[compression[0]],
            fragments=len(data.fragment_table),
            ids=len(ids),
            root=block << 16 | offset,
            used=output.position,
            id_table=id_table,
            xattr_table=xattr_table,
            inode_table=inode_table,
            listing_table=listing_table,
            fragment_table=fragment_table,
        )
        output.finish(start.pack())


def _descriptors(flattened: Flattened) -> set[int]:
    """Of the layers that can be read at any position."""
    return {layer.blob.descriptor for layer in flattened.layers if layer.is_plain()}
