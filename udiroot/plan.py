"""The node plan: everything that a node must know to set up a job's root, as strict line-based text.

The prologue makes it once (`udi.planning`), every node of the job reads it. It is lines of blank-separated fields and
not JSON, since reading JSON costs a node 13 ms of imports. `docs/design.md` lists the lines. Every byte of a field
outside a small set is written `%XX`, so no value can forge a line.
"""

from udiroot.errors import SetupFailed, printable
from udiroot.plan_ssh import PlanSsh

VERSION = "1"
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._:@+=,~-")
_MAX_BYTES = 8 << 20
"""Bytes that a plan may have: ten thousand nodes and large etc files stay far below."""

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
    "etc": 3,
    "file": 3,
    "node": 1,
    "ssh": 5,
    "module": 1,
    "krsip": 1,
    "step": 4,
}
_REPEATED = frozenset(("site", "allow", "volume", "etc", "file", "node", "module", "step"))
_OPTIONAL = _REPEATED | {"ssh", "krsip"}
STEPS = {"when": ("before", "after"), "kind": ("folder", "link", "bind")}
IMAGE_FORMATS = ("squashfs", "ext4", "directory")


class PlanUser:
    """The job's owner. `groups` holds every gid, the primary one first."""

    __slots__ = ("gid", "groups", "home", "name", "shell", "uid")

    def __init__(self, name: str, uid: int, gid: int, groups: tuple[int, ...], home: str, shell: str) -> None:
        self.name, self.uid, self.gid, self.groups, self.home, self.shell = name, uid, gid, groups, home, shell


class PlanMount:
    """A folder of the node that the root gets at `target`."""

    __slots__ = ("read_only", "source", "target")

    def __init__(self, source: str, target: str, read_only: bool) -> None:
        self.source, self.target, self.read_only = source, target, read_only


class PlanFile:
    """A file that we write into the root: a name or path, permission bits, and its text."""

    __slots__ = ("mode", "path", "text")

    def __init__(self, path: str, mode: int, text: str) -> None:
        self.path, self.mode, self.text = path, mode, text


class PlanStep:
    """What a site declares for every root, before or after its file systems: `folder`, `link` or `bind` at `target`.

    `source` is what a link says, or what is bound; empty for a folder.
    """

    __slots__ = ("kind", "source", "target", "when")

    def __init__(self, when: str, kind: str, source: str, target: str) -> None:
        self.when, self.kind, self.source, self.target = when, kind, source, target


class NodeRange:
    """Nodes `first` to `last`, both included, each with `slots` places for ranks."""

    __slots__ = ("first", "last", "slots")

    def __init__(self, first: int, last: int, slots: int) -> None:
        self.first, self.last, self.slots = first, last, slots


class NodePlan:
    """A complete plan. Paths are as the node sees them; `tmp_bytes` in bytes, `deadline` in seconds."""

    __slots__ = (
        "allowed", "deadline", "etc", "files", "image_format", "image_id", "image_path", "job", "krsip", "modules",
        "nodes", "root", "run", "sites", "ssh", "steps", "store_gid", "store_uid", "tmp_bytes", "user", "volumes",
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
        nodes: tuple[NodeRange, ...] = (),
        ssh: "PlanSsh | None" = None,
        modules: tuple[str, ...] = (),
        krsip: str = "",
        steps: tuple[PlanStep, ...] = (),
    ) -> None:
        self.job, self.user, self.store_uid, self.store_gid = job, user, store_uid, store_gid
        self.root, self.run = root, run
        self.image_format, self.image_path, self.image_id = image_format, image_path, image_id
        self.tmp_bytes, self.deadline = tmp_bytes, deadline
        self.sites, self.allowed, self.volumes = sites, allowed, volumes
        self.etc, self.files, self.nodes = etc, files, nodes
        self.ssh, self.modules, self.krsip, self.steps = ssh, modules, krsip, steps

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
        rows += [("etc", f.path, f"{f.mode:04o}", f.text) for f in self.etc]
        rows += [("file", f.path, f"{f.mode:04o}", f.text) for f in self.files]
        rows += [("node", f"{n.first}-{n.last}/{n.slots}") for n in self.nodes]
        rows += [self.ssh.row()] if self.ssh else []
        rows += [("module", path) for path in self.modules]
        rows += [("krsip", self.krsip)] if self.krsip else []
        rows += [("step", s.when, s.kind, s.source, s.target) for s in self.steps]
        lines = [" ".join((str(row[0]), *(escape(str(field)) for field in row[1:]))) for row in rows]
        return "\n".join((f"udi-plan {VERSION}", *lines, "end", ""))

    @classmethod
    def parse(cls, data: bytes) -> "NodePlan":
        """The plan that `data` holds. Raises SetupFailed for all that `text` does not write, naming line and fault."""
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
                root=_absolute(once["root"][0]),
                run=_absolute(once["run"][0]),
                image_format=image_format,
                image_path=_absolute(image_path),
                image_id=image_id,
                tmp_bytes=int(once["tmp"][0]),
                deadline=int(once["deadline"][0]),
                sites=tuple(_mount(row) for row in many["site"]),
                allowed=tuple(_absolute(row[0]) for row in many["allow"]),
                volumes=tuple(_mount(row) for row in many["volume"]),
                etc=tuple(PlanFile(row[0], int(row[1], 8), row[2]) for row in many["etc"]),
                files=tuple(PlanFile(_absolute(row[0]), int(row[1], 8), row[2]) for row in many["file"]),
                nodes=tuple(_node_range(row[0]) for row in many["node"]),
                ssh=PlanSsh.of_row([_absolute(once["ssh"][0]), *once["ssh"][1:]]) if "ssh" in once else None,
                modules=tuple(_absolute(row[0]) for row in many["module"]),
                krsip=_absolute(once["krsip"][0]) if "krsip" in once else "",
                steps=tuple(_step(row) for row in many["step"]),
            )
        except ValueError as error:
            raise SetupFailed(f"plan: {printable(error)}") from error

    def slots(self) -> "list[tuple[int, int]]":
        """Each node of the job in order, as (nid, slots)."""
        return [(nid, r.slots) for r in self.nodes for nid in range(r.first, r.last + 1)]


def escape(text: str) -> str:
    """A field as a plan, a record and a report write it: bytes outside a small set become %XX; nothing becomes `%`."""
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in raw) or "%"


def unescape(field: str) -> str:
    """What `escape` was given. Raises ValueError."""
    if "%" not in field:
        return field
    if field == "%":
        return ""
    head, *parts = field.split("%")
    raw = head.encode() + b"".join(bytes((int(part[:2], 16),)) + part[2:].encode() for part in parts)
    return raw.decode("utf-8", "surrogateescape")


def _rows(data: bytes) -> "tuple[dict[str, list[str]], dict[str, list[list[str]]]]":
    """The lines of a plan: those that may stand once, and those that may stand any number of times."""
    if len(data) > _MAX_BYTES:
        raise SetupFailed(f"plan: {len(data)} bytes, more than {_MAX_BYTES}")
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise SetupFailed("plan: not ASCII") from error
    if lines[0] != f"udi-plan {VERSION}":
        raise SetupFailed(f"plan: begins with '{printable(lines[0], 60)}', this node reads 'udi-plan {VERSION}'")
    if lines[-2:] != ["end", ""]:
        raise SetupFailed("plan: cut off, its last line is not 'end'")
    once: dict[str, list[str]] = {}
    many: dict[str, list[list[str]]] = {name: [] for name in _REPEATED}
    for number, line in enumerate(lines[1:-2], 2):
        keyword, *fields = line.split(" ")
        if keyword not in _FIELDS or len(fields) != _FIELDS[keyword] or "" in fields:
            raise SetupFailed(f"plan: line {number} is not understood: {printable(line, 60)}")
        try:
            values = [unescape(field) for field in fields]
        except ValueError as error:
            raise SetupFailed(f"plan: line {number} is badly escaped: {printable(line, 60)}") from error
        if keyword in _REPEATED:
            many[keyword].append(values)
        elif keyword in once:
            raise SetupFailed(f"plan: line {number} says {keyword} a second time")
        else:
            once[keyword] = values
    missing = [name for name in _FIELDS if name not in _OPTIONAL and name not in once]
    if missing:
        raise SetupFailed(f"plan: no line for {', '.join(missing)}")
    return once, many


def _mount(row: "list[str]") -> PlanMount:
    if row[2] not in ("ro", "rw"):
        raise SetupFailed(f"plan: access {printable(row[2])} is neither ro nor rw")
    return PlanMount(_absolute(row[0]), _absolute(row[1]), row[2] == "ro")


def _step(row: "list[str]") -> PlanStep:
    when, kind, source, target = row
    if when not in STEPS["when"] or kind not in STEPS["kind"] or (kind == "folder") != (source == ""):
        raise SetupFailed(f"plan: not a step: {printable(' '.join(row), 60)}")
    return PlanStep(when, kind, _absolute(source) if kind == "bind" else source, _absolute(target))


def _access(mount: PlanMount) -> str:
    return "ro" if mount.read_only else "rw"


def _absolute(path: str) -> str:
    """A path that says one thing only: from the root, without `.`, `..`, doubled or trailing slashes, or NUL."""
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or any(part in ("", ".", "..") for part in parts[1:]) or "\0" in path:
        raise SetupFailed(f"plan: not a plain absolute path: '{printable(path)}'")
    return path


def _node_range(text: str) -> NodeRange:
    span, slots = text.split("/")
    first, last = span.split("-")
    made = NodeRange(int(first), int(last), int(slots))
    if not 0 <= made.first <= made.last or made.slots < 1 or made.last - made.first > 1_000_000:
        raise SetupFailed(f"plan: not a range of nodes: {printable(text)}")
    return made
