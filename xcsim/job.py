"""A Torque job: what the server keeps of it, and the attributes that qstat shows, in order.

A task of an array is a job of its own: `12[3].sdb`, with the task's number at the end of its name and of the paths of
its output; the MOM's files of it begin with `12-3.sdb` (torque-reference i).
"""

import time
from dataclasses import dataclass, field

from xcsim.settings import Settings
from xcsim.variables import shown

# Substates that the captures show (torque-reference b, c).
PRERUN, RUNNING, EXITED, QUEUED, HELD = 40, 42, 59, 10, 20
WHOLE = -1
"""The task that stands for the complete array."""


@dataclass
class Job:
    """One job. `state` is Q, H, R, E or C."""

    number: int
    server: str
    host: str
    name: str
    user: str
    group: str
    uid: int
    gid: int
    queue: str
    account: str
    script: str
    resources: dict[str, str]
    variables: list[str]
    output: str
    error: str
    join: str
    shell: str
    workdir: str
    submit_args: str
    task: int | None = None
    slots: int = 0
    hold: str = "n"
    state: str = "Q"
    substate: int = QUEUED
    nids: list[int] = field(default_factory=list)
    start_count: int = 0
    exit_status: int | None = None
    session: int = 0
    reservation: int = 0
    deleted: bool = False
    eligible: float = 0.0
    created: float = field(default_factory=time.time)
    changed: float = field(default_factory=time.time)
    started: float = 0.0
    ended: float = 0.0

    @property
    def id(self) -> str:
        task = "" if self.task is None else "[]" if self.task == WHOLE else f"[{self.task}]"
        return f"{self.number}{task}.{self.server}"

    @property
    def prefix(self) -> str:
        """What the MOM's files of the job begin with."""
        return self.id if self.task is None else f"{self.number}-{self.task}.{self.server}"

    @property
    def node_count(self) -> int:
        count = self.resources.get("nodes", "1").split(":")[0]
        return int(count) if count.isdigit() else 1

    @property
    def per_node(self) -> int:
        for part in self.resources.get("nodes", "").split(":"):
            if part.startswith("ppn=") and part[4:].isdigit():
                return int(part[4:])
        return 1

    @property
    def wall_seconds(self) -> float | None:
        text = self.resources.get("walltime", "")
        if not text:
            return None
        seconds = 0
        for part in text.split(":"):
            seconds = seconds * 60 + int(part)
        return float(seconds)

    @property
    def used(self) -> dict[str, str]:
        seconds = int(max(0.0, (self.ended or time.time()) - self.started)) if self.started else 0
        wall = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return {"cput": "00:00:00", "vmem": "0kb", "walltime": wall, "mem": "0kb", "energy_used": "0"}

    @property
    def requested(self) -> str:
        """The resource list as hooks receive it in an argument."""
        pairs = dict(self.resources)
        if "nodes" in pairs:
            pairs["neednodes"] = pairs["nodes"]
        return ",".join(f"{name}={value}" for name, value in pairs.items())

    def path_of(self, kind: str) -> str:
        """`host:path` of the output (`o`) or error (`e`) file."""
        wanted = self.output if kind == "o" else self.error
        if not wanted:
            wanted = f"{self.name.removesuffix(self._ending)}.{kind}{self.number}"
        wanted += self._ending
        if ":" in wanted.split("/", 1)[0]:
            return wanted
        return f"{self.host}:{wanted if wanted.startswith('/') else f'{self.workdir}/{wanted}'}"

    @property
    def _ending(self) -> str:
        return "" if self.task in (None, WHOLE) else f"-{self.task}"

    def attributes(self, settings: Settings) -> list[tuple[str, str | dict[str, str]]]:
        """Name and value of every attribute, in the order of the captures; absent ones are left out."""
        slots = "/0" if self.per_node == 1 else f"/0-{self.per_node - 1}"
        exec_host = "+".join(f"{nid}{slots}" for nid in self.nids) or f"{self.host}/0"
        resources = dict(self.resources)
        if "nodes" in resources:
            resources |= {"nodect": str(self.node_count), "neednodes": resources["nodes"]}
        finished = self.state == "C"
        listed: list[tuple[str, str | dict[str, str] | None]] = [
            ("Job_Name", self.name),
            ("Job_Owner", f"{self.user}@{self.host}"),
            ("resources_used", self.used if finished and self.started else None),
            ("job_state", self.state),
            ("queue", self.queue),
            ("server", self.server),
            ("Account_Name", self.account or None),
            ("Checkpoint", "u"),
            ("ctime", str(int(self.created))),
            ("Error_Path", self.path_of("e")),
            ("exec_host", exec_host if self.start_count and self.state in "REC" else None),
            ("Hold_Types", self.hold),
            ("Join_Path", self.join),
            ("Keep_Files", "n"),
            ("Mail_Points", "a"),
            ("mtime", str(int(self.changed))),
            ("Output_Path", self.path_of("o")),
            ("Priority", "0"),
            ("qtime", str(int(self.created))),
            ("Rerunable", "True"),
            ("Resource_List", resources or None),
            ("session_id", str(self.session) if self.session and self.substate != PRERUN else None),
            ("Shell_Path_List", self.shell or None),
            ("substate", str(self.substate)),
            ("Variable_List", shown(self.variables)),
            ("euser", self.user),
            ("egroup", self.group),
            ("hashname", self.prefix),
            ("queue_rank", str(self.number)),
            ("queue_type", "E"),
            ("etime", str(int(self.created))),
            ("exit_status", None if self.exit_status is None else str(self.exit_status)),
            ("submit_args", self.submit_args),
            ("job_array_id", None if self.task in (None, WHOLE) else str(self.task)),
            ("start_time", str(int(self.started)) if self.started else None),
            ("start_count", str(self.start_count) if self.start_count else None),
            ("fault_tolerant", "False"),
            ("comp_time", str(int(self.ended)) if finished else None),
            ("job_radix", "0"),
            ("total_runtime", f"{self.ended - self.started:.6f}" if finished and self.started else None),
            ("submit_host", self.host),
            ("init_work_dir", self.workdir),
            ("reservation_id", str(self.reservation) if self.reservation and self.substate != PRERUN else None),
            ("login_node_id", settings.login_name if self.nids else None),
            ("nppcu", "1" if self.nids else None),
            ("login_node_key", "1" if self.nids else None),
            ("request_version", "1"),
        ]
        return [(name, value) for name, value in listed if value is not None]
