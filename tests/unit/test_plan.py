"""Node plan, record and report: what is written is read back, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot.errors import SetupFailed, UdiError
from udiroot.plan import NodePlan, NodeRange, PlanFile, PlanMount, PlanStep, PlanUser, escape, unescape
from udiroot.plan_ssh import PlanSsh, cluster_address
from udiroot.record import Record
from udiroot.report import NodeReport

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))
NAME = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1).filter(
    lambda name: name not in (".", "..")
)
PATH = st.lists(NAME, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
MOUNT = st.builds(PlanMount, PATH, PATH, st.booleans())
STEP = st.one_of(
    st.builds(PlanStep, st.sampled_from(["before", "after"]), st.just("folder"), st.just(""), PATH),
    st.builds(PlanStep, st.sampled_from(["before", "after"]), st.just("link"), TEXT.filter(bool), PATH),
    st.builds(PlanStep, st.sampled_from(["before", "after"]), st.just("bind"), PATH, PATH),
)
IDS = st.integers(0, 2**31)
SSH = st.none() | st.builds(PlanSsh, PATH, st.integers(1024, 65535), st.just("10.128.0.1"), TEXT, TEXT)


SSH_LINE = "ssh /opt/ssh {} 10.128.0.{} key host\n"


def plan(**changes: object) -> NodePlan:
    values: dict[str, object] = {
        "job": "1.sdb",
        "user": PlanUser("alice", 1001, 1001, (1001,), "/home/alice", "/bin/sh"),
        "store_uid": 990,
        "store_gid": 990,
        "root": "/var/udi",
        "run": "/var/run/udi",
        "image_format": "squashfs",
        "image_path": "/lus/udi/images/x.squashfs",
        "image_id": "ab" * 32,
        "tmp_bytes": 1 << 20,
        "deadline": 60,
    }
    return NodePlan(**(values | changes))  # type: ignore[arg-type]


@given(
    st.builds(PlanUser, TEXT, IDS, IDS, st.lists(IDS, min_size=1).map(tuple), TEXT, TEXT),
    st.lists(MOUNT).map(tuple),
    st.lists(st.builds(PlanFile, NAME, st.integers(0, 0o7777), TEXT)).map(tuple),
    st.lists(st.builds(lambda a, b, c: NodeRange(a, a + b, c), IDS, st.integers(0, 999), st.integers(1, 64))).map(
        tuple
    ),
    st.lists(PATH).map(tuple),
    SSH,
)
def test_every_plan_is_read_back(
    user: PlanUser,
    mounts: tuple[PlanMount, ...],
    files: tuple[PlanFile, ...],
    nodes: tuple[NodeRange, ...],
    modules: tuple[str, ...],
    ssh: PlanSsh | None,
) -> None:
    made = plan(user=user, volumes=mounts, sites=mounts, etc=files, nodes=nodes, modules=modules, ssh=ssh)
    text = made.text()
    assert text.isascii()
    assert NodePlan.parse(text.encode()).text() == text


@given(TEXT)
def test_escaping(text: str) -> None:
    field = escape(text)
    assert " " not in field
    assert "\n" not in field
    assert unescape(field) == text


@given(st.binary(max_size=400))
def test_garbage_is_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(SetupFailed, match=r"^plan: "):
        NodePlan.parse(data)


@given(st.data())
def test_a_plan_with_a_line_changed_is_refused_or_another_plan(data: st.DataObject) -> None:
    lines = plan(volumes=(PlanMount("/a", "/b", False),)).text().split("\n")
    number = data.draw(st.integers(0, len(lines) - 1))
    lines[number] = data.draw(st.text(st.characters(max_codepoint=126), max_size=60))
    text = "\n".join(lines)
    try:
        again = NodePlan.parse(text.encode())
    except UdiError:
        return
    NodePlan.parse(again.text().encode())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("udi-plan 1", "udi-plan 2"), "this node reads 'udi-plan 1'"),
        (lambda text: text[:-5], "cut off"),
        (lambda text: text.replace("tmp ", "temp "), "line 8 is not understood"),
        (lambda text: text.replace("job 1.sdb", "job 1.sdb\njob 2.sdb"), "a second time"),
        (lambda text: text.replace("deadline 60\n", ""), "no line for deadline"),
        (lambda text: text.replace("root /var/udi", "root /var/../etc"), "not a plain absolute path"),
        (lambda text: text.replace("image squashfs", "image cramfs"), "none of squashfs"),
        (lambda text: text.replace("job 1.sdb", "job %ZZ"), "badly escaped"),
        (lambda text: text.replace("end\n", "module loop.ko\nend\n"), "not a plain absolute path"),
        (lambda text: text.replace("end\n", "step now folder % /x\nend\n"), "not a step"),
        (lambda text: text.replace("end\n", "step after run /bin/x /x\nend\n"), "not a step"),
        (lambda text: text.replace("end\n", "step after folder /a /x\nend\n"), "not a step"),
        (lambda text: text.replace("end\n", "step after bind ../a /x\nend\n"), "not a plain absolute path"),
        (lambda text: text.replace("end\n", f"{SSH_LINE.format(22, 1)}end\n"), "22 is not a port that a user may"),
        (lambda text: text.replace("end\n", f"{SSH_LINE.format(1204, 256)}end\n"), "not an IPv4 address"),
        (lambda text: text.replace("end\n", "ssh /opt/ssh 1204 10.128.0.1 key\nend\n"), "is not understood"),
    ],
)
def test_what_is_wrong_is_named(change: object, words: str) -> None:
    assert callable(change)
    with pytest.raises(SetupFailed, match=words):
        NodePlan.parse(change(plan().text()).encode())


@given(IDS, st.integers(0, 255), st.integers(0, 10**6), TEXT)
def test_every_report_fits_one_line_and_is_read_back(nid: int, code: int, milliseconds: int, words: str) -> None:
    line = NodeReport(nid, code, milliseconds, words).line("ab" * 16)
    assert len(line.encode()) < 512
    assert line.count("\n") == 1
    read = NodeReport.parse(line, "ab" * 16)
    assert read is not None
    assert (read.nid, read.code, read.milliseconds) == (nid, code, milliseconds)
    assert NodeReport.parse(line, "cd" * 16) is None


@given(TEXT)
def test_other_lines_are_no_reports(text: str) -> None:
    assert NodeReport.parse(f"UDI-REPORT {text}", "ab" * 16) is None
    assert NodeReport.parse(text, "ab" * 16) is None


@given(TEXT, IDS, PATH, st.booleans(), st.integers(0, 200))
def test_a_record_is_read_back_and_a_cut_one_is_none(job: str, uid: int, path: str, made: bool, length: int) -> None:
    record = Record(
        job=job,
        uid=uid,
        root=path,
        image=path,
        pid=1,
        start=2,
        since=3,
        boot="b",
        made=made,
        modules=("loop",),
        sshd=(7, 8) if made else None,
    )
    text = record.text()
    again = Record.parse(text.encode())
    assert again is not None
    assert again.text() == text
    assert again.sshd == record.sshd
    if length < len(text):
        assert Record.parse(text[:length].encode()) is None


@pytest.mark.parametrize(
    ("nid", "address"), [(0, "10.128.0.1"), (12, "10.128.0.13"), (255, "10.128.1.0"), (100020, "10.129.134.181")]
)
def test_cluster_addresses_follow_the_nids(nid: int, address: str) -> None:
    assert cluster_address("10.128.0.1", nid) == address


def test_addresses_end_somewhere() -> None:
    with pytest.raises(SetupFailed, match="no address is left for nid 1 "):
        cluster_address("255.255.255.255", 1)
