"""`udi submit` on the machine: jobs whose users wrote no script."""

from __future__ import annotations

from tests.system.cray import Cray

_NODES = ("-l", "nodes=2:ppn=2")


def test_the_entry_point_and_a_command_on_all_slots(cray: Cray) -> None:
    job = cray.udi("alice", "submit", *_NODES, "tiny:1").stdout.strip()
    done = cray.ended(job)
    assert (done.status, done.output.splitlines()) == ("0", ['entered in /analysis: it\'s "here" one two'] * 4)
    words = ("--volume", "/scratch/alice:/data", "--workdir", "/data", "--env", "A=it's $HOME", *_NODES, "tiny:1")
    script = 'echo "$A in $PWD of $(cat /etc/marker)" "$@"'
    job = cray.udi("alice", "submit", *words, "--", "sh", "-c", script, "0", "a  b").stdout.strip()
    line = f"it's $HOME in /data of {cray.marker('tiny:1')} a  b"
    assert cray.ended(job).output.splitlines() == [line] * 4
    job = cray.udi("alice", "submit", "-l", "nodes=1", "tiny:1", "--", "sh", "-c", "exit 7").stdout.strip()
    assert cray.ended(job).status == "7"
    cray.assert_clean()


def test_one_who_may_not(cray: Cray) -> None:
    """The submit filter refuses, and its reason is what the user reads."""
    done = cray.udi("alice", "submit", *_NODES, "secret:1", code=1)
    assert (done.stdout, done.stderr.count("secret:1")) == ("", 1)
    assert done.stderr.splitlines()[-1] == "udi: the job was not submitted"


def test_nothing_is_submitted_by_print(cray: Cray) -> None:
    done = cray.udi("alice", "submit", "--print", *_NODES, "tiny:1", "--", "ls", "a b")
    assert done.stdout.splitlines()[0] == "qsub -N tiny-1 -l nodes=2:ppn=2 -v UDI=tiny:1 <<'END'"
    assert done.stdout.splitlines()[-2:] == ["exec aprun -q -B -b /opt/udi/bin/udi-run -- ls 'a b'", "END"]
