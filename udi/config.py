"""The site's configuration: tables of settings, read from one root-owned TOML file.

Every key has a type, a default, a line of help and its constraints in one place: the tables that several rooms share
are here, and a machine or a workload manager brings its own (`alps.settings`, `torque_hooks.settings`, …), which
`SiteConfig.table` reads when it is asked for. A program checks the tables that it uses and passes over the others;
`udi-admin check-config` refuses a table that nobody owns.

The file is opened once, and its owner and mode are checked on that descriptor; nothing is read from the environment.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, ClassVar, Protocol, TypeVar

from udi.architecture import KNOWN_ARCHITECTURE
from udi.audit import AuditConfig
from udi.chos import ChosConfig
from udi.environment import EnvironmentConfig
from udi.metrics import MetricsConfig
from udi.oserrors import reason
from udi.registries import RegistryConfig
from udi.settings import (
    COUNT,
    DAYS,
    FEW,
    FILE,
    IPV4,
    OPTIONAL_PATH,
    PATH,
    POSITIVE,
    SECONDS,
    WORD,
    Bounds,
    IpAddress,
    Matching,
    OneOf,
    required,
    setting,
)
from udi.signatures import SignaturesConfig, unknown_registries
from udi.sitemodules import DEVICES, ModuleConfig, ModuleName, is_allowed_device
from udi.tables import read_table, table_errors, unknown
from udi.values import frozen
from udiroot import fields
from udiroot.errors import ConfigError, printable
from udiroot.plan import STEPS
from udiroot.rules import hides_ours, is_within

DEFAULT_PATH = "/etc/udi/udi.toml"
"""Where a site keeps its configuration."""

_MAX_TRUSTED = 16 << 20
"""Bytes of a file of the site's."""

_MULTIARCH: str = getattr(sys.implementation, "_multiarch", "") or "x86_64-linux-gnu"
_PLAIN = re.compile(r"[A-Za-z0-9_.:@%+=,/][A-Za-z0-9_.:@%+=,/-]*")
"""Words that ssh's remote shell and rsync's own parser leave unchanged."""


@frozen(kw_only=True)
class StoreConfig:
    """The image store on the parallel file system."""

    path: str = required("the store, as the gateway and the job hosts see it", PATH)
    node_path: str = setting("", "the store, as compute nodes see it; empty: the same path", OPTIONAL_PATH)
    account: str = setting("udi", "account that owns and writes the store: a user name or a uid")


@frozen(kw_only=True)
class GatewayConfig:
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


@frozen(kw_only=True)
class SystemConfig:
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
            if not _PLAIN.fullmatch(value) or (key != "path" and "/" in value):
                raise ConfigError(f"{key} must not be '{printable(value)}'")
        if not self.ssh or not self.ssh[0].startswith("/"):
            raise ConfigError("ssh must begin with the absolute path of a program")
        if any(not _PLAIN.fullmatch(word.lstrip("-")) for word in self.ssh):
            raise ConfigError("ssh must be a list of plain words, none of them empty")


@frozen(kw_only=True)
class FilesystemConfig:
    """A site file system that every root gets."""

    source: str = required("directory on the node", PATH)
    target: str = setting("", "path in the root; empty: the same path", OPTIONAL_PATH)
    read_only: bool = setting(False, "whether jobs may only read it")


@frozen(kw_only=True)
class StepConfig:
    """A directory, symbolic link or read-only bind that the site adds to every root."""

    kind: str = required("what to make", OneOf(*STEPS["kind"]))
    target: str = required("path in the root", PATH)
    source: str = setting("", "target of the link, or the node's file or directory to bind")
    when: str = setting("after", "before or after the site file systems are mounted", OneOf(*STEPS["when"]))

    def check(self) -> None:
        """Raises ConfigError where the source does not fit the kind."""
        if (self.kind == "directory") != (self.source == ""):
            raise ConfigError("source: a link and a bind need one, a directory has none")
        if self.kind == "bind" and (words := PATH.broken_by(self.source)):
            raise ConfigError(f"source {words}")


@frozen(kw_only=True)
class NodeConfig:
    """Compute nodes, and how the node software starts there."""

    root: str = setting("/var/udi", "path of the image root on a node", PATH)
    run: str = setting("/var/run/udi", "directory for the record and for staging on a node", PATH)
    zip: str = setting("/dsl/opt/udi/node/udi.zip", "the node software, as a node sees it", PATH)
    python: tuple[str, ...] = setting(
        [
            f"/dsl/usr/lib/{_MULTIARCH}/ld-linux-x86-64.so.2",
            "--library-path",
            f"/dsl/usr/lib/{_MULTIARCH}:/dsl/lib/{_MULTIARCH}",
            "/dsl/usr/bin/python3",
        ],
        "the command that starts Python on a node, whose own root may have neither Python nor libraries",
        filled=True,
    )
    nid_file: str = setting("/proc/cray_xt/nid", "file in which a numbered node finds its nid", PATH)
    tmp_bytes: int = setting(8 << 30, "limit on the size of each of a job's /tmp and /var/tmp", POSITIVE)
    deadline: int = setting(60, "seconds that setup or teardown of one node may take", SECONDS)
    modules: tuple[str, ...] = setting([], "kernel modules that images need, in load order (squashfs.ko)", FILE)
    module_path: str = setting(
        "/dsl/lib/modules/{release}", "directory of the modules on a node; {release} is its kernel's", PATH
    )
    devices: tuple[str, ...] = setting([], "device nodes that site modules may name, as /dev/nvidia*", DEVICES)
    krsip: str = setting("/proc/sys/net/krsip/request", "switch of realm-specific IP, used where a node has it", PATH)
    shared: bool = setting(
        False, "whether jobs may share a node; if not, teardown terminates everything that runs as the job's user there"
    )
    steps: tuple[StepConfig, ...] = setting([], "additional directories, links and read-only binds of every root")
    filesystems: tuple[FilesystemConfig, ...] = setting([], "site file systems that every root gets")

    def check(self) -> None:
        """Raises ConfigError for a file system that would contain the root itself, and for targets that collide."""
        if not self.python[0].startswith("/") or "" in self.python:
            raise ConfigError("python must begin with the absolute path of a program, and have no empty word")
        if is_within(self.root, self.run) or is_within(self.run, self.root):
            raise ConfigError(f"root and run must lie apart, not {self.root} and {self.run}")
        for index, filesystem in enumerate(self.filesystems):
            for own in (self.root, self.run):
                if is_within(own, filesystem.source):
                    raise ConfigError(f"filesystems[{index}].source contains {own}, which shifter-xc manages")
        _check_targets(self.targets())

    def targets(self) -> list[tuple[str, str, str]]:
        """Each path in a root that the site takes: its key, the path, and the kind of a step."""
        found = [(f"filesystems[{n}]", each.target or each.source, "") for n, each in enumerate(self.filesystems)]
        return found + [(f"steps[{n}]", step.target, step.kind) for n, step in enumerate(self.steps)]


@frozen(kw_only=True)
class SshConfig:
    """The private sshd of each job, by which its programs start others on its nodes, inside the image."""

    enabled: bool = setting(False, "whether jobs get one")
    port: int = setting(1204, "port that it listens on, on each node's cluster address", Bounds(1024, 65535))
    first_address: str = setting("10.128.0.1", "cluster address of nid 0; the other nids follow in order", IPV4)
    programs: str = setting("/dsl/opt/udi/node/ssh", "directory of its programs, as a node sees it", PATH)


def _check_targets(targets: list[tuple[str, str, str]]) -> None:
    """Each is a key, its path in the root, and the kind of a step. Raises ConfigError."""
    paths: dict[str, tuple[str, str]] = {}
    for key, target, kind in targets:
        if kind != "directory" and hides_ours(target):
            raise ConfigError(f"{key}: target {target} would hide what belongs to shifter-xc in a root")
        other, other_kind = paths.setdefault(target, (key, kind))
        if other != key and ("directory" not in (kind, other_kind) or "link" in (kind, other_kind)):
            raise ConfigError(f"{other} and {key} have the same target {target}")
    links = [(target, key) for key, target, kind in targets if kind == "link"]
    for key, target, _ in targets:
        for link, owner in links:
            if target != link and is_within(target, link):
                raise ConfigError(f"{key}: target {target} lies below the link {link} of {owner}")


@frozen(kw_only=True)
class VolumesConfig:
    """What users may have mounted."""

    allowed: tuple[str, ...] = setting([], "directories, as nodes see them, that may contain volume sources", PATH)
    max_count: int = setting(32, "limit on the volumes of one job", COUNT)
    max_per_node_bytes: int = setting(1 << 40, "limit on the size of a per-node cache; 0: none may be made", COUNT)


@frozen(kw_only=True)
class EtcConfig:
    """What the files of /etc in a root are made from."""

    templates: str = setting("", "directory of *.j2 files that replace or join our own files of /etc", OPTIONAL_PATH)
    nameservers: tuple[str, ...] = setting([], "addresses for resolv.conf", IpAddress())
    search: tuple[str, ...] = setting([], "search domains for resolv.conf", WORD)
    hosts: tuple[str, ...] = setting([], "additional lines of /etc/hosts", IpAddress(with_names=True))


@frozen(kw_only=True)
class JobsConfig:
    """What a job host (on a Cray, the MOM node) keeps."""

    state: str = setting("/var/spool/udi/jobs", "state of running jobs, for root only", PATH)
    nodes: str = setting("/var/spool/udi/nodes", "why nodes are out of service, for root only", PATH)
    log: str = setting("/var/log/udi/hooks.log", "log file of the hooks; empty: syslog only", OPTIONAL_PATH)
    reports: str = setting(
        "/var/log/udi/reports", "what each node reported of a step that failed; empty: not kept", OPTIONAL_PATH
    )
    syslog: bool = setting(True, "whether the hooks also log to syslog")
    max_nodes_out: int = setting(8, "nodes that one step of one job may take out of service", COUNT)
    max_percent_out: int = setting(
        10, "the same in percent of the job's nodes; whichever of the two allows more applies", Bounds(0, 100)
    )


FACILITIES = {"user": 1, "daemon": 3, "auth": 4, "cron": 9} | {f"local{number}": 16 + number for number in range(8)}
"""The facilities of syslog that a site may choose, by their numbers (RFC 3164)."""


@frozen(kw_only=True)
class LogConfig:
    """How the hooks, udi-admin and the gateway write their logs."""

    format: str = setting("text", "form of an event: text, or json (one JSON object a line)", OneOf("text", "json"))
    facility: str = setting("daemon", "facility of what goes to syslog", OneOf(*FACILITIES))


@frozen(kw_only=True)
class InstallConfig:
    """Where rendered files go, and what they start."""

    bin: str = setting("/opt/udi/bin", "directory of the installed programs", PATH)
    share: str = setting("/opt/udi/share", "directory of man pages and of the completion of shells", PATH)
    zip: str = setting("/opt/udi/node/udi.zip", "the node software, as the job host sees it", PATH)
    python: str = setting("/usr/bin/python3", "the Python of the shared root, which compiles the node software", PATH)
    ssh: str = setting("/opt/udi/node/ssh", "directory of the private sshd's programs, as the job host sees it", PATH)
    udi_run_built: str = setting("/opt/udi/lib/udi-run", "the program udi-run as `make udi-run` built it", PATH)
    ssh_built: str = setting("/opt/udi/lib/sshd", "directory of those programs as `make sshd` built them", PATH)
    logrotate: str = setting("/etc/logrotate.d", "directory of logrotate's files; empty: none", OPTIONAL_PATH)
    profile: str = setting("/etc/profile.d", "directory of the shell snippets", PATH)
    roots_conf: str = setting("/etc/opt/cray/cnrte/roots.conf", "map of ALPS from root names to directories", PATH)
    nodehealth_conf: str = setting("/etc/opt/cray/nodehealth/nodehealth.conf", "configuration of Cray NHC", PATH)
    nodehealth_check: str = setting("/opt/udi/node/nodehealth-check", "the check that NHC runs, as installed", PATH)
    node_prefix: str = setting("/dsl", "what a node puts before a path of the shared root", OPTIONAL_PATH)


class Table(Protocol):
    """A table that a machine or a workload manager brings: a dataclass of settings that knows its name."""

    NAME: ClassVar[str]


T = TypeVar("T", bound=Table)


@frozen(kw_only=True)
class SiteConfig:
    """All shared settings of a site, and a way to the tables of others."""

    store: StoreConfig
    workload_manager: str = setting("", "what starts jobs, by the name of its table; empty: Torque")
    machine: str = setting("", "the machine that jobs run on, by the name of its table; empty: a Cray")
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    signatures: SignaturesConfig = field(default_factory=SignaturesConfig)
    chos: ChosConfig = field(default_factory=ChosConfig)
    systems: tuple[SystemConfig, ...] = setting([], "additional image stores that get every image")
    node: NodeConfig = field(default_factory=NodeConfig)
    ssh: SshConfig = field(default_factory=SshConfig)
    volumes: VolumesConfig = field(default_factory=VolumesConfig)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    modules: Mapping[str, ModuleConfig] = setting({}, "what goes with an image, by name", ModuleName())
    etc: EtcConfig = field(default_factory=EtcConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    log: LogConfig = field(default_factory=LogConfig)
    install: InstallConfig = field(default_factory=InstallConfig)
    other_tables: Mapping[str, Any] = field(default_factory=dict)
    """The tables of the file that are not shared, as TOML gives them."""
    path: str = DEFAULT_PATH
    """The file, for messages."""

    @property
    def node_store_path(self) -> str:
        """The store, as compute nodes see it."""
        return self.store.node_path or self.store.path

    def table(self, kind: type[T]) -> T:
        """The table that a machine or a workload manager brings, with its defaults where the file has none.

        Raises ConfigError where the table is wrong.
        """
        document = self.other_tables.get(kind.NAME, {})
        if not isinstance(document, dict):
            raise ConfigError(f"{self.path}: {kind.NAME} must be a table")
        found: T = read_table(kind, document, self.path, f"{kind.NAME}.")
        return found

    def check(self) -> None:
        """Raises ConfigError where two systems have one name, for signatures of a registry that there is not, and for
        what modules may not have here."""
        for error in unknown_registries(self.signatures, [host.name for host in self.registry.hosts]):
            raise error
        names = [system.name for system in self.systems]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ConfigError(f"systems[{number}].name: two systems are called {printable(name)}")
        self._check_modules()

    def _check_modules(self) -> None:
        """Each goes together with what every root has, and those by default with each other."""
        own = [("node." + key, target, kind) for key, target, kind in self.node.targets()]
        always: list[tuple[str, str, str]] = []
        for name, module in self.modules.items():
            where = f"modules.{name}"
            for number, bind in enumerate(module.binds):
                for path in (self.node.root, self.node.run):
                    if is_within(path, bind.source) or is_within(bind.source, path):
                        raise ConfigError(
                            f"{where}.mounts[{number}]: {bind.source} is shifter-xc's own, or contains {path}"
                        )
            for number, device in enumerate(module.devices):
                if not is_allowed_device(device, self.node.devices):
                    raise ConfigError(
                        f"{where}.devices[{number}]: node.devices does not allow {printable(device)}",
                        f'node.devices = ["{device}"] would',
                    )
            mine = [(f"{where}.{key}", target, kind) for key, target, kind in module.targets()]
            _check_targets(own + mine)
            if module.default and not (module.users or module.groups):
                always += mine
        _check_targets(always)


def load(path: str = DEFAULT_PATH) -> SiteConfig:
    """Read, check and freeze the configuration at `path`.

    Raises ConfigError: absent, not root's, writable by others, not TOML, an unknown key of a shared table, a wrong type
    or value. Tables that are not shared are checked by `SiteConfig.table`.
    """
    return parse(trusted_text(path), path)


def parse(text: str, path: str) -> SiteConfig:
    """The configuration that `text` holds; `path` is for messages. Raises ConfigError for its first error."""
    shared, others = _divided(_document(text, path))
    site: SiteConfig = read_table(SiteConfig, shared, path)
    return dataclasses.replace(site, other_tables=others, path=path)


def errors_in(text: str, path: str, kinds: Iterable[type[Table]]) -> list[ConfigError]:
    """Everything that is wrong with the text of a configuration, where the tables that are not shared are those of
    `kinds`. Raises ConfigError where it is not TOML."""
    shared, others = _divided(_document(text, path))
    owners = {kind.NAME: kind for kind in kinds}
    found = table_errors(SiteConfig, shared, path)
    for name, table in others.items():
        if name not in owners:
            found.append(unknown(name, (*shared_keys(), *owners), path))
        elif not isinstance(table, dict):
            found.append(ConfigError(f"{path}: {name} must be a table"))
        else:
            found += table_errors(owners[name], table, path, f"{name}.")
    return found


def _document(text: str, path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _divided(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document's shared keys and tables, and the others."""
    shared = shared_keys()
    return (
        {key: value for key, value in document.items() if key in shared},
        {key: value for key, value in document.items() if key not in shared},
    )


def shared_keys() -> tuple[str, ...]:
    """The top-level keys and tables that are shared."""
    own = ("other_tables", "path")
    return tuple(spec.name for spec in dataclasses.fields(SiteConfig) if spec.name not in own)


def trusted_text(
    path: str, *, name: str = "", directory: int | None = None, hint: str = "--config names another file"
) -> str:
    """The text of the file at `path`, or of `name` in an open `directory`, where `path` is for messages only.

    Raises ConfigError where it cannot be read, or others than root may write it.
    """
    try:
        descriptor = os.open(name or path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, dir_fd=directory)
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error)}", hint) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_TRUSTED:
        os.close(descriptor)
        what = f"more than {_MAX_TRUSTED} bytes" if stat.S_ISREG(status.st_mode) else "not a regular file"
        raise ConfigError(f"{path}: {what}", hint)
    with os.fdopen(descriptor, "rb") as stream:
        if status.st_uid != 0:
            raise ConfigError(f"{path}: owned by uid {status.st_uid}, must be owned by root", f"chown root {path}")
        if status.st_mode & 0o022:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise ConfigError(f"{path}: mode {mode} lets others write it", f"chmod go-w {path}")
        try:
            return stream.read().decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8: {error}") from error
