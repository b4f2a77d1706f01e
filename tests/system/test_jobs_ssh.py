"""The private sshd in whole jobs: a launcher reaches every node of its own job, and no node of another."""

from __future__ import annotations

from tests.system.cray import Cray
from xcsim.network import address

SSH = {"ssh": {"enabled": True}}
LAUNCH = """aprun -q -n 1 -N 1 -b /opt/udi/bin/udi-run sh -c '
for node in $(cat /var/nodelist | sort -u); do
    ssh $node "set -- \\$SSH_CONNECTION; echo \\$3 in \\$(cat /etc/marker) as \\$(id -u), greeted \\$GREETING" &
done
wait'
echo code $?
"""
WAIT = """aprun -q -n 2 -N 1 -b sh -c 'while [ ! -e {home}/go ]; do sleep 0.1; done'
"""


def test_a_launcher_starts_ranks_on_every_node_of_its_job(cray: Cray) -> None:
    with cray.configured(SSH):
        done = cray.run("alice", LAUNCH, nodes=4)
    nids = list(cray.machine.nodes())
    ranks = [f'{address(nid)} in {cray.marker("tiny:1")} as 1001, greeted it\'s "here"' for nid in nids]
    assert sorted(done.output.splitlines()) == sorted([*ranks, "code 0"]), done.error
    assert done.error == ""
    assert not any("ended" in line for line in done.log), done.log


def test_two_jobs_side_by_side_cannot_reach_each_other(cray: Cray) -> None:
    """Bob's programs know neither the names of alice's nodes nor a key for them; nor does alice's second job."""
    homes = {user: cray.machine.path(f"/home/{user}") for user in ("alice", "bob")}
    with cray.configured(SSH):
        first = cray.qsub("alice", WAIT.format(home="/home/alice"))
        cray.running(first)
        taken = [nid for nid in cray.machine.nodes() if _sshd_runs(cray, nid)]
        assert len(taken) == 2
        tries = "\n".join(f"ssh -l alice {address(nid)} id; ssh -l bob {address(nid)} id" for nid in taken)
        by_name = f"ssh nid{taken[0]:05d} id"
        for user, image, more in (("bob", "tools:1", by_name), ("alice", "tiny:1", "")):
            script = f"aprun -q -n 1 -b /opt/udi/bin/udi-run sh -c '{tries}\n{more}' < /dev/null 2>&1\n"
            done = cray.run(user, script, image=image)
            assert "uid=" not in done.output + done.error
            assert done.output.count("is not a node of this job") == 4, done.output
        (homes["alice"] / "go").touch()
        cray.ended(first)
        (homes["alice"] / "go").unlink()


def test_a_prologue_without_the_programs_says_what_is_missing(cray: Cray) -> None:
    with cray.configured({"ssh": {"enabled": True}, "install": {"ssh": "/opt/udi/none"}}):
        done = cray.run("alice")
    assert done.state in "CH"
    assert any("/opt/udi/none/sshkey" in line for line in done.log), done.log


def _sshd_runs(cray: Cray, nid: int) -> bool:
    return "sshd" in cray.machine.node(nid).run(["/bin/ps", "-o", "comm"]).stdout
