"""Site modules: which a job gets, what a node makes of them, and what programs find in their environment."""

from __future__ import annotations

import dataclasses
import grp
import json
import os
import pwd
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import outside.cli  # noqa: F401 - adds its commands to those of the gateway
from gateway.client.cli import cli
from tests.unit.test_plan import plan
from udi import planning
from udi.accounts import Account
from udi.config import SiteConfig, parse
from udi.facts import Facts
from udi.nodes import Node, NodeSlots, named
from udi.request import JobRequest, job_request
from udi.rundata import run_data
from udi.sitemodules import choose_modules, is_allowed_device, parse_modules
from udiroot import sitemodules
from udiroot.errors import NotFound, NotPermitted, SetupFailed, UdiError, UsageError
from udiroot.plan import NodePlan, PlanFile
from udiroot.plan_modules import PlanModule
from xcsim.site import toml_value

ROOTS = grp.getgrgid(0).gr_name
ALICE = Account("alice", 1001, 1001, (1001, 0), "/home/alice", "/bin/sh")
BOB = Account("bob", 1002, 1002, (1002,), "/home/bob", "/bin/sh")
TEXT = f"""
[store]
path = "/s"
[volumes]
allowed = ["/scratch"]
[node]
devices = ["/dev/nul?"]
[modules.mpich]
description = "the system's MPICH"
default = true
mounts = ["/opt/site/mpich:/opt/udi-site/mpich:ro"]
environment.prepend = {{LD_LIBRARY_PATH = "/opt/udi-site/mpich/lib"}}
[modules.mpich-debug]
mounts = ["/opt/site/mpich-debug:/opt/udi-site/mpich:ro"]
[modules.gpu]
present = ["/no/such/path"]
devices = ["/dev/null"]
kernel_modules = ["gpu.ko"]
links = {{"/usr/lib/libgpu.so" = "libgpu.so.1"}}
environment.set = {{GPU = "a b"}}
environment.unset = ["NO_GPU"]
[modules.secret]
users = ["carol"]
groups = ["{ROOTS}", "no-such-group"]
default = true
environment.append = {{PATH = "/secret"}}
[modules.bare]
links = {{"/bare" = "x"}}
"""
SITE: SiteConfig = parse(TEXT, "udi.toml")
NAMES = st.lists(st.sampled_from([*SITE.modules, "none", "nobody", "", " "]), max_size=5)


def chosen(text: str, user: Account = ALICE) -> list[str]:
    """Names of the modules; those that were asked for end in `!`."""
    return [each.name + "!" * each.asked for each in choose_modules(SITE.modules, text, user)]


# Which modules a job gets.


def test_those_by_default_come_first_and_only_for_who_may_have_them() -> None:
    assert chosen("") == ["mpich", "secret"]
    assert chosen("", BOB) == ["mpich"]
    assert chosen("gpu;secret;") == ["mpich", "gpu!", "secret!"]
    assert chosen(" mpich ; gpu ") == ["secret", "mpich!", "gpu!"]
    assert chosen("none") == [] and chosen("gpu;none") == ["gpu!"]
    assert chosen("none;mpich-debug;mpich-debug") == ["mpich-debug!"]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("mpitch", NotFound, "no module 'mpitch' on this system"),
        ("secret", NotPermitted, "module secret is not for bob"),
        ("mpich,gpu", UsageError, "not a module's name: 'mpich,gpu'"),
        ("../x", UsageError, "not a module's name"),
        ("a\nb", UsageError, r"not a module's name: 'a\nb'"),
        ("mpich-debug", UsageError, "modules mpich and mpich-debug cannot go together: both have /opt/udi-site/mpich"),
    ],
)
def test_what_a_user_cannot_have(text: str, kind: type[UdiError], words: str) -> None:
    with pytest.raises(kind) as caught:
        choose_modules(SITE.modules, text, BOB)
    assert caught.value.message.startswith(words) and caught.value.is_users
    if text == "mpitch":
        assert caught.value.hint.startswith("did you mean mpich?")
    if text == "mpich-debug":
        assert "none;mpich-debug" in caught.value.hint


@given(st.text(max_size=20) | NAMES.map(";".join))
def test_any_text_is_a_list_of_the_sites_modules_or_refused(text: str) -> None:
    try:
        found = choose_modules(SITE.modules, text, ALICE)
    except UdiError as error:
        assert error.is_users and "\n" not in error.message
        return
    assert {each.name for each in found} <= set(SITE.modules) and len(set(found)) == len(found)
    assert choose_modules(SITE.modules, ";".join(parse_modules(text)), ALICE) == found


def test_a_volume_may_not_hide_a_module() -> None:
    for volume in ("/scratch:/opt/udi-site/mpich", "/scratch:/opt/udi-site"):
        with pytest.raises(NotPermitted, match="it would hide /opt/udi-site/mpich of module mpich"):
            job_request(SITE, "1", ALICE, "debian", volume)
        assert job_request(SITE, "1", ALICE, "debian", volume, modules="none").volumes
    with pytest.raises(NotPermitted, match="it would hide /bare of module bare"):
        job_request(SITE, "1", ALICE, "debian", "/scratch:/bare", modules="bare")


def test_device_nodes_by_patterns() -> None:
    patterns = ("/dev/nvidia*", "/dev/dri/card?")
    for path in ("/dev/nvidia0", "/dev/nvidia", "/dev/dri/card1"):
        assert is_allowed_device(path, patterns)
    for path in ("/dev/nvidia-caps/x", "/dev/dri/card", "/dev/dri", "/dev/sda", "/dev/nvidia0/../sda"):
        assert not is_allowed_device(path, patterns)


# The plan.


def planned(text: str, user: Account = ALICE, site: SiteConfig = SITE) -> NodePlan:
    facts = Facts(id="ab" * 32, format="squashfs", size=1, sha256="cd" * 32)
    request: JobRequest = job_request(site, "1", user, "debian", modules=text)
    store = dataclasses.replace(site.store, account="0")
    nodes = [NodeSlots(named("n1"), 1)]
    made = planning.make_plan(dataclasses.replace(site, store=store), request, facts, Names(), nodes)
    return NodePlan.parse(made.text().encode())


class Names:
    """Nodes by their names."""

    def identity(self, node: Node) -> str:
        return node.name

    def address(self, node: Node) -> str:
        raise AssertionError


def test_the_plan_of_a_job_has_its_modules_whole() -> None:
    made = planned("gpu")
    assert [(each.name, each.asked) for each in made.site_modules] == [
        ("mpich", False),
        ("secret", False),
        ("gpu", True),
    ]
    assert made.site_modules[0].parts == (
        ("ro", "/opt/site/mpich", "/opt/udi-site/mpich"),
        ("prepend", "LD_LIBRARY_PATH=/opt/udi-site/mpich/lib", ""),
    )
    assert made.site_modules[2].parts == (
        ("present", "/no/such/path", ""),
        ("device", "/dev/null", ""),
        ("kernel", "/dsl/lib/modules/{release}/gpu.ko", ""),
        ("link", "libgpu.so.1", "/usr/lib/libgpu.so"),
        ("unset", "NO_GPU", ""),
        ("set", "GPU=a b", ""),
    )
    assert [file.text.count(sitemodules.PLACE) for file in made.files if file.path == sitemodules.RUN] == [1]
    assert planned("none").site_modules == ()
    assert [file.text.count("modules") for file in planned("none").files if file.path == sitemodules.RUN] == [0]


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
PATHS = st.sampled_from(["/a", "/a/b c", "/ä"])
PARTS = st.one_of(
    st.tuples(st.sampled_from(["present", "device", "kernel"]), PATHS, st.just("")),
    st.tuples(st.sampled_from(["ro", "rw"]), PATHS, PATHS),
    st.tuples(st.just("link"), WORDS.filter(bool), PATHS),
    st.tuples(st.sampled_from(["unset", "set", "prepend", "append"]), WORDS.map("A={}".format), st.just("")),
)
MODULE = st.builds(PlanModule, WORDS, st.booleans(), st.lists(PARTS, max_size=4).map(tuple))


@given(st.lists(MODULE, max_size=4, unique_by=lambda module: module.name).map(tuple))
def test_every_module_of_a_plan_is_read_back(modules: tuple[PlanModule, ...]) -> None:
    again = NodePlan.parse(plan(site_modules=modules).text().encode()).site_modules
    assert [(m.name, m.asked, m.parts) for m in again] == [(m.name, m.asked, m.parts) for m in modules]


@pytest.mark.parametrize(
    "line",
    [
        "sitemodule x asked",
        "sitemodule y maybe",
        "part y ro /a /b",
        "part x ro a /b",
        "part x ro /a /b/../c",
        "part x present /a /b",
        "part x present a %",
        "part x mount /a /b",
        "part x link % /b",
        "part x link a b",
        "part x set % %",
        "part x set A=1 B=2",
        "part x set A%00B=1 %",
    ],
)
def test_a_plan_whose_modules_are_wrong_is_refused(line: str) -> None:
    text = plan(site_modules=(PlanModule("x", True, ()),)).text()
    with pytest.raises(SetupFailed, match=r"^plan: "):
        NodePlan.parse(text.replace("end\n", f"{line}\nend\n").encode())


# A node.


def settled(made: NodePlan) -> tuple[NodePlan, list[str]]:
    sitemodules.settle(made)
    [text] = [file.text for file in made.files if file.path == sitemodules.RUN]
    assert made.site_modules == () and text.startswith("udi-run 1\0") and text.endswith("\0end\0")
    return made, text.split("\0")


def test_a_node_without_what_a_module_needs() -> None:
    with pytest.raises(NotFound, match="module gpu is not for this node, which has no /no/such/path; request nodes"):
        sitemodules.settle(planned("gpu"))
    site = parse(TEXT.replace("[modules.gpu]", "[modules.gpu]\ndefault = true"), "udi.toml")
    made, records = settled(planned("", site=site))
    assert (made.modules, made.steps) == ((), ())
    assert "set UDI_MODULES_USED=mpich;secret" in records and not any("GPU" in record for record in records)


def test_a_node_that_has_it() -> None:
    site = parse(TEXT.replace("/no/such/path", "/etc"), "udi.toml")
    made, records = settled(planned("gpu", site=site))
    assert made.modules == ("/dsl/lib/modules/{release}/gpu.ko",)
    assert [(s.when, s.kind, s.source, s.target) for s in made.steps] == [
        ("after", "link", "libgpu.so.1", "/usr/lib/libgpu.so")
    ]
    assert [(m.source, m.target, m.read_only, m.module) for m in made.sites] == [
        ("/opt/site/mpich", "/opt/udi-site/mpich", True, "mpich")
    ]
    at = records.index("prepend LD_LIBRARY_PATH=/opt/udi-site/mpich/lib")
    assert records[at + 1 : at + 5] == [
        "append PATH=/secret",
        "unset NO_GPU",
        "set GPU=a b",
        "set UDI_MODULES_USED=mpich;secret;gpu",
    ]
    assert records[at + 5].startswith("set HOME="), "what is the user's is set after it"


def test_a_device_is_a_device_node() -> None:
    text = TEXT.replace('present = ["/no/such/path"]\n', "").replace('"/dev/nul?"', '"/dev/*"')
    settled(planned("gpu", site=parse(text, "udi.toml")))
    with pytest.raises(NotFound, match="has no /dev/fd"):
        sitemodules.settle(planned("gpu", site=parse(text.replace('["/dev/null"]', '["/dev/fd"]'), "udi.toml")))


def test_a_root_without_a_place_for_the_environment_is_refused() -> None:
    made = planned("")
    made.files = (PlanFile(sitemodules.RUN, 0o444, "udi-run 1\0end\0"),)
    with pytest.raises(SetupFailed, match="has no place for the environment of modules"):
        sitemodules.settle(made)


@given(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=4))
def test_no_word_of_an_image_is_taken_for_that_place(command: list[str], values: list[str]) -> None:
    env = tuple(f"A{number}={value}" for number, value in enumerate([*values, "modules", "\nmodules\n"]))
    facts = Facts(
        id="ab" * 32,
        format="squashfs",
        size=1,
        sha256="cd" * 32,
        env=env,
        entrypoint=("modules",),
        cmd=("modules", *command),
    )
    text = run_data(facts, SITE.environment, ALICE, "debian", with_modules=True)
    before, place, after = text.partition(sitemodules.PLACE)
    assert place and sitemodules.PLACE not in after and after.startswith("set HOME=") and "\0cmd modules" in before


NAME = st.from_regex(r"[A-Z]{1,3}", fullmatch=True)
PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5)
ELEMENTS = PLAIN.filter(lambda text: "" not in text.split(":"))
ENVIRONMENT = st.fixed_dictionaries(
    {"set": st.dictionaries(NAME, PLAIN, max_size=3), "prepend": st.dictionaries(NAME, ELEMENTS, max_size=3),
     "append": st.dictionaries(NAME, ELEMENTS, max_size=3)}
)  # fmt: skip


@given(ENVIRONMENT.filter(lambda tables: any(tables.values())))
def test_a_module_s_environment_means_what_the_same_table_of_the_site_means(tables: dict[str, dict[str, str]]) -> None:
    store = '[store]\npath = "/s"\n'
    lines = "".join(f"{key} = {toml_value(table)}\n" for key, table in tables.items())
    by_module, records = settled(
        planned("", site=parse(f"{store}[modules.m]\ndefault = true\n[modules.m.environment]\n{lines}", "x"))
    )
    by_site = planned("", site=parse(f"{store}[environment]\n{lines}", "x"))
    records.remove("set UDI_MODULES_USED=m")
    [text] = [file.text for file in by_site.files if file.path == sitemodules.RUN]
    assert by_module.sites == by_site.sites and "\0".join(records) == text


# For users.


def test_udi_modules(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "udi.toml")
    me = pwd.getpwuid(os.getuid()).pw_name
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(
            TEXT.replace('users = ["carol"]', f'users = ["{me}"]').replace(
                "[modules.bare]", '[modules.theirs]\nusers=["x"]'
            )
        )
    done = CliRunner().invoke(cli, ["--config", path, "modules"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[:3] == [
        "NAME         USE          DESCRIPTION",
        "mpich        by default   the system's MPICH",
        "mpich-debug  on request",
    ]
    assert done.output.splitlines()[-1] == "theirs       not for you"
    rows = json.loads(CliRunner().invoke(cli, ["--config", path, "modules", "--json"]).output)
    assert rows[0] == {"name": "mpich", "description": "the system's MPICH", "default": True, "allowed": True}
    assert [row["allowed"] for row in rows] == [True, True, True, True, False]


def test_the_example_of_the_document_is_a_configuration() -> None:
    text = (Path(__file__).parents[2] / "docs/modules.md").read_text()
    part = text[text.index("## For operators") : text.index("[udi.toml.example]")]
    example = "".join(f"{line[4:]}\n" for line in part.splitlines() if line.startswith("    "))
    modules = parse(f'[store]\npath = "/s"\n{example}', "udi.toml").modules
    assert list(modules) == ["mpich", "gpu", "chem"]
    assert modules["mpich"] == dataclasses.replace(
        SITE.modules["mpich"], description=modules["mpich"].description, default=False,
        mounts=("/opt/site/mpich:/opt/udi-site/mpich:ro",),
    )  # fmt: skip
