"""`udi-admin` on a real Slurm: what it installed is right, and drained nodes come back by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slurmsim import site
from slurmsim.cluster import LOGIN
from tests.slurm.cluster import LOOK, Slurm
from udi import durable
from xcsim.processes import wait_until
from xcsim.site import Tables

ADMIN = "/opt/udi/bin/udi-admin"
NODEHEALTH = "/opt/udi/bin/udi-nodehealth"


def admin(slurm: Slurm, host: str, *words: str, program: str = ADMIN) -> tuple[int, str, str]:
    done = slurm.cluster.root(host, program, *words, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("host", [LOGIN, "n1"])
def test_what_is_installed_passes_the_check(slurm: Slurm, host: str) -> None:
    code, out, err = admin(slurm, host, "check-config")
    levels = {line.split()[0] for line in out.splitlines()[:-1]}
    assert (code, levels, err) == (0, {"ok"}, ""), out
    assert out.splitlines()[-1].startswith("/etc/udi/udi.toml on ") and out.endswith(": OK\n")


def test_a_node_is_examined_by_itself(slurm: Slurm) -> None:
    """With native Slurm nothing reaches another node as root: it is run there."""
    code, out, err = admin(slurm, "n1", "check-config", "--nodes", "n1", "--json")
    rows = [row for row in json.loads(out)["rows"] if row["nodes"]]
    assert (code, err) == (0, "")
    assert {row["check"] for row in rows} >= {"node.start", "node.zip", "node.store", "node.root"}
    assert {(row["level"], *row["nodes"]) for row in rows} == {("ok", "n1")}, rows
    code, _, err = admin(slurm, "n1", "check-config", "--nodes", "n2")
    assert code == 2 and "this node is n1, not n2" in err


def test_a_plugin_of_another_slurm_is_found_before_a_user_finds_it(slurm: Slurm) -> None:
    """Slurm refuses a plugin whose version is not its own: here, one that is no plugin at all."""
    path = slurm.cluster.directory / "opt/lib/udi.so"
    plugin = path.read_bytes()
    path.write_bytes(b"not a program")
    try:
        [message] = findings(slurm, LOGIN)
        assert "srun does not load /opt/udi/lib/udi.so" in message
    finally:
        path.write_bytes(plugin)


@contextmanager
def replaced(path: Path, content: bytes | None) -> Iterator[None]:
    """A file of the cluster's with other content, or missing, for a while; replaced as an editor would."""
    present, mode = path.read_bytes(), path.stat().st_mode & 0o7777
    try:
        if content is None:
            path.unlink()
        else:
            durable.write(str(path), content, mode=mode)
        yield
    finally:
        durable.write(str(path), present, mode=mode)


def findings(slurm: Slurm, host: str) -> list[str]:
    """The errors of check-config."""
    code, out, err = admin(slurm, host, "check-config", "--json")
    assert code == 2, err
    return [row["what"] for row in json.loads(out)["rows"] if row["level"] == "error"]


@pytest.mark.parametrize("host", [LOGIN, "n1"])
def test_the_plugin_is_missing(slurm: Slurm, host: str) -> None:
    with replaced(slurm.cluster.directory / "opt/lib/udi.so", None):
        found = findings(slurm, host)
        assert "slurm.plugin: /opt/udi/lib/udi.so: no such file or directory" in found


@pytest.mark.parametrize("host", [LOGIN, "n1"])
@pytest.mark.parametrize(
    "wrong", [("batch=inside", "batch=outside"), ("required", "optional"), ("required", "# required")]
)
def test_the_line_of_the_plugin_is_not_the_one_of_the_configuration(
    slurm: Slurm, host: str, wrong: tuple[str, str]
) -> None:
    path = slurm.cluster.directory / "etc-slurm/plugstack.conf"
    ours = path.read_text()
    assert wrong[0] in ours
    with replaced(path, ours.replace(*wrong).encode()):
        [message] = findings(slurm, host)
        assert message == f"/etc/slurm/plugstack.conf must have one line for the plugin: {ours.splitlines()[-1]}"


@pytest.mark.parametrize(
    ("without", "given", "said"),
    [
        ("Prolog", "", "Prolog is not set"),
        ("Epilog", "", "Epilog is not set"),
        ("PrologFlags", "", "PrologFlags is not set"),
        ("PrologEpilogTimeout", "PrologEpilogTimeout=5", "PrologEpilogTimeout is 5"),
        ("BatchStartTimeout", "", "BatchStartTimeout is 10 sec"),
        ("HealthCheckProgram", "HealthCheckProgram=/bin/true", "HealthCheckProgram is /bin/true"),
    ],
)
def test_slurm_conf_without_one_of_our_lines(slurm: Slurm, without: str, given: str, said: str) -> None:
    path = slurm.cluster.directory / "etc-slurm/slurm.conf"
    kept = [line for line in path.read_text().splitlines() if not line.startswith(f"{without}=")]
    try:
        with replaced(path, "\n".join([*kept, given, ""]).encode()):
            slurm.cluster.root(LOGIN, "scontrol", "reconfigure")
            assert findings(slurm, LOGIN) == [f"slurm.conf: {said}"]
    finally:
        slurm.cluster.root(LOGIN, "scontrol", "reconfigure")


def held(slurm: Slurm, job: str) -> list[str]:
    """What status has of a job that is held."""
    code, out, err = admin(slurm, LOGIN, "status")
    assert code == 0, err
    return [line for line in out.splitlines() if line.startswith(f"job {job}: held")]


def test_a_job_that_is_held_is_shown_with_the_reason_until_it_runs(slurm: Slurm) -> None:
    """Its root cannot be made by a fault of the site."""
    broken: Tables = {"node": {"python": ["/bin/false"]}, "slurm": {"max_starts": 1}}
    site.configure(slurm.cluster, broken)
    try:
        job = slurm.submit("alice", LOOK, "--image=tiny:1", "-w", "n1")
        assert wait_until(lambda: bool(held(slurm, job)), 60, 0.1), slurm.state(job)
    finally:
        site.configure(slurm.cluster, {})
    [line] = held(slurm, job)
    assert "the node software ended with exit code 1" in line
    slurm.cluster.root(LOGIN, "scontrol", "release", job)
    slurm.await_state(job, "COMPLETED")
    assert slurm.output("alice", job).splitlines()[-1].split(" ")[1] == slurm.marker("tiny:1")
    assert f"job {job}" not in admin(slurm, LOGIN, "status")[1]


def test_a_node_that_is_not_clean_comes_back_by_recover(slurm: Slurm) -> None:
    """What a job left that Slurm no longer knows; the node's own root alone can remove it."""
    mounted = "mkdir -p /var/udi/777777 && mount -t tmpfs udi:777777:1001:made /var/udi/777777"
    slurm.cluster.root("n1", "sh", "-c", mounted)
    code, out, _ = admin(slurm, "n1", "check", program=NODEHEALTH)
    assert code == 1 and "777777" in out
    assert admin(slurm, LOGIN, "admindown", "--reason", "seen by a test", "n1", program=NODEHEALTH)[0] == 0
    code, out, _ = admin(slurm, LOGIN, "status")
    assert code == 0 and "n1: drain+idle, dirty since" in out and ": seen by a test" in out
    code, _, err = admin(slurm, LOGIN, "recover", "n1")
    assert code == 2 and "this node is login, not n1" in err
    assert admin(slurm, "n1", "recover", "n1")[:2] == (0, "n1: took down 777777; clean and in service\n")
    assert slurm.cluster.states()["n1"] == "idle"
    assert slurm.left("n1") == []
    assert admin(slurm, "n1", "check", program=NODEHEALTH)[:2] == (0, "udi: clean\n")


def test_a_node_that_others_drained_stays_so(slurm: Slurm) -> None:
    slurm.cluster.root(LOGIN, "scontrol", "update", "nodename=n2", "state=drain", "reason=bad fan")
    code, out, _ = admin(slurm, "n2", "recover", "n2")
    assert (code, out) == (8, "n2: drained by others: bad fan\n")
    assert slurm.cluster.reason("n2") == "bad fan"


def test_a_job_of_two_nodes_that_was_not_pinned(slurm: Slurm) -> None:
    """Both have the image that the first of them found; each host with hooks shows both."""
    plans = slurm.cluster.directory / "scratch/udi/plans"
    script = "touch /scratch/alice/up; until [ -e /scratch/alice/go ]; do sleep 0.05; done"
    with slurm.answering("image tiny:1\nid -\nvolumes \nmodules \nrun \nend\n"):
        job = slurm.submit("alice", script, "-N2", "--image=tiny:1")
    slurm.await_file(slurm.scratch("alice") / "up")
    assert [path.read_text() for path in plans.glob(f"{job}.0.*")] == [f"{slurm.ids['tiny:1']}\n"]
    for host in ("n1", "n2"):
        [shown] = json.loads(admin(slurm, host, "status", "--json")[1])["jobs"]
        assert (shown["job"], shown["nodes"], shown["image_id"]) == (job, ["n1", "n2"], slurm.ids["tiny:1"])
        assert "it runs in its image on n[1-2]" in admin(slurm, host, "job", job)[1]
    (slurm.scratch("alice") / "go").touch()
    slurm.await_state(job, "COMPLETED")
    slurm.await_clean()
    assert list(plans.iterdir()) == []


def test_a_running_job_is_busy_and_not_left(slurm: Slurm) -> None:
    script = "touch /scratch/alice/up; until [ -e /scratch/alice/go ]; do sleep 0.05; done"
    job = slurm.submit("alice", script, "-w", "n1", "--image=tiny:1")
    slurm.await_file(slurm.scratch("alice") / "up")
    assert admin(slurm, "n1", "check", program=NODEHEALTH)[:2] == (0, f"udi: busy with {job}\n")
    code, out, _ = admin(slurm, "n1", "status", "--json")
    [shown] = json.loads(out)["jobs"]
    assert (code, shown["job"], shown["user"], shown["image"], shown["phase"]) == (0, job, "alice", "tiny:1", "ready")
    assert json.loads(admin(slurm, "n2", "status", "--json")[1])["jobs"] == [], "as the help says"
    assert admin(slurm, "n1", "recover", "n1")[:2] == (0, "n1: clean and in service\n")
    code, _, err = admin(slurm, "n1", "takedown", job)
    assert code == 2 and f"job {job} runs on this node" in err
    assert slurm.roots("n1") == {job}
    (slurm.scratch("alice") / "go").touch()
    slurm.await_state(job, "COMPLETED")


def test_takedown_of_a_job_whose_epilog_never_ran(slurm: Slurm) -> None:
    slurm.cluster.root("n2", "sh", "-c", "mkdir -p /var/udi/88 && mount -t tmpfs udi:88:1001:made /var/udi/88")
    assert admin(slurm, "n1", "takedown", "88")[0] == 3
    assert admin(slurm, "n2", "takedown", "88")[:2] == (0, "job 88: clean\n")
    assert slurm.left("n2") == []


def test_an_image_on_this_node_without_a_job(slurm: Slurm) -> None:
    code, out, err = admin(slurm, "n1", "try", "--json", "--node", "n1", "--user", "alice", "tiny:1", "--", "id", "-u")
    found = json.loads(out)
    assert (code, found["output"], found["exit_code"]) == (0, "1001\n", 0), err
    assert [step["step"] for step in found["steps"]] == ["check", "set up", "run", "tear down", "check again"]
    assert slurm.left("n1") == []
    code, _, err = admin(slurm, "n1", "try", "--node", "n2", "tiny:1")
    assert code == 2 and "this node is n1, not n2" in err


def test_the_story_of_a_job_on_its_node(slurm: Slurm) -> None:
    job = slurm.submit("alice", "true", "-w", "n1", "--image=tiny:1")
    slurm.await_state(job, "COMPLETED")
    assert wait_until(lambda: slurm.left("n1") == [], 30, 0.1)
    code, out, err = admin(slurm, "n1", "job", "--json", job)
    found = json.loads(out)
    assert (code, found["user"], found["manager"]["fate"]) == (0, "alice", "ended"), err
    assert "ran in its image and was taken down" in found["why"]["cause"] and "ms" in found["setup"]
    assert admin(slurm, "n1", "job", "987654")[0] == 3
