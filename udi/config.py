"""The site's configuration: one table of settings, read from one root-owned TOML file.

Every key has a type, a default and a line of help here and nowhere else. The file is opened once, and its owner and
mode are checked on that descriptor; nothing is read from the environment.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import stat
import sysconfig
import tomllib
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from udi.config_rules import check
from udi.registries import RegistryConfig
from udi.settings import required, setting
from udiroot.errors import ConfigError, printable

DEFAULT_PATH = "/etc/udi/udi.toml"
"""Where a site keeps its configuration."""

_MULTIARCH = str(sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu")


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """The image store on the parallel file system."""

    path: str = required("the store, as the gateway and the MOM node see it")
    node_path: str = setting("", "the store, as compute nodes see it; empty: the same path")
    account: str = setting("udi", "who owns and writes the store: a user name, or a number")


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """The image gateway."""

    socket: str = setting("/run/udi/gateway.sock", "UNIX socket of the service")
    state: str = setting("/var/lib/udi-gateway", "local disk for work in progress and history")
    format: str = setting("squashfs", "format of new image files: squashfs or ext4")
    compression: str = setting("gzip:1", "compression of squashfs files, as name:level; gzip mounts on every kernel")
    architecture: str = setting("amd64", "architecture of the compute nodes, in Docker's word")
    workers: int = setting(2, "conversions at the same time")
    max_image_bytes: int = setting(64 << 30, "uncompressed bytes of all layers that one image may have")
    max_entries: int = setting(4_000_000, "entries of all layers that one image may have")
    max_ratio: int = setting(1000, "how many times larger than its compressed form a layer may be")
    max_metadata_bytes: int = setting(4 << 20, "size that a manifest or an image configuration may have")
    tar2sqfs: str = setting("/usr/bin/tar2sqfs", "program that makes squashfs files")
    rdsquashfs: str = setting("/usr/bin/rdsquashfs", "program that lists them, of the same package")
    mke2fs: str = setting("/sbin/mke2fs", "program that makes ext4 file systems")
    publishers: tuple[str, ...] = setting([], "users who may make the image of an archive public, beside root")
    address: str = setting("", "host:port of the service, for clients on other machines; they prove by MUNGE who asks")
    munge: str = setting("", "socket of munged; empty: where libmunge looks for it")
    connections: int = setting(256, "connections at the same time")
    connections_per_user: int = setting(64, "connections of one user, or of one address that has not proved who asks")
    pull_at_submission: bool = setting(True, "whether qsub waits until the image of the job is in the store")
    submission_wait: int = setting(600, "seconds that qsub waits for an image; then the job start sees to it")
    keep_days: int = setting(0, "days without use after which udi-gateway expire removes an image; 0: any number")
    keep_bytes: int = setting(0, "size of all image files above which expire removes those unused longest; 0: any")
    pin_days: int = setting(30, "days that an image stays for the queued jobs that it was pinned for")
    daemon: str = setting("", "socket of a Docker daemon to take images from, as unix:///run/docker.sock; empty: none")


@dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """A further system with an image store of its own, which gets what this store has."""

    name: str = required("what people call the system")
    path: str = required("its image store, as seen from where it is written")
    host: str = setting("", "host that rsync reaches it on, by ssh; empty: a folder of this machine")
    user: str = setting("", "the special-purpose account there, which owns that store; empty: as ssh is configured")
    ssh: tuple[str, ...] = setting(
        ["/usr/bin/ssh", "-oBatchMode=yes", "-oConnectTimeout=10"], "the words that start ssh, options included"
    )
    rsync: str = setting("/usr/bin/rsync", "rsync here")
    deadline: int = setting(3600, "seconds that the transfer of one image may take")


@dataclass(frozen=True, kw_only=True)
class FilesystemConfig:
    """A site file system that every root gets."""

    source: str = required("folder on the node")
    target: str = setting("", "where it appears in the root; empty: at the same path")
    read_only: bool = setting(False, "whether jobs may only read it")


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """Something that a site declares for every root."""

    kind: str = required("folder (make it), link (to source), or bind (source, read-only)")
    target: str = required("where in the root")
    source: str = setting("", "what a link says, or the file or folder of the node to bind")
    when: str = setting("after", "before or after the site file systems are mounted")


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """What a compute node looks like, and how our software starts there."""

    root: str = setting("/var/udi", "the image root, which roots.conf names")
    run: str = setting("/var/run/udi", "record and staging on the node")
    zip: str = setting("/dsl/opt/udi/node/udi.zip", "the node software, as a node sees it")
    python: tuple[str, ...] = setting(
        [
            f"/dsl/usr/lib/{_MULTIARCH}/ld-linux-x86-64.so.2",
            "--library-path",
            f"/dsl/usr/lib/{_MULTIARCH}:/dsl/lib/{_MULTIARCH}",
            "/dsl/usr/bin/python3",
        ],
        "the words that start Python on a node, whose own root has neither Python nor libraries",
    )
    nid_file: str = setting("/proc/cray_xt/nid", "where a node reads its own nid")
    tmp_bytes: int = setting(8 << 30, "size that /tmp and /var/tmp of a job may each grow to")
    deadline: int = setting(60, "seconds that set-up or teardown of one node may take")
    modules: tuple[str, ...] = setting([], "kernel modules that images need, in the order of loading: squashfs.ko")
    module_path: str = setting("/dsl/lib/modules/{release}", "folder of the modules on a node; {release}: its kernel's")
    krsip: str = setting("/proc/sys/net/krsip/request", "switch of realm-specific IP, used where a node has it")
    steps: tuple[StepConfig, ...] = setting([], "what every root gets besides: folders, links, read-only binds")
    filesystems: tuple[FilesystemConfig, ...] = setting([], "site file systems that every root gets")


@dataclass(frozen=True, kw_only=True)
class SshConfig:
    """The private sshd of each job, by which its programs start others on its nodes, inside the image."""

    enabled: bool = setting(False, "whether jobs get one")
    port: int = setting(1204, "port that it listens on, of each node's cluster address")
    first_address: str = setting("10.128.0.1", "cluster address of nid 0; those of the other nids follow it in order")
    programs: str = setting("/dsl/opt/udi/node/ssh", "folder of its programs, as a node sees it")


@dataclass(frozen=True, kw_only=True)
class VolumesConfig:
    """What users may ask to have mounted."""

    allowed: tuple[str, ...] = setting([], "folders, as nodes see them, that the source of a volume may lie in")
    max_count: int = setting(32, "volumes of one job")


@dataclass(frozen=True, kw_only=True)
class EtcConfig:
    """What the files of /etc in a root are rendered from."""

    templates: str = setting("", "folder whose *.j2 files replace or join our own templates")
    nameservers: tuple[str, ...] = setting([], "addresses for resolv.conf")
    search: tuple[str, ...] = setting([], "domains for resolv.conf")
    hosts: tuple[str, ...] = setting([], "further lines of /etc/hosts")


@dataclass(frozen=True, kw_only=True)
class AlpsConfig:
    """Cray's commands."""

    apstat: str = setting("/opt/cray/alps/default/bin/apstat", "")
    apbasil: str = setting("/opt/cray/alps/default/bin/apbasil", "")
    basil_protocol: str = setting("1.3", "BASIL version that the site's ALPS speaks")
    sources: tuple[str, ...] = setting(["apstat", "basil"], "where a reservation is looked up, in this order")
    reservation_wait: int = setting(15, "seconds to wait for a reservation that is not listed yet")
    xtxqtcmd: str = setting("/opt/cray/nodehealth/default/bin/xtxqtcmd", "")
    xtprocadmin: str = setting("/opt/cray/sdb/default/bin/xtprocadmin", "")
    command_deadline: int = setting(20, "seconds that one call of apstat, apbasil or xtprocadmin may take")
    fanout_deadline: int = setting(90, "seconds that a fan-out to all nodes of a job may take")


@dataclass(frozen=True, kw_only=True)
class TorqueConfig:
    """Torque's commands and limits."""

    qstat: str = setting("/usr/bin/qstat", "")
    qhold: str = setting("/usr/bin/qhold", "")
    command_deadline: int = setting(20, "seconds that one call of qstat or qhold may take")
    prologue_deadline: int = setting(150, "seconds that the prologue may take; well inside $prologalarm less ten")
    epilogue_deadline: int = setting(150, "seconds that the epilogue may take")
    max_starts: int = setting(3, "starts of a job after which a site failure holds it")
    mom_priv: str = setting("/var/spool/torque/mom_priv", "where the hooks are installed")
    server_home: str = setting("/var/spool/torque", "where torque.cfg is")


@dataclass(frozen=True, kw_only=True)
class JobsConfig:
    """What the MOM node keeps."""

    state: str = setting("/var/spool/udi/jobs", "state of running jobs, root's alone")
    nodes: str = setting("/var/spool/udi/nodes", "why nodes are admindown, root's alone")
    log: str = setting("/var/log/udi/hooks.log", "log of the hooks; empty: syslog alone")
    syslog: bool = setting(True, "whether the hooks also log to syslog")


@dataclass(frozen=True, kw_only=True)
class InstallConfig:
    """Where rendered files go, and what they start."""

    bin: str = setting("/opt/udi/bin", "folder of the installed programs")
    zip: str = setting("/opt/udi/node/udi.zip", "the node software, as the MOM node sees it")
    python: str = setting("/usr/bin/python3", "the Python of the shared root, which compiles the node software")
    ssh: str = setting("/opt/udi/node/ssh", "folder of the private sshd's programs, as the MOM node sees it")
    ssh_built: str = setting("/opt/udi/lib/sshd", "folder with those programs as `make sshd` built them")
    profile: str = setting("/etc/profile.d", "folder of the shell snippets")
    roots_conf: str = setting("/etc/opt/cray/cnrte/roots.conf", "ALPS's map of root names to folders")
    nodehealth_conf: str = setting("/etc/opt/cray/nodehealth/nodehealth.conf", "Cray NHC's configuration")
    nodehealth_check: str = setting("/opt/udi/node/nodehealth-check", "the check that NHC runs, as installed")
    node_prefix: str = setting("/dsl", "what a node puts before a path of the shared root")


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """All settings of a site."""

    store: StoreConfig
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    systems: tuple[SystemConfig, ...] = setting([], "further image stores that get every image")
    node: NodeConfig = field(default_factory=NodeConfig)
    ssh: SshConfig = field(default_factory=SshConfig)
    volumes: VolumesConfig = field(default_factory=VolumesConfig)
    etc: EtcConfig = field(default_factory=EtcConfig)
    alps: AlpsConfig = field(default_factory=AlpsConfig)
    torque: TorqueConfig = field(default_factory=TorqueConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)
    install: InstallConfig = field(default_factory=InstallConfig)

    @property
    def node_store_path(self) -> str:
        """The store, as compute nodes see it."""
        return self.store.node_path or self.store.path


def load(path: str = DEFAULT_PATH) -> SiteConfig:
    """Read, check and freeze the configuration at `path`.

    Raises ConfigError: absent, not root's, writable by others, not TOML, an unknown key, a wrong type or value.
    """
    return parse(_trusted_text(path), path)


def parse(text: str, path: str) -> SiteConfig:
    """The configuration that `text` holds; `path` is for messages."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    site: SiteConfig = _table(SiteConfig, document, path, "")
    check(site, path)
    return site


def _trusted_text(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "--config names another file") from error
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path}: not a regular file")
        if status.st_uid != 0:
            raise ConfigError(f"{path}: owned by uid {status.st_uid}, must be root's", f"chown root {path}")
        if status.st_mode & 0o022:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise ConfigError(f"{path}: mode {mode} lets others write it", f"chmod go-w {path}")
        try:
            return stream.read().decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8: {error}") from error


def _table(kind: Any, document: dict[str, Any], path: str, where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key in document:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {where}{near[0]}?" if near else f"known here: {', '.join(fields)}"
            raise ConfigError(f"{path}: unknown key {printable(where + key)}", hint)
    values = {key: _value(hints[key], value, path, where + key) for key, value in document.items()}
    for name, spec in fields.items():
        absent = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if absent and name not in values:
            if dataclasses.is_dataclass(hints[name]):
                values[name] = _table(hints[name], {}, path, f"{where}{name}.")
            else:
                raise ConfigError(f"{path}: {where}{name} is missing", spec.metadata["help"])
    return kind(**values)


def _value(hint: Any, value: Any, path: str, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {where} must be a table")
        return _table(hint, value, path, where + ".")
    if isinstance(hint, types.GenericAlias) or typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{path}: {where} must be a list")
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, item, path, f"{where}[{number}]") for number, item in enumerate(value))
    if type(value) is not hint:
        wanted = {str: "a text in quotes", int: "a whole number", bool: "true or false"}[hint]
        raise ConfigError(f"{path}: {where} must be {wanted}, not {printable(value)}")
    if hint is str and any(c < " " or c == "\x7f" for c in value):
        raise ConfigError(f"{path}: {where} holds a control character")
    return value
