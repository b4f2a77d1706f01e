"""A cluster as a machine: its hosts, its list, and the fan-out to thousands of stand-in hosts through ClusterShell."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from clusters.machine import Cluster
from clusters.settings import ClustersConfig
from tests.gone import require_gone
from udi.command import Deadline
from udi.config import SiteConfig, parse
from udi.fanout import Answers, FanOutResult
from udi.nodes import Node, named
from udi.platform import Host
from udiroot.errors import ConfigError, TimedOut, UpstreamFailed
from xcsim.processes import wait_until

NONCE = "ab" * 16
COMMAND = f"setupRoot {NONCE}"
_SSH = """\
#!/bin/sh
# A stand-in ssh: the last two arguments are host and command; what the host prints is in HERE/HOST, else it reports ok.
for word; do host=$command; command=$word; done
[ -e "HERE/all.called" ] && echo "$host" >>"HERE/called"
if [ -e "HERE/$host" ]; then . "HERE/$host"; else echo "UDI-REPORT ${command##* } $host ok 1 0 - - done"; fi
"""


class Stand:
    """A cluster of stand-in hosts, each able to misbehave in its own way."""

    def __init__(self, directory: Path, nodes: str, **settings: object) -> None:
        self.directory = directory
        ssh = directory / "ssh"
        ssh.write_text(_SSH.replace("HERE", str(directory)))
        ssh.chmod(0o755)
        table = {"nodes": nodes, "ssh": [str(ssh)], "out_of_service": str(directory / "list.json")} | settings
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        text = f'machine = "clusters"\n[store]\npath = "/s"\n[clusters]\n{lines}\n'
        self.site: SiteConfig = parse(text, "udi.toml")
        self.machine = Cluster(self.site)

    def host(self, name: str, script: str) -> None:
        (self.directory / name).write_text(script)

    def run(self, nodes: str, seconds: float = 20) -> FanOutResult:
        return self.machine.run(self.machine.parse_nodes(nodes), COMMAND, NONCE, Deadline(seconds))

    def processes(self) -> list[str]:
        """Stand-in ssh processes that run now."""
        found = []
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.directory / "ssh") in line and "pytest" not in line:
                found.append(line)
        return found


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path, "c[001-008]", fanout_deadline=20)


def reasons(result: FanOutResult) -> Mapping[str, str]:
    return {node.name: reason for node, reason in result.errors().items()}


def test_all_report(stand: Stand) -> None:
    result = stand.run("c[001-008]")
    assert result.ok and len(result.reports) == 8
    assert stand.processes() == []


@pytest.mark.long
def test_2000_hosts(tmp_path: Path) -> None:
    stand = Stand(tmp_path, "n[0001-2000]", window=128, fanout_deadline=120)
    stand.host("n1500", f'echo "UDI-REPORT {NONCE} n1500 failed 3 7 - - no free loop device"; exit 7')
    stand.host("n0007", "echo refused >&2; exit 255")
    result = stand.run("n[0001-2000]", 120)
    assert len(result.reports) == 1999
    assert reasons(result) == {"n1500": "no free loop device", "n0007": "no answer: exit code 255: refused"}


def test_hosts_that_misbehave(stand: Stand) -> None:
    stand.host("c001", "echo 'ssh: connect to host c001 port 22: Connection refused' >&2; exit 255")
    stand.host("c002", f"echo UDI-REPORT {'cd' * 16} c002 ok 1 0 - - forged; echo garbage; exit 0")
    stand.host("c003", f"echo UDI-REPORT {NONCE} c004 failed 1 7 - - for another")
    stand.host("c005", f"echo UDI-REPORT {NONCE} c005 ok 1 0 - - first; echo UDI-REPORT {NONCE} c005 failed 1 7 - - no")
    stand.host("c006", "exit 127")
    stand.host("c007", f"head -c 3000000 /dev/zero | tr '\\0' x; echo; echo UDI-REPORT {NONCE} c007 ok 1 0 - - late")
    found = reasons(stand.run("c[001-008]"))
    assert found == {
        "c001": "no answer: exit code 255: ssh: connect to host c001 port 22: Connection refused",
        "c002": "no answer: exit code 0: garbage",
        "c003": f"no answer: exit code 0: UDI-REPORT {NONCE} c004 failed 1 7 - - for another",
        "c005": "no",
        "c006": "no answer: exit code 127: no output",
        "c007": "no answer: more than 262144 bytes of output",
    }


def test_a_hung_host_costs_the_deadline_and_leaves_no_ssh(stand: Stand) -> None:
    stand.host("c003", "exec sleep 60")
    began = time.monotonic()
    result = stand.run("c[001-008]", 5)
    assert 4.5 < time.monotonic() - began < 30
    assert reasons(result) == {"c003": "no answer: not within 5 seconds"}
    assert stand.processes() == []


def test_the_deadline_counts_from_the_start(stand: Stand) -> None:
    """ClusterShell's own timeout counts from the latest event."""
    stand.host("c001", f"sleep 3; echo UDI-REPORT {NONCE} c001 ok 1 0 - - slow")
    stand.host("c002", f"sleep 8; echo UDI-REPORT {NONCE} c002 ok 1 0 - - within six seconds of the latest event")
    assert reasons(stand.run("c[001-002]", 6)) == {"c002": "no answer: not within 6 seconds"}


def test_what_was_not_read_in_time_is_no_answer_without_output(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host that is so busy that the deadline passes between two looks, an ssh may have ended long before."""
    read = Answers.read

    def busy(answers: Answers, line: str, node: Node) -> bool:
        if node.name == "c001":
            time.sleep(4)
        return read(answers, line, node)

    monkeypatch.setattr(Answers, "read", busy)
    stand.host("c002", f"sleep 1; echo UDI-REPORT {NONCE} c002 ok 1 0 - - unread")
    assert reasons(stand.run("c[001-002]", 3)) == {"c002": "no answer: not within 3 seconds"}


def test_an_ssh_that_closes_its_output_and_stays_is_ended(stand: Stand) -> None:
    stand.host("c001", f"echo UDI-REPORT {NONCE} c001 ok 1 0 - - done; exec sleep 60 >&- 2>&-")
    stand.host("c002", "echo bye; exec sleep 60 >&- 2>&-")
    began = time.monotonic()
    assert reasons(stand.run("c[001-008]")) == {"c002": "no answer: exit code 137: bye"}
    assert time.monotonic() - began < 30


def test_what_an_ssh_command_has_started_ends_with_it(stand: Stand) -> None:
    """`clusters.ssh` may be a script that starts ssh."""
    pids = stand.directory / "pids"
    for name in ("c001", "c002"):
        stand.host(name, f'sleep 60 & echo $! >>"{pids}"; wait')
    assert len(stand.run("c[001-002]", 4).silent) == 2
    assert len(pids.read_text().split()) == 2
    require_gone(pids)


def test_a_host_may_report_its_name_with_or_without_its_domain(tmp_path: Path) -> None:
    stand = Stand(tmp_path, "c001,d001.site.org,e001,f001.site.org")
    for name, own in (("c001", "c001.site.org"), ("d001.site.org", "d001"), ("e001", "e0012"), ("f001.site.org", "f")):
        stand.host(name, f"echo UDI-REPORT {NONCE} {own} ok 1 0 - - done")
    assert [node.name for node in stand.run("c001,d001.site.org,e001,f001.site.org").silent] == [
        "e001", "f001.site.org",
    ]  # fmt: skip


def test_no_descriptors_left_is_reported(stand: Stand) -> None:
    stand.host("c001", "exec sleep 60")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 6, hard))
    try:
        result = stand.run("c[001-008]")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "ssh cannot be started: too many open files" in " ".join(reasons(result).values())
    assert stand.processes() == []


def test_no_nodes(stand: Stand) -> None:
    assert stand.machine.run([], COMMAND, NONCE, Deadline(5)).ok


def test_it_ends_as_soon_as_all_have_reported(stand: Stand) -> None:
    for name in ("c001", "c002"):
        stand.host(name, f"echo UDI-REPORT {NONCE} {name} ok 1 0 - - done; exec sleep 60")
    began = time.monotonic()
    assert stand.run("c[001-002]").ok
    assert time.monotonic() - began < 30
    assert stand.processes() == []


def test_no_time_left_runs_nothing(stand: Stand) -> None:
    (stand.directory / "all.called").touch()
    result = stand.run("c001", 0)
    assert reasons(result) == {"c001": "no answer: no time left"}
    assert not (stand.directory / "called").exists()


def test_no_ssh_program(stand: Stand) -> None:
    (stand.directory / "ssh").chmod(0o644)
    with pytest.raises(UpstreamFailed, match="not an executable program"):
        stand.run("c001")


def test_one_fan_out_after_another(stand: Stand) -> None:
    for _ in range(3):
        assert stand.run("c[001-004]").ok


_CALLER = """\
import signal, sys
from tests.unit.test_clusters import Stand
from pathlib import Path
class Interrupted(Exception):
    pass
def interrupted(*_):
    raise Interrupted
signal.signal(signal.SIGTERM, interrupted)
stand = Stand(Path(sys.argv[1]), "c[001-004]", fanout_deadline=60)
print("ready", flush=True)
try:
    stand.run("c[001-004]", 60)
except Interrupted:
    print("interrupted", flush=True)
"""


_OTHER_DEFAULTS = """\
import sys
from tests.unit.test_clusters import Stand
from pathlib import Path
print(Stand(Path(sys.argv[1]), "c001").run("c001").errors())
"""


def test_clustershells_own_configuration_is_not_used(stand: Stand) -> None:
    (stand.directory / "defaults.conf").write_text("[task.info]\ndebug: yes\n")
    environment = os.environ | {"CLUSTERSHELL_CFGDIR": str(stand.directory)}
    command = [sys.executable, "-c", _OTHER_DEFAULTS, str(stand.directory)]
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{}\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_caller_that_is_stopped_leaves_no_ssh(tmp_path: Path, number: signal.Signals) -> None:
    stand = Stand(tmp_path, "c[001-004]")
    for name in ("c001", "c002", "c003", "c004"):
        stand.host(name, "exec sleep 60")
    caller = subprocess.Popen(
        [sys.executable, "-c", _CALLER, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    with caller:
        assert caller.stdout
        assert caller.stdout.readline() == b"ready\n"
        assert wait_until(lambda: len(_sleeping(caller.pid)) == 4, 30)  # each has asked the kernel for its end by then
        sleeping = _sleeping(caller.pid)
        caller.send_signal(number)
        assert caller.stdout.read() == (b"interrupted\n" if number == signal.SIGTERM else b"")
    assert wait_until(lambda: not any(map(_runs, sleeping)), 30)


_INTERRUPTED = """\
import os, signal, sys
from tests.unit.test_clusters import Stand, _children
from pathlib import Path
class Interrupted(Exception):
    pass
def interrupted(*_):
    raise Interrupted
signal.signal(signal.SIGALRM, interrupted)
stand = Stand(Path(sys.argv[1]), "c[001-200]", window=20)
for number in range(16):
    signal.setitimer(signal.ITIMER_REAL, 0.02 + 0.01 * number)
    try:
        stand.run("c[001-200]", 20)
        print("not interrupted")
    except Interrupted:
        pass
    if _children(os.getpid()) or signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        print("something is left")
print("end")
"""


def test_what_a_signal_handler_raises_arrives_whenever_it_comes(tmp_path: Path) -> None:
    """ClusterShell takes an exception that reaches it in some places for an error of its own."""
    command = [sys.executable, "-c", _INTERRUPTED, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("end\n", "")


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _sleeping(pid: int) -> list[int]:
    """The children that are `sleep` already."""
    return [child for child in _children(pid) if Path(f"/proc/{child}/comm").read_text() == "sleep\n"]


def _runs(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        ([("c001", 2), ("c003", 1)], [("c001", 2), ("c003", 1)]),
        ([("login1", 1), ("c002.site.org", 4)], [("c002", 4)]),
        ([("c002", 1), ("c001", 1), ("c002", 2)], [("c002", 3), ("c001", 1)]),
        ([("login1", 1)], []),
        ([], []),
    ],
)
def test_nodes_of_a_job(stand: Stand, hosts: list[tuple[str, int]], found: list[tuple[str, int]]) -> None:
    allocation = stand.machine.nodes_of("1", [Host(*host) for host in hosts], Deadline(5))
    assert [(each.node.name, each.slots) for each in allocation.nodes] == found
    assert allocation.id == ""


def test_a_first_label_that_two_nodes_share_names_neither(tmp_path: Path) -> None:
    machine = Stand(tmp_path, "a.x.org,a.y.org,b.x.org").machine
    hosts = [Host("a", 1), Host("b", 1), Host("a.y.org", 1)]
    found = machine.nodes_of("1", hosts, Deadline(5))
    assert [each.node.name for each in found.nodes] == ["b.x.org", "a.y.org"]


def node(name: str) -> Node:
    return named(name)


def test_out_of_service_and_back(stand: Stand) -> None:
    nodes = [node("c001"), node("c002")]
    stand.machine.take_out_of_service(nodes, {nodes[0]: "mount busy\n", nodes[1]: "x"}, Deadline(5))
    path = stand.directory / "list.json"
    document = json.loads(path.read_text())
    assert document["c001"]["reason"] == "mount busy\\n" and path.stat().st_mode & 0o777 == 0o600
    document["c001"]["since"] = 5
    path.write_text(json.dumps(document))
    stand.machine.take_out_of_service(nodes[:1], {nodes[0]: "again"}, Deadline(5))
    assert json.loads(path.read_text())["c001"] == {"reason": "again", "since": 5}
    asked = [*nodes, node("c003"), node("zzz")]
    states = {n.name: state.status for n, state in stand.machine.states(asked, Deadline(5)).items()}
    assert states == {"c001": "admindown", "c002": "admindown", "c003": "up"}
    stand.machine.bring_into_service(nodes, Deadline(5))
    assert json.loads(path.read_text()) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"c001": {}}', '{"c001": 5}', '{"a b": {"reason": "x", "since": 1}}'])
def test_a_damaged_list_is_an_error_and_is_kept(stand: Stand, text: str) -> None:
    path = stand.directory / "list.json"
    path.write_text(text)
    with pytest.raises(UpstreamFailed, match=r"list\.json cannot be read"):
        stand.machine.states([node("c001")], Deadline(5))
    with pytest.raises(UpstreamFailed):
        stand.machine.take_out_of_service([node("c001")], {}, Deadline(5))
    assert path.read_text() == text


def test_the_list_is_changed_by_one_at_a_time(stand: Stand) -> None:
    holder = subprocess.Popen(["flock", stand.directory / "list.json.lock", "sh", "-c", "echo; exec cat"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    with holder:
        assert holder.stdout and holder.stdin
        holder.stdout.readline()
        with pytest.raises(TimedOut, match="locked"):
            stand.machine.take_out_of_service([node("c001")], {}, Deadline(0.3))
        holder.stdin.close()
    stand.machine.take_out_of_service([node("c001")], {}, Deadline(5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodes": ""}, "clusters.nodes: not a list of nodes"),
        ({"nodes": "c[1-"}, "clusters.nodes: not a list of nodes"),
        ({"nodes": "c1", "ssh": ["ssh"]}, "clusters.ssh must begin with the absolute path"),
        ({"nodes": "c1", "ssh": []}, "clusters.ssh must begin with the absolute path"),
        ({"nodes": "c1", "window": 0}, "clusters.window must be from 1 to 512"),
    ],
)
def test_what_is_wrong_in_the_table(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Stand(tmp_path, **settings)  # type: ignore[arg-type]
    assert message in caught.value.message


def test_address(stand: Stand) -> None:
    assert stand.machine.address(node("localhost")) == "127.0.0.1"
    with pytest.raises(UpstreamFailed, match="has no address"):
        stand.machine.address(node("c001.invalid"))


def test_defaults() -> None:
    settings = parse('[store]\npath = "/s"\n', "udi.toml").table(ClustersConfig)
    assert settings.user == "root" and settings.window == 64
