"""The complete machine without any site software: Torque's contract with hooks, aprun, faults, and a clean stop.

What is expected here was seen on a real Torque (torque-reference a, b, g), or is from cray-reference.
"""

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from udiroot.errors import NotFound, UsageError
from xcsim.machine import Machine
from xcsim.picture import mounts_of
from xcsim.processes import ProcessId, wait_until
from xcsim.settings import Settings

MOM_PRIV = "/var/spool/torque/mom_priv"
XTXQTCMD = "/opt/cray/nodehealth/default/bin/xtxqtcmd"
TWO_NODES = ["-l", "nodes=2:ppn=2"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and mounts need root")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("xc") / "state")
    settings = Settings(nodes=3, first_nid=20, slots=4, prologalarm=2, schedule_delay=0.05, release_delay=0.05)
    try:
        yield machine.up(settings, with_site=False)
    finally:
        machine.down()


@pytest.fixture
def machine(running: Machine) -> Iterator[Machine]:
    yield running
    running.clear_faults()
    for name in ("prologue", "epilogue", "prologue.user", "epilogue.user"):
        running.path(f"{MOM_PRIV}/{name}").unlink(missing_ok=True)
    running.run_as("root", ["xtprocadmin", "-k", "s", "up"])
    running.path("/var/spool/torque/torque.cfg").write_text("")


def hook(machine: Machine, name: str, body: str, mode: int = 0o755) -> None:
    path = machine.path(f"{MOM_PRIV}/{name}")
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(mode)


def done(machine: Machine, job: str) -> dict[str, str]:
    return machine.wait_job(job)


def test_a_prologue_gets_what_torque_gives(machine: Machine) -> None:
    show = 'printf "%s\\n" "$@" "--"; env; echo "-- $(id -u) $(id -G) $PPID $(umask) $PWD"; readlink /proc/$$/fd/0'
    hook(machine, "prologue", show)
    job = machine.qsub("alice", ["-N", "dump", "-A", "proj1", *TWO_NODES, "-v", "UDI=image:tag"], "echo RAN\n")
    attributes = done(machine, job)
    arguments, _, rest = machine.output(job).partition("--\n")
    resources = "nodes=2:ppn=2,neednodes=2:ppn=2"
    script = f"{MOM_PRIV}/jobs/{job}.SC"
    assert arguments.splitlines() == [job, "alice", "alice", "dump", resources, "batch", "proj1", script]
    environment, _, rest = rest.partition("-- ")
    shell_adds = {"PWD", "SHLVL", "_"}
    assert {line.split("=")[0] for line in environment.splitlines()} - shell_adds == {
        "PATH", "LANG", "PBS_RESOURCE_NODES", "PBS_NUM_NODES", "PBS_NUM_PPN", "PBS_NP", "PBS_NODENUM",
        "PBS_MSHOST", "PBS_NODEFILE", "PBS_O_WORKDIR",
    }  # fmt: skip
    assert "PATH=/bin:/usr/bin\n" in environment and "PBS_MSHOST=20\n" in environment
    who, stdin, ran = rest.splitlines()
    assert who == f"0 0 1001 2001 {attributes['session_id']} 0077 {MOM_PRIV}"
    assert (stdin, ran) == ("/dev/null", "RAN")


def test_an_epilogue_gets_what_torque_gives(machine: Machine) -> None:
    hook(machine, "epilogue", 'printf "%s\\n" "$@"; umask')
    job = machine.qsub("alice", ["-N", "dump"], "exit 5\n")
    attributes = done(machine, job)
    lines = machine.output(job).splitlines()
    assert len(lines) == 12
    assert lines[4] == attributes["session_id"] and lines[9:] == ["5", f"{MOM_PRIV}/jobs/{job}.SC", "0022"]
    assert attributes["exit_status"] == "5"


@pytest.mark.parametrize(
    ("body", "state", "status", "ran", "delivered"),
    [
        ("exit 0", "C", "0", True, True),
        ("exit 1", "C", "-2", False, False),
        ("exit 2", "H", "-14", False, True),
        ("exit 255", "H", "-14", False, True),
        ("kill -9 $$", "C", "0", True, True),
        ("kill -TERM $$", "C", "0", True, True),
        ("sleep 30", "H", "-14", False, True),
    ],
)
def test_what_a_prologue_ends_with(
    machine: Machine, body: str, state: str, status: str, ran: bool, delivered: bool
) -> None:
    hook(machine, "prologue", f"echo tried; [ -e /tmp/once ] && /usr/bin/qhold $1; touch /tmp/once\n{body}")
    hook(machine, "epilogue", "echo after")
    machine.path("/tmp/once").unlink(missing_ok=True)
    job = machine.qsub("bob", ["-N", "exits"], "echo RAN\n")
    attributes = machine.wait_job(job, state)
    assert attributes["exit_status"] == status
    assert attributes["start_count"] == ("2" if state == "H" else "1")
    if delivered:
        lines = ["tried", *(["RAN"] if ran else []), "after"]
        assert machine.output(job).splitlines() == lines
    else:
        assert not machine.path(f"/home/bob/exits.o{job.split('.')[0]}").exists()
        assert machine.path(f"/var/spool/torque/spool/{job}.OU").read_text() == "tried\nafter\n"
    if state == "H":
        assert attributes["Hold_Types"] == "u"
        machine.run_as("root", ["qdel", job])


@pytest.mark.parametrize(("mode", "runs"), [(0o500, True), (0o755, True), (0o644, False), (0o775, False)])
def test_a_hook_that_others_may_write_sends_the_job_back(machine: Machine, mode: int, runs: bool) -> None:
    hook(machine, "prologue", "true", mode)
    job = machine.qsub("alice", [], "true\n")
    assert wait_until(lambda: "exit_status" in machine.job(job), 30, 0.02)
    assert machine.job(job)["exit_status"] == ("0" if runs else "-14")
    machine.run_as("root", ["qdel", job])


def test_a_requeued_job_is_tried_again_at_once_and_for_ever(machine: Machine) -> None:
    hook(machine, "prologue", "exit 3")
    job = machine.qsub("alice", TWO_NODES, "true\n")
    assert wait_until(lambda: int(machine.job(job).get("start_count", "0")) > 3, 30, 0.05)
    machine.run_as("alice", ["qdel", job], check=True)
    done(machine, job)
    assert wait_until(lambda: "batch:" not in machine.run_as("root", ["apstat", "-r"]).stdout, 30)


def test_the_reservation_is_confirmed_before_the_prologue_and_gone_after_the_job(machine: Machine) -> None:
    hook(machine, "prologue", "/opt/cray/alps/default/bin/apstat -r; /usr/bin/qstat -x $1")
    job = machine.qsub("alice", TWO_NODES, "true\n")
    done(machine, job)
    number = job.split(".")[0]
    row = next(line.split() for line in machine.output(job).splitlines() if f"batch:{number} " in line)
    assert row[3:] == ["XT", "4", "2", "1", "1024", "conf"]
    assert "<job_state>R</job_state>" in machine.output(job) and "<substate>40</substate>" in machine.output(job)
    assert "BATCH_PARTITION_ID" not in machine.output(job)
    assert machine.run_as("root", ["apstat", "-r"]).stdout == " No reservations are present\n"


def test_aprun_runs_as_the_user_on_the_nodes_of_the_job(machine: Machine) -> None:
    script = "aprun -q -n 4 -N 2 -b sh -c 'echo $ALPS_APP_PE $(cat /etc/xcsim/nid) $(id -u) $(id -G)' | sort\n"
    job = machine.qsub("alice", TWO_NODES, script)
    done(machine, job)
    groups = "1001 1001 2001"
    assert machine.output(job).splitlines() == [f"0 20 {groups}", f"1 20 {groups}", f"2 21 {groups}", f"3 21 {groups}"]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("aprun -n 5 -b true", 1, "claim exceeds reservation's node-count"),
        ("aprun -L 22 -b true", 1, "claim exceeds reservation's nodes"),
        ("aprun -n 2 -b sh -c 'exit 3'", 3, ""),
        ("aprun -n 2 -b sh -c 'kill -9 $$'", 137, "initiated application termination"),
        ("aprun -b /no/such", 1, "Exec /no/such failed"),
        ("aprun /no/such", 1, "file /no/such not found"),
        ("CRAY_ROOTFS=FOO aprun -b true", 1, "CRAY_ROOTFS FOO is not in roots.conf"),
        ("CRAY_ROOTFS=UDI aprun -b true", 1, "/var/udi is not available on this node"),
        ("CRAY_ROOTFS=DSL aprun -b -q /usr/bin/test -d /usr/share", 0, ""),
        ("CRAY_ROOTFS=INITRAMFS aprun -b -q test -d /dsl", 0, ""),
    ],
)
def test_aprun_ends_as_alps_does(machine: Machine, line: str, code: int, words: str) -> None:
    machine.path("/etc/opt/cray/cnrte/roots.conf").write_text("DSL=/dsl\nUDI=/var/udi # ours\n")
    job = machine.qsub("alice", TWO_NODES, f"export CRAY_ROOTFS\n{line}\necho code $?\n")
    done(machine, job)
    assert machine.output(job).splitlines()[-1] == f"code {code}"
    assert words in machine.output(job, "e")


def test_aprun_outside_a_job_or_in_anothers_is_refused(machine: Machine) -> None:
    refused = machine.run_as("alice", ["aprun", "-b", "true"])
    assert refused.returncode == 1 and "no reservation" in refused.stderr
    job = machine.qsub("alice", TWO_NODES, "sleep 300\n")
    machine.wait_job(job, "R")
    assert wait_until(lambda: machine.job(job)["substate"] == "42", 30)
    assert machine.run_as("bob", ["aprun", "-b", "true"], env={"PBS_JOBID": job}).returncode == 1
    assert machine.run_as("alice", ["aprun", "-b", "true"], env={"PBS_JOBID": job}).returncode == 0
    machine.run_as("alice", ["qdel", job], check=True)
    assert done(machine, job)["exit_status"] == "271"


def test_the_end_of_a_job_ends_its_application_but_not_what_left_its_group(machine: Machine) -> None:
    own = "setsid sh -c 'touch /scratch/alice/own.$ALPS_APP_PE; exec sleep 61' >/dev/null 2>&1 & sleep 62"
    begun = "until [ -e /scratch/alice/own.0 ] && [ -e /scratch/alice/own.1 ]; do sleep 0.1; done"
    job = machine.qsub("alice", TWO_NODES, f"aprun -n 2 -N 1 -b sh -c {shlex.quote(own)} &\n{begun}\n")
    done(machine, job)
    node = machine.node(20)
    assert wait_until(lambda: "sleep 62" not in " ".join(node.snapshot().processes), 30)
    assert wait_until(lambda: "uid 1001 sleep 61" in node.snapshot().processes, 30)
    for nid in (20, 21):
        machine.node(nid).run(["sh", "-c", "kill $(pidof sleep)"])


def test_jobs_run_on_nodes_that_are_up_and_only_there(machine: Machine) -> None:
    machine.run_as("root", ["xtprocadmin", "-k", "s", "admindown", "-n", "20"], check=True)
    job = machine.qsub("alice", TWO_NODES, "cat $PBS_NODEFILE\n")
    blocked = machine.qsub("bob", ["-l", "nodes=3"], "true\n")
    done(machine, job)
    assert machine.output(job).split() == ["21", "21", "22", "22"]
    assert machine.job(blocked)["job_state"] == "Q"
    machine.run_as("root", ["xtprocadmin", "-k", "s", "up", "-n", "20"], check=True)
    done(machine, blocked)


def test_a_login_only_job_has_hooks_and_no_reservation(machine: Machine) -> None:
    hook(machine, "prologue", "echo host $PBS_MSHOST; /opt/cray/alps/default/bin/apstat -r")
    job = machine.qsub("alice", ["-l", "nodes=0"], "true\n")
    done(machine, job)
    assert machine.output(job) == "host login1\n No reservations are present\n"


def fan_out(machine: Machine, command: str) -> tuple[int, list[str]]:
    machine.path("/tmp/nodes").write_text("nid00020\nnid00021\n")
    ran = machine.run_as("root", [XTXQTCMD, "/tmp/nodes", command], timeout=60)
    return ran.returncode, sorted(ran.stdout.splitlines())


@pytest.mark.parametrize(
    ("fault", "value", "code", "replies", "outputs"),
    [
        ("", "", 0, ["21: 3", "20: 3"], 2),
        ("dead-node", "", 0, ["21: 3"], 1),
        ("kill-command", "1", 0, ["21: 3", "20: 137"], 2),
        ("lost-reply", "", 0, ["21: 3"], 1),
        ("exit-1", "", 0, ["21: 3", "20: 1"], 2),
        ("bad-exit", "9", 9, ["21: 3", "20: 3"], 2),
        ("slow-node", "0.2", 0, ["21: 3", "20: 3"], 2),
    ],
)
def test_xtxqtcmd_and_its_faults(
    machine: Machine, fault: str, value: str, code: int, replies: list[str], outputs: int
) -> None:
    if fault:
        machine.set_fault(fault, node=None if fault == "bad-exit" else 20, value=value)
    seconds = 3 if fault == "kill-command" else 0.3  # it is killed after one
    ended, lines = fan_out(machine, f"cat /etc/xcsim/nid; sleep {seconds}; exit 3")
    assert ended == code
    wanted = {f"Reply (complete) from nid000{r[:2]} exit code: {r[4:]}" for r in replies}
    assert {line for line in lines if "complete" in line} == wanted
    assert len([line for line in lines if "complete" not in line]) == outputs


def test_a_hung_node_holds_xtxqtcmd_until_it_is_killed(machine: Machine) -> None:
    machine.set_fault("hung-node", node=21)
    machine.path("/tmp/nodes").write_text("nid00020\nnid00021\n")
    begun = machine.popen_as("root", [XTXQTCMD, "/tmp/nodes", "echo there"], stdout=subprocess.PIPE)
    assert begun.stdout
    seen = ""
    while "Reply (complete) from nid00020" not in seen:
        line = begun.stdout.readline()
        assert line, seen
        seen += line
    time.sleep(0.5)
    assert begun.poll() is None
    begun.kill()
    assert "nid00021" not in seen + begun.communicate()[0]


def test_faults_of_alps_and_torque(machine: Machine) -> None:
    job = machine.qsub("alice", TWO_NODES, "sleep 300\n")
    machine.wait_job(job, "R")
    assert wait_until(lambda: machine.job(job)["substate"] == "42", 30)
    shown = [f"batch:{job.split('.')[0]} "]
    machine.set_fault("reservation-gone", count=1)
    assert shown[0] not in machine.run_as("root", ["apstat", "-r"]).stdout
    assert shown[0] in machine.run_as("root", ["apstat", "-r"]).stdout
    machine.set_fault("apstat-broken")
    assert machine.run_as("root", ["apstat", "-r"]).returncode == 1
    query = "<BasilRequest protocol='1.3' method='QUERY' type='INVENTORY'/>"
    machine.set_fault("basil-broken-xml", count=1)
    assert "</BasilResponse>" not in machine.run_as("root", ["apbasil"], input=query).stdout
    machine.set_fault("basil-empty", count=1)
    assert machine.run_as("root", ["apbasil"], input=query).stdout == ""
    assert f'batch_id="{job}"' in machine.run_as("root", ["apbasil"], input=query).stdout
    machine.set_fault("qstat-down", count=1)
    assert machine.job(job)["job_state"] == "R"
    assert machine.run_as("root", ["qstat", "-x", job]).returncode == 111
    machine.set_fault("qstat-hangs", count=1)
    assert machine.run_as("root", ["timeout", "2", "qstat", "-x", job]).returncode == 124
    machine.run_as("root", ["qdel", job])
    done(machine, job)


def test_kill_prologue_lets_the_job_run(machine: Machine) -> None:
    hook(machine, "prologue", "exec sleep 1.5")
    machine.set_fault("kill-prologue", value="0.1")
    job = machine.qsub("alice", [], "echo RAN\n")
    done(machine, job)
    assert machine.output(job) == "RAN\n"


def test_the_health_check_takes_a_dirty_node_out_of_service(machine: Machine) -> None:
    configuration = machine.path("/etc/opt/cray/nodehealth/nodehealth.conf")
    configuration.write_text(
        "[plugin]\nCommand: test ! -e /tmp/dirt || { echo dirt is left; exit 1; }\n"
        "Action: Admindown\nTimeout: 5\nSets: Reservation\n"
    )
    try:
        script = "aprun -n 2 -N 1 -b sh -c 'test $ALPS_APP_PE = 0 || touch /tmp/dirt'\n"
        done(machine, machine.qsub("alice", TWO_NODES, script))
        assert wait_until(lambda: machine.node_states()[21] == "admindown", 30, 0.05)
        assert machine.node_states()[20] == "up"
        log = machine.path("/var/log/xtcheckhealth_log").read_text()
        assert "FAILURES: (Admindown) Plugin test ! -e /tmp/dirt" in log and "nid00021: dirt is left" in log
    finally:
        configuration.write_text("")
        machine.node(21).run(["rm", "/tmp/dirt"])


@pytest.mark.parametrize(
    ("filter_body", "code", "words"),
    [
        ("cat; echo echo added", 0, ""),
        ("echo refused because >&2; exit 255", 1, "administratively rejected"),
        ("cat; exit 2", 1, "submit filter returned an error code"),
        ("kill -9 $$", 1, "submit filter returned an error code"),
        ("cat >/dev/null", 0, ""),
    ],
)
def test_the_submit_filter(machine: Machine, filter_body: str, code: int, words: str) -> None:
    path = machine.path("/opt/filter")
    path.write_text(f"#!/bin/sh\n{filter_body}\n")
    path.chmod(0o755)
    machine.path("/var/spool/torque/torque.cfg").write_text("SUBMITFILTER /opt/filter\n")
    ran = machine.run_as("alice", ["qsub", "-N", "f"], input="true\n")
    assert ran.returncode == code and words in ran.stderr
    if code:
        return
    job = ran.stdout.strip()
    if "null" in filter_body:
        with pytest.raises(NotFound, match="Unknown Job Id Error"):
            machine.job(job)
        return
    done(machine, job)
    assert machine.output(job) == "added\n"
    assert "PBS_O_SUBMIT_FILTER=/opt/filter" in machine.job(job)["Variable_List"]


def test_qsub_options_of_script_and_command_line(machine: Machine) -> None:
    script = (
        '#PBS -N named -j oe -l nodes=1:ppn=3,walltime=00:01:00\n#PBS -v A="1 2"\n#PBS -v A=3\necho $A; echo e >&2\n'
    )
    job = machine.qsub("alice", ["-l", "nodes=2:ppn=1", "-o", "/home/alice/out"], script)
    attributes = done(machine, job)
    assert attributes["Job_Name"] == "named" and attributes["Resource_List.nodes"] == "2:ppn=1"
    assert attributes["Resource_List.walltime"] == "00:01:00" and attributes["Join_Path"] == "oe"
    assert machine.output(job) == "1 2\ne\n"
    with pytest.raises(UsageError, match="invalid -v syntax"):
        machine.qsub("alice", ["-v", "=x"], "true\n")


def test_people_may_not_touch_each_others_jobs(machine: Machine) -> None:
    job = machine.qsub("alice", ["-h"], "true\n")
    assert machine.job(job)["job_state"] == "H"
    refused = machine.run_as("bob", ["qdel", job])
    assert refused.returncode != 0 and "Unauthorized" in refused.stderr
    assert machine.run_as("root", ["qdel", "999"]).returncode == 153
    machine.run_as("alice", ["qrls", job], check=True)
    done(machine, job)


def test_qdel_of_a_running_job_and_of_one_in_its_prologue(machine: Machine) -> None:
    hook(machine, "epilogue.precancel", 'echo "$(id -u) $PWD $#" > /scratch/alice/precancel')
    hook(machine, "prologue", "while [ $4 = slow ] && [ ! -e /scratch/alice/deleted ]; do sleep 0.1; done")
    hook(machine, "epilogue", "echo after")
    running = machine.qsub("alice", ["-N", "runs"], "trap '' TERM; echo begun; sleep 300\n")
    assert wait_until(lambda: machine.job(running)["substate"] == "42", 30)
    slow = machine.qsub("alice", ["-N", "slow"], "echo RAN\n")
    assert wait_until(lambda: machine.job(slow)["job_state"] == "R", 30)
    for job in (running, slow):
        machine.run_as("alice", ["qdel", job], check=True)
    machine.path("/scratch/alice/deleted").touch()
    assert [done(machine, job)["exit_status"] for job in (running, slow)] == ["271", "271"]
    assert machine.output(slow) == "after\n"
    assert machine.path("/scratch/alice/precancel").read_text() == "1001 /home/alice 11\n"
    machine.path(f"{MOM_PRIV}/epilogue.precancel").unlink()


def test_a_node_that_crashes_under_a_job(machine: Machine) -> None:
    job = machine.qsub("alice", TWO_NODES, "aprun -n 2 -N 1 -b sleep 300; echo code $?\n")
    assert wait_until(lambda: "sleep" in " ".join(machine.node(20).snapshot().processes), 30)
    machine.node(20).stop()
    assert done(machine, job)["exit_status"] == "0"
    assert machine.output(job).splitlines()[-1] == "code 137"
    assert wait_until(lambda: machine.node_states()[20] == "admindown", 30, 0.05)
    assert "Could not contact nid00020" in machine.path("/var/log/xtcheckhealth_log").read_text()
    assert fan_out(machine, "true")[1] == ["Reply (complete) from nid00021 exit code: 0"]
    machine.up(with_site=False)
    assert machine.node(20).running


def test_the_parts_of_a_machine_may_die_in_any_order(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "state").up(Settings(nodes=1), with_site=False)
    left = machine.popen_as("alice", ["sleep", "60"])
    holder, daemon = ProcessId.of(machine.login.pid), machine.daemon
    assert daemon is not None
    holder.kill()
    daemon.kill()
    assert holder.wait_gone(30) and daemon.wait_gone(30)
    machine.down()
    assert left.wait(30) in (-9, 0), "0 where `down` has reaped it"
    assert not machine.state.exists()


def test_state_survives_the_daemon(machine: Machine) -> None:
    held = machine.qsub("alice", ["-h"], "true\n")
    runs = machine.qsub("bob", TWO_NODES, "sleep 60\n")
    machine.wait_job(runs, "R")
    assert wait_until(lambda: machine.job(runs)["substate"] == "42", 30)
    machine.run_as("root", ["xtprocadmin", "-k", "s", "admindown", "-n", "22"])
    machine.set_fault("dead-node", node=22)
    daemon = machine.daemon
    assert daemon is not None
    daemon.kill()
    assert daemon.wait_gone(30)
    machine.up(with_site=False)
    assert machine.job(held)["job_state"] == "H"
    assert done(machine, runs)["exit_status"] == "271"
    assert machine.node_states()[22] == "admindown"
    assert [fault.name for fault in machine.faults()] == ["dead-node"]
    assert machine.run_as("root", ["apstat", "-r"]).stdout == " No reservations are present\n"
    machine.run_as("root", ["qdel", held])


def test_a_reservation_whose_mom_was_killed_in_the_prologue_is_released(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "state").up(Settings(nodes=1, orphan_delay=0.5), with_site=False)
    try:
        hook(machine, "prologue", "touch /tmp/begun; sleep 3")
        lost = machine.qsub("alice", [], "true\n")
        assert wait_until(machine.path("/tmp/begun").exists, 30)
        daemon = machine.daemon
        assert daemon is not None
        daemon.kill()
        assert daemon.wait_gone(30)
        machine.start_daemon()
        assert done(machine, lost)["exit_status"] == "271"
        assert done(machine, machine.qsub("bob", [], "true\n"))["exit_status"] == "0"
    finally:
        machine.down()


def test_down_leaves_the_host_as_it_was(tmp_path: Path) -> None:
    state = tmp_path / "state"
    before = mounts_of("self"), sorted(os.listdir("/etc")), sorted(os.listdir("/opt"))
    machine = Machine(state).up(Settings(nodes=2), with_site=False)
    machine.qsub("alice", [], "sleep 60\n")
    pids = [machine.login.pid, machine.nodes()[20].pid, machine.daemon.pid if machine.daemon else 0]
    processes = [ProcessId.of(pid) for pid in pids]
    with open(machine.state / "lustre/big", "wb") as big:
        big.truncate(1 << 20)
    machine.node(20).run(["sh", "-c", "losetup -f /scratch/big"])
    (device,) = (line.split()[0] for line in machine.node(20).snapshot().loops)
    processes[1].kill()  # a part that died
    machine.down()
    machine.down()
    assert not any(one.alive for one in processes)
    after = mounts_of("self"), sorted(os.listdir("/etc")), sorted(os.listdir("/opt"))
    assert after == before and not state.exists()
    backing = Path(f"/sys/block/{device}/loop/backing_file")
    assert not backing.exists() or not backing.read_text().strip().endswith("/big")
