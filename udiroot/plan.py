"""The node plan: everything that a node must know to set up a job's root, as strict line-based text.

The prologue makes it once (`udi.planning`); every node of the job reads it. It consists of lines of blank-separated
fields and is not JSON, since reading JSON costs a node 13 ms of imports. `docs/design.md` lists the lines. Every byte
of a field outside a small set is written `%XX`, so no value can forge a line.

Types here are plain classes with slots, although `udi` has dataclasses of nearly the same fields (`Account` and
`PlanUser`, `FilesystemConfig`, `Volume` and `PlanMount`, `StepConfig` and `PlanStep`). Importing `dataclasses` would
cost every node more than the set-up of its root, and a node must see nothing but its plan: `udi.planning` translates
from the one to the other.
"""

from udiroot import plan_modules
from udiroot.errors import SetupFailed, printable
from udiroot.fields import absolute, are_tokens, escape, unescape
from udiroot.plan_ssh import PlanSsh

VERSION = "3"
_MAX_BYTES = 8 << 20
"""Bytes that a plan may have: ten thousand nodes and large etc files stay far below that."""

_FIELDS = {
    "job": 1,
    "user": 6,
    "store": 2,
    "root": 1,
    "run": 1,
    "image": 3,
    "tmp": 1,
    "deadline": 1,
    "site": 3,
    "allow": 1,
    "volume": 3,
    "cache": 4,
    "etc": 3,
    "file": 3,
    "program": 1,
    "node": 4,
    "ssh": 4,
    "module": 1,
    "krsip": 1,
    "step": 4,
    "sitemodule": 2,
    "part": 4,
}
_REPEATED = frozenset(
    ("site", "allow", "volume", "cache", "etc", "file", "program", "node", "module", "step", "sitemodule", "part")
)
_OPTIONAL = _REPEATED | {"ssh", "krsip"}
STEPS = {"when": ("before", "after"), "kind": ("directory", "link", "bind")}
IMAGE_FORMATS = ("squashfs", "ext4", "directory")


class PlanUser:
    """The job's owner. `groups` holds every gid, the primary one first."""

    __slots__ = ("gid", "groups", "home", "name", "shell", "uid")

    def __init__(self, name: str, uid: int, gid: int, groups: tuple[int, ...], home: str, shell: str) -> None:
        self.name, self.uid, self.gid, self.groups, self.home, self.shell = name, uid, gid, groups, home, shell


class PlanMount:
    """A directory or file of the node that is mounted in the root at `target`; `module` is the site module that it is
    of, on a node that has one."""

    __slots__ = ("module", "read_only", "source", "target")

    def __init__(self, source: str, target: str, read_only: bool, module: str = "") -> None:
        self.source, self.target, self.read_only, self.module = source, target, read_only, module


class PlanCache:
    """A writable file system for each node alone, of `size` bytes, in a file without a name in the directory `source`.

    `template` is an empty file system: for each part that is not zero, a line with its offset in bytes, a blank, and
    its zlib-compressed bytes in base64.
    """

    __slots__ = ("size", "source", "target", "template")

    def __init__(self, source: str, target: str, size: int, template: str) -> None:
        self.source, self.target, self.size, self.template = source, target, size, template


class PlanFile:
    """A file to write into the root: its name or path, permission bits, and text."""

    __slots__ = ("mode", "path", "text")

    def __init__(self, path: str, mode: int, text: str) -> None:
        self.path, self.mode, self.text = path, mode, text


class PlanStep:
    """What a site declares for every root, before or after its file systems: `directory`, `link` or `bind` at `target`.

    `source` is the text of a link, or what is bound; empty for a directory.
    """

    __slots__ = ("kind", "source", "target", "when")

    def __init__(self, when: str, kind: str, source: str, target: str) -> None:
        self.when, self.kind, self.source, self.target = when, kind, source, target


class NodeRun:
    """Nodes that follow each other in the job's order and have the same number of `slots` (ranks).

    `identities`, `names` and `addresses` have one entry for each node; `addresses` is empty where there is no private
    sshd. They are kept as tuples of text and not as one object for each node, since a job may have ten thousand.
    """

    __slots__ = ("addresses", "identities", "names", "slots")

    def __init__(
        self, slots: int, identities: tuple[str, ...], names: tuple[str, ...], addresses: tuple[str, ...] = ()
    ) -> None:
        self.slots, self.identities, self.names, self.addresses = slots, identities, names, addresses

    def row(self) -> "tuple[object, ...]":
        """The fields of the plan's line."""
        return ("node", self.slots, *map(",".join, (self.identities, self.names, self.addresses)))

    @classmethod
    def of_row(cls, row: "list[str]") -> "NodeRun":
        """Raises ValueError and SetupFailed for fields that `row` does not write."""
        slots = int(row[0])
        identities, names, addresses = (tuple(field.split(",")) if field else () for field in row[1:])
        if slots < 1 or not identities or not len(identities) == len(names) == (len(addresses) or len(names)):
            raise SetupFailed(f"plan: slots or lists of nodes do not fit together: {printable(' '.join(row), 60)}")
        if not (are_tokens(identities, row[1]) and are_tokens(names, row[2])):
            raise SetupFailed(f"plan: invalid node name: {printable(' '.join(row[1:3]), 60)}")
        if addresses:
            _require_addresses(addresses)
        return cls(slots, identities, names, addresses)


class NodePlan:
    """A complete plan. Paths are as the node sees them; `tmp_bytes` in bytes, `deadline` in seconds."""

    __slots__ = (
        "allowed", "caches", "deadline", "etc", "files", "image_format", "image_id", "image_path", "job", "krsip",
        "modules", "nodes", "programs", "root", "run", "site_modules", "sites", "ssh", "steps", "store_gid",
        "store_uid", "tmp_bytes", "user", "volumes",
    )  # fmt: skip

    def __init__(
        self,
        *,
        job: str,
        user: PlanUser,
        store_uid: int,
        store_gid: int,
        root: str,
        run: str,
        image_format: str,
        image_path: str,
        image_id: str,
        tmp_bytes: int,
        deadline: int,
        sites: tuple[PlanMount, ...] = (),
        allowed: tuple[str, ...] = (),
        volumes: tuple[PlanMount, ...] = (),
        etc: tuple[PlanFile, ...] = (),
        files: tuple[PlanFile, ...] = (),
        nodes: tuple[NodeRun, ...] = (),
        ssh: "PlanSsh | None" = None,
        modules: tuple[str, ...] = (),
        krsip: str = "",
        steps: tuple[PlanStep, ...] = (),
        caches: tuple[PlanCache, ...] = (),
        programs: tuple[str, ...] = (),
        site_modules: "tuple[plan_modules.PlanModule, ...]" = (),
    ) -> None:
        self.job, self.user, self.store_uid, self.store_gid = job, user, store_uid, store_gid
        self.root, self.run = root, run
        self.image_format, self.image_path, self.image_id = image_format, image_path, image_id
        self.tmp_bytes, self.deadline = tmp_bytes, deadline
        self.sites, self.allowed, self.volumes, self.caches = sites, allowed, volumes, caches
        self.etc, self.files, self.programs, self.nodes = etc, files, programs, nodes
        self.ssh, self.modules, self.krsip, self.steps = ssh, modules, krsip, steps
        self.site_modules = site_modules

    def text(self) -> str:
        """The plan as text, ending in `end`."""
        user = self.user
        rows: list[tuple[object, ...]] = [
            ("job", self.job),
            ("user", user.name, user.uid, user.gid, ",".join(map(str, user.groups)), user.home, user.shell),
            ("store", self.store_uid, self.store_gid),
            ("root", self.root),
            ("run", self.run),
            ("image", self.image_format, self.image_path, self.image_id),
            ("tmp", self.tmp_bytes),
            ("deadline", self.deadline),
        ]
        rows += [("site", m.source, m.target, _access(m)) for m in self.sites]
        rows += [("allow", path) for path in self.allowed]
        rows += [("volume", m.source, m.target, _access(m)) for m in self.volumes]
        rows += [("cache", c.source, c.target, c.size, c.template) for c in self.caches]
        rows += [("etc", f.path, f"{f.mode:04o}", f.text) for f in self.etc]
        rows += [("file", f.path, f"{f.mode:04o}", f.text) for f in self.files]
        rows += [("program", path) for path in self.programs]
        rows += [run.row() for run in self.nodes]
        rows += [self.ssh.row()] if self.ssh else []
        rows += [("module", path) for path in self.modules]
        rows += [("krsip", self.krsip)] if self.krsip else []
        rows += [("step", s.when, s.kind, s.source, s.target) for s in self.steps]
        rows += [row for module in self.site_modules for row in module.rows()]
        lines = [" ".join((str(row[0]), *(escape(str(field)) for field in row[1:]))) for row in rows]
        return "\n".join((f"udi-plan {VERSION}", *lines, "end", ""))

    @classmethod
    def parse(cls, data: bytes) -> "NodePlan":
        """The plan in `data`. Raises SetupFailed for everything that `text` does not write, naming line and fault."""
        once, many = _rows(data)
        try:
            name, uid, gid, groups, home, shell = once["user"]
            user = PlanUser(name, int(uid), int(gid), tuple(int(g) for g in groups.split(",")), home, shell)
            image_format, image_path, image_id = once["image"]
            if image_format not in IMAGE_FORMATS:
                raise SetupFailed(f"plan: image format {printable(image_format)} is none of {', '.join(IMAGE_FORMATS)}")
            return cls(
                job=once["job"][0],
                user=user,
                store_uid=int(once["store"][0]),
                store_gid=int(once["store"][1]),
                root=absolute(once["root"][0]),
                run=absolute(once["run"][0]),
                image_format=image_format,
                image_path=absolute(image_path),
                image_id=image_id,
                tmp_bytes=int(once["tmp"][0]),
                deadline=int(once["deadline"][0]),
                sites=tuple(_mount(row) for row in many["site"]),
                allowed=tuple(absolute(row[0]) for row in many["allow"]),
                volumes=tuple(_mount(row) for row in many["volume"]),
                caches=tuple(
                    PlanCache(absolute(row[0]), absolute(row[1]), int(row[2]), row[3]) for row in many["cache"]
                ),
                etc=tuple(PlanFile(row[0], int(row[1], 8), row[2]) for row in many["etc"]),
                files=tuple(PlanFile(absolute(row[0]), int(row[1], 8), row[2]) for row in many["file"]),
                programs=tuple(absolute(row[0]) for row in many["program"]),
                nodes=tuple(NodeRun.of_row(row) for row in many["node"]),
                ssh=PlanSsh.of_row([absolute(once["ssh"][0]), *once["ssh"][1:]]) if "ssh" in once else None,
                modules=tuple(absolute(row[0]) for row in many["module"]),
                krsip=absolute(once["krsip"][0]) if "krsip" in once else "",
                steps=tuple(_step(row) for row in many["step"]),
                site_modules=plan_modules.of_rows(many["sitemodule"], many["part"]),
            )
        except ValueError as error:
            raise SetupFailed(f"plan: {printable(error)}") from error

    def nodelist(self) -> str:
        """The text of /var/nodelist: a node's name on a line of its own for each of its slots, in the job's order."""
        return "".join(f"{name}\n" * run.slots for run in self.nodes for name in run.names)

    def find_address(self, identity: str) -> str:
        """The address of a node on the cluster's network; nothing, where the plan has none for it."""
        for run in self.nodes:
            if identity in run.identities and run.addresses:
                return run.addresses[run.identities.index(identity)]
        return ""

    def address_of(self, identity: str) -> str:
        """The address on which a node's private sshd listens. Raises SetupFailed where the plan has none for it."""
        address = self.find_address(identity)
        if not address:
            raise SetupFailed(f"plan: no address for node {printable(identity)}")
        return address


def _rows(data: bytes) -> "tuple[dict[str, list[str]], dict[str, list[list[str]]]]":
    """The lines of a plan: those that may occur once, and those that may occur any number of times."""
    if len(data) > _MAX_BYTES:
        raise SetupFailed(f"plan: {len(data)} bytes, more than {_MAX_BYTES}")
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise SetupFailed("plan: not ASCII") from error
    if lines[0] != f"udi-plan {VERSION}":
        raise SetupFailed(f"plan: begins with '{printable(lines[0], 60)}'; this node reads 'udi-plan {VERSION}'")
    if lines[-2:] != ["end", ""]:
        raise SetupFailed("plan: truncated: its last line is not 'end'")
    once: dict[str, list[str]] = {}
    many: dict[str, list[list[str]]] = {name: [] for name in _REPEATED}
    for number, line in enumerate(lines[1:-2], 2):
        keyword, *fields = line.split(" ")
        if keyword not in _FIELDS or len(fields) != _FIELDS[keyword] or "" in fields:
            raise SetupFailed(f"plan: line {number} is invalid: {printable(line, 60)}")
        try:
            values = [unescape(field) for field in fields]
        except ValueError as error:
            raise SetupFailed(f"plan: line {number} has an invalid escape: {printable(line, 60)}") from error
        if keyword in _REPEATED:
            many[keyword].append(values)
        elif keyword in once:
            raise SetupFailed(f"plan: line {number} repeats {keyword}")
        else:
            once[keyword] = values
    missing = [name for name in _FIELDS if name not in _OPTIONAL and name not in once]
    if missing:
        raise SetupFailed(f"plan: no line for {', '.join(missing)}")
    return once, many


def _mount(row: "list[str]") -> PlanMount:
    if row[2] not in ("ro", "rw"):
        raise SetupFailed(f"plan: access {printable(row[2])} is neither ro nor rw")
    return PlanMount(absolute(row[0]), absolute(row[1]), row[2] == "ro")


def _step(row: "list[str]") -> PlanStep:
    when, kind, source, target = row
    if when not in STEPS["when"] or kind not in STEPS["kind"] or (kind == "directory") != (source == ""):
        raise SetupFailed(f"plan: invalid step: {printable(' '.join(row), 60)}")
    return PlanStep(when, kind, absolute(source) if kind == "bind" else source, absolute(target))


def _access(mount: PlanMount) -> str:
    return "ro" if mount.read_only else "rw"


def _require_addresses(addresses: "tuple[str, ...]") -> None:
    from _socket import AF_INET, AF_INET6, inet_pton  # only a site with the private sshd pays for it

    try:
        for address in addresses:
            inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except (OSError, ValueError) as error:
        raise SetupFailed(f"plan: not an IP address: '{printable(address)}'") from error
