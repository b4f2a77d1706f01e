"""Node plan and record: what is written is read back, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot.errors import SetupFailed, UdiError
from udiroot.fields import escape, unescape
from udiroot.plan import NodePlan, NodeRun, PlanFile, PlanMount, PlanStep, PlanUser
from udiroot.plan_ssh import PlanSsh
from udiroot.record import Record

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))
NAME = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1).filter(
    lambda name: name not in (".", "..")
)
PATH = st.lists(NAME, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
MOUNT = st.builds(PlanMount, PATH, PATH, st.booleans())
STEP = st.one_of(
    st.builds(PlanStep, st.sampled_from(["before", "after"]), st.just("directory"), st.just(""), PATH),
    st.builds(PlanStep, st.sampled_from(["before", "after"]), st.just("link"), TEXT.filter(bool), PATH),
    st.builds(PlanStep, st.sampled_from(["before", "after"]), st.just("bind"), PATH, PATH),
)
IDS = st.integers(0, 2**31)
SSH = st.none() | st.builds(PlanSsh, PATH, st.integers(1024, 65535), TEXT, TEXT)
TOKEN = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
ADDRESS = st.ip_addresses().map(str)


@st.composite
def node_runs(draw: st.DrawFn) -> NodeRun:
    tokens = draw(st.lists(TOKEN, min_size=1, max_size=5))
    names = draw(st.lists(TOKEN, min_size=len(tokens), max_size=len(tokens)))
    addresses = draw(st.just([]) | st.lists(ADDRESS, min_size=len(tokens), max_size=len(tokens)))
    return NodeRun(draw(st.integers(1, 64)), tuple(tokens), tuple(names), tuple(addresses))


SSH_LINE = "ssh /opt/ssh {} key host\n"


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
    st.lists(node_runs(), max_size=3).map(tuple),
    st.lists(PATH).map(tuple),
    SSH,
)
def test_every_plan_is_read_back(
    user: PlanUser,
    mounts: tuple[PlanMount, ...],
    files: tuple[PlanFile, ...],
    nodes: tuple[NodeRun, ...],
    modules: tuple[str, ...],
    ssh: PlanSsh | None,
) -> None:
    made = plan(user=user, volumes=mounts, sites=mounts, etc=files, nodes=nodes, modules=modules, ssh=ssh)
    text = made.text()
    assert text.isascii()
    again = NodePlan.parse(text.encode())
    assert again.text() == text
    assert [(r.slots, r.identities, r.names, r.addresses) for r in again.nodes] == [
        (r.slots, r.identities, r.names, r.addresses) for r in nodes
    ]


NODES = (
    NodeRun(2, ("12", "100020"), ("nid00012", "nid100020"), ("10.0.0.13", "fd00::14")),
    NodeRun(1, ("login-2.site.gov",), ("login-2",)),
)


def test_the_node_list_has_a_node_s_name_for_each_of_its_slots() -> None:
    assert plan(nodes=NODES).nodelist() == "nid00012\nnid00012\nnid100020\nnid100020\nlogin-2\n"
    assert "node 2 12,100020 nid00012,nid100020 10.0.0.13,fd00::14\n" in plan(nodes=NODES).text()
    assert "node 1 login-2.site.gov login-2 %\n" in plan(nodes=NODES).text()


def test_a_node_finds_its_own_address() -> None:
    made = plan(nodes=NODES)
    assert (made.address_of("12"), made.address_of("100020")) == ("10.0.0.13", "fd00::14")
    for without in ("1", "13", "nid00012", "login-2.site.gov"):
        with pytest.raises(SetupFailed, match=f"no address for node {without}$"):
            made.address_of(without)


def test_ten_thousand_nodes_are_a_few_tuples() -> None:
    """A plan for a large job is read as a few long lines, without an object for each node."""
    numbers = range(10_000)
    run = NodeRun(
        32,
        tuple(map(str, numbers)),
        tuple(f"nid{number:05d}" for number in numbers),
        tuple(f"10.128.{number >> 8}.{number & 255}" for number in numbers),
    )
    again = NodePlan.parse(plan(nodes=(run,)).text().encode())
    assert len(again.nodes) == 1
    assert again.address_of("9999") == "10.128.39.15"


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
        (lambda text: text.replace("udi-plan 3", "udi-plan 2"), "this node reads 'udi-plan 3'"),
        (lambda text: text[:-5], "truncated"),
        (lambda text: text.replace("tmp ", "temp "), "line 8 is invalid"),
        (lambda text: text.replace("job 1.sdb", "job 1.sdb\njob 2.sdb"), "repeats job"),
        (lambda text: text.replace("deadline 60\n", ""), "no line for deadline"),
        (lambda text: text.replace("root /var/udi", "root /var/../etc"), "not a plain absolute path"),
        (lambda text: text.replace("image squashfs", "image cramfs"), "none of squashfs"),
        (lambda text: text.replace("job 1.sdb", "job %ZZ"), "invalid escape"),
        (lambda text: text.replace("end\n", "module loop.ko\nend\n"), "not a plain absolute path"),
        (lambda text: text.replace("end\n", "step now directory % /x\nend\n"), "invalid step"),
        (lambda text: text.replace("end\n", "step after run /bin/x /x\nend\n"), "invalid step"),
        (lambda text: text.replace("end\n", "step after directory /a /x\nend\n"), "invalid step"),
        (lambda text: text.replace("end\n", "step after bind ../a /x\nend\n"), "not a plain absolute path"),
        (lambda text: text.replace("end\n", f"{SSH_LINE.format(22)}end\n"), "ssh port 22 is not between"),
        (lambda text: text.replace("end\n", "ssh /opt/ssh 1204 10.128.0.1 key host\nend\n"), "is invalid"),
        *(
            (lambda text, line=line: text.replace("end\n", f"node {line}\nend\n"), words)
            for line, words in (
                ("2 1 nid1", "is invalid"),
                ("0 1 nid1 %", "do not fit together"),
                ("x 1 nid1 %", "invalid literal"),
                ("1 1,2 nid1 %", "do not fit together"),
                ("1 1 nid1 10.0.0.1,10.0.0.2", "do not fit together"),
                ("1 % % %", "do not fit together"),
                ("1 1, nid1,nid2 %", "invalid node name"),
                ("1 -1 nid1 %", "invalid node name"),
                ("1 1 a/b %", "invalid node name"),
                ("1 1 n%0Aid %", "invalid node name"),
                (f"1 1 {'n' * 65} %", "invalid node name"),
                ("1 1 nid1 10.0.0.256", "not an IP address: '10.0.0.256'"),
                ("1 1,2 nid1,nid2 10.0.0.1,", "not an IP address: ''"),
                ("1 1 nid1 fd00::1::2", "not an IP address"),
                ("1 1 nid1 localhost", "not an IP address"),
            )
        ),
    ],
)
def test_what_is_wrong_is_named(change: object, words: str) -> None:
    assert callable(change)
    with pytest.raises(SetupFailed, match=words):
        NodePlan.parse(change(plan().text()).encode())


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
        cache="7:8" if made else "",
    )
    text = record.text()
    again = Record.parse(text.encode())
    assert again is not None
    assert again.text() == text
    assert (again.sshd, again.cache) == (record.sshd, record.cache)
    if length < len(text):
        assert Record.parse(text[:length].encode()) is None
