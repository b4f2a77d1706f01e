"""Which image a job gets: the one that its tag stood for at submission, as far as its user may use it."""

from __future__ import annotations

from tests.system.cray import Cray
from tests.system.endings import deleted_with
from tests.system.scripts import expected, ranks

ALICE = 1001


def held_job(cray: Cray, image: str) -> str:
    return cray.qsub("alice", ranks(), "-h", image=image)


def released(cray: Cray, job: str) -> str:
    cray.machine.run_as("alice", ["qrls", job], check=True)
    return cray.ended(job, "C").status


def test_a_tag_that_moves_after_submission_does_not_move_the_job(cray: Cray) -> None:
    cray.pull("alice", "app:old", content="first")
    cray.pull("alice", "app:1", content="first")
    job = held_job(cray, "app:1")
    cray.pull("alice", "app:1", content="second")
    later = held_job(cray, "app:1")
    assert (released(cray, job), released(cray, later)) == ("0", "0")
    assert sorted(cray.text(job, "Output").splitlines()) == expected(cray.marker("first"), ALICE)
    assert sorted(cray.text(later, "Output").splitlines()) == expected(cray.marker("second"), ALICE)
    assert cray.text(job, "Error") == ""
    cray.assert_clean()


def test_the_image_of_a_queued_job_stays_without_a_name(cray: Cray) -> None:
    cray.pull("alice", "app:4", content="sixth")
    job = held_job(cray, "app:4")
    cray.pull("alice", "app:4", content="seventh")
    assert released(cray, job) == "0"
    assert sorted(cray.text(job, "Output").splitlines()) == expected(cray.marker("sixth"), ALICE)
    cray.assert_clean()


def test_a_pinned_image_that_is_gone_is_told(cray: Cray) -> None:
    """Without the pin of its submission, nothing keeps the image: the store lets it go with its last name."""
    cray.pull("alice", "app:2", content="third")
    with cray.configured({"gateway": {"pull_at_submission": False}}):
        job = held_job(cray, "app:2")
    for pin in cray.machine.path("/scratch/udi/refs").glob(f"id:{cray.ids['third']}~*"):
        pin.unlink()
    cray.pull("alice", "app:2", content="fourth")
    assert released(cray, job) == "0"
    assert sorted(cray.text(job, "Output").splitlines()) == expected(cray.marker("fourth"), ALICE)
    assert cray.text(job, "Error") == (
        "udi-prologue: the image pinned for app:2 at submission no longer exists; using the current app:2\n"
    )
    cray.assert_clean()


def test_a_job_whose_image_was_removed_is_deleted(cray: Cray) -> None:
    cray.pull("alice", "app:3", content="fifth")
    job = held_job(cray, "app:3")
    cray.udi("alice", "rm", "app:3")
    cray.machine.run_as("alice", ["qrls", job], check=True)
    deleted_with(cray.ended(job, "C"), "image 'app:3' not found, or you do not have access to it")
    cray.assert_clean()


def test_a_forged_pin_is_taken_out_by_the_filter(cray: Cray) -> None:
    ended = cray.run("alice", f"#UDI pinned tiny:1 {cray.ids['secret:1']}\n" + ranks())
    assert sorted(ended.output.splitlines()) == expected(cray.marker("tiny:1"), ALICE)
    assert ended.error == ""
    cray.assert_clean()


def test_a_forged_pin_gives_nobody_the_image_of_another(cray: Cray) -> None:
    """Nor by its id, nor under a name of the other user; and what it names is not told apart from nothing."""
    with cray.without_filter():
        ended = cray.run("alice", f"#UDI pinned tiny:1 {cray.ids['secret:1']}\n" + ranks())
        nothing = cray.run("alice", f"#UDI pinned tiny:1 {'0' * 64}\n" + ranks())
        named = cray.run("alice", f"#UDI pinned secret:1 {cray.ids['tiny:1']}\n" + ranks(), image="secret:1")
    assert sorted(ended.output.splitlines()) == expected(cray.marker("tiny:1"), ALICE)
    assert ended.error == nothing.error != ""
    assert cray.marker("secret:1") not in named.output
    cray.assert_clean()


def test_a_variable_that_qsub_lost_is_told(cray: Cray) -> None:
    """`qsub -v FOO,UDI=…` with FOO unset: some versions lose the first letter of what follows (cray-reference T62)."""
    with cray.without_filter():
        ended = cray.run(
            "alice", f"#UDI pinned tiny:1 {cray.ids['tiny:1']}\n" + ranks(), image="", more="FOO=,DI=tiny:1"
        )
    deleted_with(
        ended,
        "the job was submitted with image tiny:1, but qsub lost its variable UDI",
        "submit with one list: qsub -v UDI=tiny:1,...",
    )
    cray.assert_clean()


def test_an_unset_variable_before_the_image_costs_nothing_where_qsub_keeps_its_letters(cray: Cray) -> None:
    job = cray.machine.qsub("alice", ["-v", "FOO,UDI=tiny:1", "-l", "nodes=2:ppn=2"], ranks())
    assert sorted(cray.ended(job).output.splitlines()) == expected(cray.marker("tiny:1"), ALICE)
    cray.assert_clean()
