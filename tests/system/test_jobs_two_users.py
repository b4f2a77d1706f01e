"""Jobs of two users: at the same time on different nodes, and one after the other on the same ones."""

from __future__ import annotations

import re

from tests.system.cray import A, B, C, Cray, D
from tests.system.scripts import expected, ranks

ALICE, BOB = 1001, 1002
INSIDE = """
echo begin; cat /etc/marker; id -u
echo accounts $(cut -d: -f1 /etc/passwd | tr "\\n" " ")
echo volumes $(ls /output 2>&1)
echo tmp $(ls /tmp)
echo mine >/tmp/of-$(id -u)
echo bob $(cat /scratch/bob/private 2>&1)
"""


def looped(name: str, uid: int) -> str:
    """A script that runs until it is told to go on; then it looks again."""
    sign = f"/scratch/{name}"
    return f"""rm -f {sign}/go
    aprun -q -n 2 -N 1 -b sh -c '{INSIDE}'
    touch {sign}/up
    while [ ! -e {sign}/go ]; do sleep 0.05; done
    """ + ranks(2, f"test -s /tmp/of-{uid} && echo rank $ALPS_APP_PE in $(cat /etc/marker) as $(id -u)")


def begin(cray: Cray, name: str, uid: int, image: str) -> str:
    cray.machine.path(f"/scratch/{name}/up").unlink(missing_ok=True)
    cray.machine.path(f"/scratch/{name}/go").unlink(missing_ok=True)
    job = cray.qsub(name, looped(name, uid), image=image, more=f"UDI_VOLUMES=/scratch/{name}:/output")
    cray.running(job, f"/scratch/{name}/up")
    return job


def sources_of_roots(cray: Cray, nid: int) -> set[str]:
    """The jobs and users that the mounts of a node name."""
    mounts = cray.picture(nid).mounts
    return {found[1] for line in mounts if (found := re.search(r" udi:([^ ]+:\d+):", line))}


def test_at_the_same_time_on_different_nodes(cray: Cray) -> None:
    private = cray.machine.path("/scratch/bob/private")
    private.write_text("of bob alone\n")
    alices = begin(cray, "alice", ALICE, "tiny:1")
    bobs = begin(cray, "bob", BOB, "secret:1")
    assert cray.roots() == [A, B, C, D]
    of_alice, of_bob = ({f"{job}:{uid}"} for job, uid in ((alices, ALICE), (bobs, BOB)))
    assert [sources_of_roots(cray, nid) for nid in (A, B, C, D)] == [of_alice, of_alice, of_bob, of_bob]
    before = [cray.picture(nid) for nid in (C, D)]

    cray.machine.path("/scratch/alice/go").touch()
    ended = cray.ended(alices)
    assert "of bob alone" not in ended.output and "Permission denied" in ended.output
    assert cray.marker("secret:1") not in ended.output and "bob" not in accounts(ended.output)
    assert sorted(ended.output.splitlines()[-5:]) == expected(cray.marker("tiny:1"), ALICE)
    cray.assert_mounts_gone(A, B)
    assert [one.mounts for one in before] == [cray.picture(nid).mounts for nid in (C, D)]

    cray.machine.path("/scratch/bob/go").touch()
    ended = cray.ended(bobs)
    assert ended.output.count("bob of bob alone") == 2 and "alice" not in accounts(ended.output)
    assert sorted(ended.output.splitlines()[-5:]) == expected(cray.marker("secret:1"), BOB)
    cray.assert_clean()


def accounts(output: str) -> set[str]:
    """Who is in the roots' passwd files."""
    return {name for line in output.splitlines() if line.startswith("accounts ") for name in line.split()[1:]}


def test_one_after_the_other_on_the_same_nodes(cray: Cray) -> None:
    for name, image in (("alice", "tiny:1"), ("bob", "secret:1"), ("alice", "tools:1")):
        script = f"aprun -q -n 2 -N 1 -b sh -c '{INSIDE}'\n"
        ended = cray.run(name, script, image=image, more=f"UDI_VOLUMES=/scratch/{name}:/output")
        assert "tmp of-" not in ended.output and ended.output.count("\ntmp\n") == 2
        assert ended.output.count(cray.marker(image)) == 2
        assert not accounts(ended.output) & ({"alice", "bob"} - {name})
        cray.assert_clean()


def on_node(cray: Cray) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Mounts and processes of the first node. Its files would be those of all file systems, which others may write."""
    picture = cray.picture(A)
    return picture.mounts, picture.processes


def test_teardown_of_one_job_leaves_the_root_of_another(cray: Cray) -> None:
    """Sent by hand to the other's nodes, as a mistaken operator or a late command would."""
    job = begin(cray, "alice", ALICE, "tiny:1")
    before = on_node(cray)
    number, server = job.split(".")
    for other in (f"{number}0.{server}", f"{number[:-1] or 9}.{server}", f"{int(number) + 1}.{server}", "0"):
        said = cray.tear_down(A, other)
        assert f" {A} ok " in said, said
        assert on_node(cray) == before
    cray.machine.path("/scratch/alice/go").touch()
    ended = cray.ended(job)
    assert sorted(ended.output.splitlines()[-5:]) == expected(cray.marker("tiny:1"), ALICE)
    cray.assert_clean()


def test_set_up_for_one_job_is_refused_where_another_has_its_root(cray: Cray) -> None:
    job = begin(cray, "alice", ALICE, "tiny:1")
    before = on_node(cray)
    [plan] = [cray.machine.path(f"/scratch/udi/plans/{name}") for name in cray.plans()]
    other = plan.read_text().replace(f"job {job}\n", "job 999.sdb\n")
    said = cray.set_up(A, other)
    assert f" {A} failed " in said and job in said
    assert on_node(cray) == before
    cray.machine.path("/scratch/alice/go").touch()
    assert cray.ended(job).status == "0"
    cray.assert_clean()
