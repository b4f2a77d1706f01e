"""The types of files that an archive can have."""

from __future__ import annotations

import stat
import tarfile

KINDS = {
    stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFREG: tarfile.REGTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE,
}  # fmt: skip
"""Type of an inode → type in an archive. A socket is none of them, and useless outside its machine."""
