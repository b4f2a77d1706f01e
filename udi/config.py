"""The site's configuration: tables of settings, read from one root-owned TOML file.

Every key has a type, a default, a line of help and its constraints in one place: the tables that several rooms share
are here, and a machine or a workload manager brings its own (`alps.settings`, `torque_hooks.settings`, …), which
`SiteConfig.table` reads when it is asked for. A program checks the tables that it uses and passes over the others;
`udi-admin check-config` refuses a table that nobody owns.

The file is opened once, and its owner and mode are checked on that descriptor; nothing is read from the environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from udi.audit import AuditConfig
from udi.chos import ChosConfig
from udi.environment import EnvironmentConfig
from udi.gatewayconfig import GatewayConfig, SystemConfig
from udi.metrics import MetricsConfig
from udi.nodeconfig import NodeConfig, SshConfig, check_targets
from udi.plaintoml import read_toml
from udi.registries import RegistryConfig
from udi.settings import (
    COUNT,
    OPTIONAL_PATH,
    PATH,
    WORD,
    Bounds,
    IpAddress,
    OneOf,
    required,
    setting,
)
from udi.signatures import SignaturesConfig, unknown_registries
from udi.sitemodules import ModuleConfig, ModuleName, is_allowed_device
from udi.tables import read_table, table_errors, unknown
from udi.trusted import trusted_text
from udi.values import Frozen, field, fields, replace
from udiroot.errors import ConfigError, printable
from udiroot.rules import is_within

DEFAULT_PATH = "/etc/udi/udi.toml"
"""Where a site keeps its configuration."""


class StoreConfig(Frozen, kw_only=True):
    """The image store on the parallel file system."""

    path: str = required("the store, as the gateway and the job hosts see it", PATH)
    node_path: str = setting("", "the store, as compute nodes see it; empty: the same path", OPTIONAL_PATH)
    account: str = setting("udi", "account that owns and writes the store: a user name or a uid")


class VolumesConfig(Frozen, kw_only=True):
    """What users may have mounted."""

    allowed: tuple[str, ...] = setting([], "directories, as nodes see them, that may contain volume sources", PATH)
    max_count: int = setting(32, "limit on the volumes of one job", COUNT)
    max_per_node_bytes: int = setting(1 << 40, "limit on the size of a per-node cache; 0: none may be made", COUNT)


class EtcConfig(Frozen, kw_only=True):
    """What the files of /etc in a root are made from."""

    templates: str = setting("", "directory of *.j2 files that replace or join our own files of /etc", OPTIONAL_PATH)
    nameservers: tuple[str, ...] = setting([], "addresses for resolv.conf", IpAddress())
    search: tuple[str, ...] = setting([], "search domains for resolv.conf", WORD)
    hosts: tuple[str, ...] = setting([], "additional lines of /etc/hosts", IpAddress(with_names=True))


class JobsConfig(Frozen, kw_only=True):
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


class LogConfig(Frozen, kw_only=True):
    """How the hooks, udi-admin and the gateway write their logs."""

    format: str = setting("text", "form of an event: text, or json (one JSON object a line)", OneOf("text", "json"))
    facility: str = setting("daemon", "facility of what goes to syslog", OneOf(*FACILITIES))


class InstallConfig(Frozen, kw_only=True):
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


class SiteConfig(Frozen, kw_only=True):
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
            check_targets(own + mine)
            if module.default and not (module.users or module.groups):
                always += mine
        check_targets(always)


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
    return replace(site, other_tables=others, path=path)


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
        return read_toml(text)
    except ValueError as error:
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
    return tuple(spec.name for spec in fields(SiteConfig) if spec.name not in own)
