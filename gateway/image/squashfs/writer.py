"""From the final tree to an image file: contents of files first, then inodes and listings, then the tables of both."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.image.flatten import Flattened
from gateway.image.squashfs import superblock
from gateway.image.squashfs.compressors import NUMBERS, Compress, compressor
from gateway.image.squashfs.data import DataPass
from gateway.image.squashfs.metadata import MetadataWriter
from gateway.image.squashfs.names import TreePass
from gateway.image.squashfs.numbers import Numbers
from gateway.image.squashfs.output import Output
from gateway.image.squashfs.pipeline import Pipeline
from gateway.image.squashfs.superblock import IdTable, Superblock
from gateway.image.squashfs.xattrs import XattrTable


def write_squashfs(
    flattened: Flattened,
    path: str,
    compression: tuple[str, int | None],
    block_size: int,
    advance: Callable[[int], None],
) -> None:
    """Write the tree to `path`, which must not exist. `compression` is a name of `compressors.NUMBERS`, and a level.

    Raises ImageInvalid, and OSError where the file cannot be written.
    """
    name, level = compression

    def new() -> Compress:
        return compressor(name, level, block_size)

    numbers = Numbers(flattened.final)
    with Output(path, superblock.SIZE) as output:
        with ThreadPoolExecutor(1, "reading") as reader, Pipeline(new, block_size) as pipeline:
            data = DataPass(flattened, output, pipeline, block_size, reader)
            data.run(numbers.files, advance)
        ids, xattrs = IdTable(), XattrTable(new())
        inode_table = output.position
        written = MetadataWriter(new(), output.add)
        listings = bytearray()
        listed = MetadataWriter(new(), listings.extend)
        tree_pass = TreePass(flattened.final, numbers, data.contents, block_size, ids, xattrs, written, listed)
        block, offset = tree_pass.run()
        written.finish()
        listed.finish()
        listing_table = output.position
        output.add(listings)
        fragment_table = data.fragment_table.write(output, new())
        id_table = ids.write(output, new())
        xattr_table = xattrs.write(output)
        start = Superblock(
            inodes=numbers.count,
            block_size=block_size,
            compression=NUMBERS[name],
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
