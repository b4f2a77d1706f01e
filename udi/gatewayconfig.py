"""The settings of the image gateway, and of the systems that get its images."""

from __future__ import annotations

import re

from udi.architecture import KNOWN_ARCHITECTURE
from udi.settings import (
    COUNT,
    DAYS,
    FEW,
    OPTIONAL_PATH,
    PATH,
    POSITIVE,
    SECONDS,
    Bounds,
    Matching,
    OneOf,
    required,
    setting,
)
from udi.values import Frozen
from udiroot import fields
from udiroot.errors import ConfigError, printable

_PLAIN = r"[A-Za-z0-9_.:@%+=,/][A-Za-z0-9_.:@%+=,/-]*"
"""Words that ssh's remote shell and rsync's own parser leave unchanged."""


class GatewayConfig(Frozen, kw_only=True):
    """The image gateway."""

    socket: str = setting("/run/udi-gateway/gateway.sock", "UNIX socket of the service", PATH)
    state: str = setting("/var/lib/udi-gateway", "directory on a local disk for work in progress and history", PATH)
    format: str = setting(
        "squashfs", "format of new images: image files, or unpacked trees", OneOf("squashfs", "ext4", "directory")
    )
    user_formats: tuple[str, ...] = setting(
        [],
        "further formats that users may ask for with --format; publishers may ask for each",
        OneOf("squashfs", "ext4", "directory"),
    )
    compression: str = setting(
        "gzip:1",
        "compression of squashfs files, as name:level; gzip mounts on every kernel, zstd reads faster (Linux 4.14)",
    )
    architecture: str = setting(
        "amd64", "architecture of the compute nodes, with their level where images may use it", KNOWN_ARCHITECTURE
    )
    workers: int = setting(2, "conversions that run at the same time", FEW)
    worker_prefix: tuple[str, ...] = setting(
        [],
        "command that starts a conversion's worker on another host, such as srun -p service -N1 -n1; empty: here",
    )
    spool: str = setting(
        "",
        "directory of layers and work in progress that the hosts of worker_prefix see, too; empty: state",
        OPTIONAL_PATH,
    )
    max_image_bytes: int = setting(64 << 30, "limit on the uncompressed bytes of all layers of one image", POSITIVE)
    max_disk_bytes: int = setting(256 << 30, "limit on the size of the disk of a virtual machine", POSITIVE)
    max_entries: int = setting(4_000_000, "limit on the entries of all layers of one image", POSITIVE)
    max_header_bytes: int = setting(
        1 << 30, "limit on the paths, links, attributes and sparse maps of all layers of one image", POSITIVE
    )
    max_ratio: int = setting(
        1100, "limit on how many times larger than its compressed form a large layer may be", POSITIVE
    )
    ratio_from_bytes: int = setting(8 << 30, "size of a layer from which max_ratio applies", POSITIVE)
    conversion_seconds: int = setting(7200, "seconds that one conversion may take, its transfer included", SECONDS)
    conversion_memory_bytes: int = setting(
        4 << 30, "limit on the memory of each process of a conversion", Bounds(1 << 28)
    )
    layer_memory_bytes: int = setting(
        1 << 30, "memory in which a conversion keeps what its compressed layers expand to; 0: none", COUNT
    )
    files_per_user: int = setting(1000, "limit on the files that the pulls of one user have open at once", Bounds(256))
    max_metadata_bytes: int = setting(4 << 20, "limit on the size of a manifest or an image configuration", POSITIVE)
    tar2sqfs: str = setting("/usr/bin/tar2sqfs", "program that makes squashfs files", PATH)
    rdsquashfs: str = setting("/usr/bin/rdsquashfs", "program that lists squashfs files, from the same package", PATH)
    sqfs2tar: str = setting("/usr/bin/sqfs2tar", "program that reads squashfs files, from the same package", PATH)
    qemu_img: str = setting("/usr/bin/qemu-img", "program that reads disk images of virtual machines", PATH)
    mke2fs: str = setting("/sbin/mke2fs", "program that makes ext4 file systems", PATH)
    publishers: tuple[str, ...] = setting([], "users other than root who may make the image of an archive public")
    address: str = setting("", "host:port of the service for clients on other machines, authenticated by MUNGE")
    munge: str = setting("", "socket of munged; empty: libmunge's default", OPTIONAL_PATH)
    connections: int = setting(256, "limit on simultaneous connections", FEW)
    connections_per_user: int = setting(64, "limit on connections of one user or one unauthenticated address", FEW)
    pull_at_submission: bool = setting(True, "whether submission waits until the job's image is in the store")
    submission_wait: int = setting(600, "seconds that submission waits for an image", SECONDS)
    keep_days: int = setting(0, "remove images unused for this many days (udi-gateway expire); 0 disables", DAYS)
    keep_bytes: int = setting(0, "remove images unused longest while all exceed this many bytes; 0 disables", COUNT)
    pin_days: int = setting(30, "days that an image is kept for the queued jobs that pinned it", DAYS)
    daemon: str = setting(
        "",
        "socket of a Docker daemon to take images from (unix:///run/docker.sock); empty: none",
        Matching(r"(unix://)?/\S+|", "unix:// and an absolute path, or empty"),
    )

    @property
    def work_directory(self) -> str:
        """Where layers and work in progress are."""
        return self.spool or self.state

    def check(self) -> None:
        """Raises ConfigError where the address is not one, or a worker could not be started elsewhere."""
        if self.worker_prefix and PATH.broken_by(self.worker_prefix[0]):
            raise ConfigError("worker_prefix must begin with the absolute path of a program")
        if self.worker_prefix and not self.spool:
            raise ConfigError("worker_prefix needs a spool that its hosts see")
        host, _, port = self.address.rpartition(":")
        if self.address and not (host and 0 < fields.number(port) < 65536):
            raise ConfigError(f"address must be host:port, not '{printable(self.address)}'")


class SystemConfig(Frozen, kw_only=True):
    """An additional (replica) system with an image store of its own, which gets what this store has."""

    name: str = required("name of the system")
    path: str = required("its image store, as seen from where it is written", PATH)
    host: str = setting("", "host that rsync reaches by ssh; empty: a directory of this machine")
    user: str = setting("", "account there that owns the store; empty: as ssh is configured")
    ssh: tuple[str, ...] = setting(
        ["/usr/bin/ssh", "-oBatchMode=yes", "-oConnectTimeout=10"], "the ssh command, options included"
    )
    rsync: str = setting("/usr/bin/rsync", "rsync on this host", PATH)
    deadline: int = setting(3600, "seconds that the transfer of one image may take", SECONDS)

    def check(self) -> None:
        """Raises ConfigError for what a remote shell would change."""
        plain = {"name": self.name, "path": self.path}
        plain |= {key: value for key, value in (("host", self.host), ("user", self.user)) if value}
        for key, value in plain.items():
            if not re.fullmatch(_PLAIN, value) or (key != "path" and "/" in value):
                raise ConfigError(f"{key} must not be '{printable(value)}'")
        if not self.ssh or not self.ssh[0].startswith("/"):
            raise ConfigError("ssh must begin with the absolute path of a program")
        if any(not re.fullmatch(_PLAIN, word.lstrip("-")) for word in self.ssh):
            raise ConfigError("ssh must be a list of plain words, none of them empty")
