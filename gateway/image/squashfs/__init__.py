"""A writer of squashfs 4.0: from the final tree and its layers to one file, without a packer's program.

The format is that of Linux's `Documentation/filesystems/squashfs.rst` and `fs/squashfs/squashfs_fs.h`. Linux 2.6.35
could read everything that is written, compressors aside. The same tree gives the same bytes.
"""
