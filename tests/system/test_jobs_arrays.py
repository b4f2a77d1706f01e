"""Job arrays: every task is a job of its own, with the image that the array was submitted with."""

from __future__ import annotations

from tests.system.cray import Cray
from tests.system.scripts import expected, ranks

ALICE = 1001
GO = "/scratch/alice/array"
BESIDE = f"""touch {GO}-$PBS_ARRAYID
while [ ! -e {GO}-1 ] || [ ! -e {GO}-2 ] || [ ! -e {GO}-3 ]; do sleep 0.05; done
echo $PBS_JOBID $PBS_JOBNAME
"""


def array(cray: Cray, script: str, tasks: str, *options: str, image: str = "tiny:1") -> list[str]:
    """Submit an array of tasks of one node; the ids of its tasks."""
    return cray.tasks(cray.qsub("alice", script, "-t", tasks, "-N", "part", *options, image=image, nodes=1))


def test_tasks_run_beside_each_other_in_the_image(cray: Cray) -> None:
    """`apstat` lists the reservation of each by the array's number alone, so only its detail tells which is whose."""
    tasks = array(cray, BESIDE + ranks(1), "1-3")
    for index, task in enumerate(tasks, 1):
        ended = cray.ended(task)
        assert (ended.status, ended.error) == ("0", ""), ended
        number = task.partition("[")[0]
        assert cray.machine.path(f"/home/alice/part.o{number}-{index}").read_text() == ended.output
        seen = sorted([f"{task} part-{index}", *expected(cray.marker("tiny:1"), ALICE, 1)])
        assert sorted(ended.output.splitlines()) == seen
    for path in cray.machine.path("/scratch/alice").glob("array-*"):
        path.unlink()
    cray.assert_clean()


def test_a_tag_that_moves_moves_no_task(cray: Cray) -> None:
    cray.pull("alice", "app:old", content="array")
    cray.pull("alice", "app:9", content="array")
    tasks = array(cray, ranks(1), "4-5%1", "-h", image="app:9")
    cray.pull("alice", "app:9", content="array later")
    cray.machine.run_as("alice", ["qrls", f"{tasks[0].partition('[')[0]}[].sdb"], check=True)
    for task in tasks:
        assert sorted(cray.ended(task, "C").output.splitlines()) == expected(cray.marker("array"), ALICE, 1)
    cray.assert_clean()


def test_one_task_can_be_deleted_and_then_the_others(cray: Cray) -> None:
    tasks = array(cray, "aprun -q -n 1 -b sleep 60\n", "1-3")
    for task in tasks:
        cray.running(task)
    nodes = cray.roots()
    assert len(nodes) == 3
    cray.machine.run_as("alice", ["qdel", tasks[1]], check=True)
    assert cray.ended(tasks[1]).status == "271"
    assert len(cray.roots()) == 2
    cray.machine.run_as("alice", ["qdel", tasks[0].replace("[1]", "[]")], check=True)
    assert [cray.ended(task).status for task in tasks] == ["271"] * 3
    cray.assert_clean()


def test_the_filter_refuses_an_array_once(cray: Cray) -> None:
    line = cray.refused("alice", "-t", "1-3", "-v", "UDI=absent:1")
    assert line.startswith("udi-submit-filter: image 'absent:1' not found, or you do not have access to it")
