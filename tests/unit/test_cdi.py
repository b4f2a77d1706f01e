"""CDI specifications into site modules: what nvidia-ctk writes, what is refused, and that nothing else gets through."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin.cdi import MAX_BYTES, as_module, edits_of, read_specification, require_fitting
from udi.config import parse
from udiroot.errors import ConfigError, NotFound, UdiError, UsageError

SITE = '[store]\npath = "/s"\n[node]\ndevices = ["/dev/nvidia*", "/dev/dri/*"]\n'
NVIDIA: dict[str, Any] = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {
            "name": "0",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/nvidia0"}, {"path": "/dev/dri/card1", "hostPath": "/dev/dri/card1"}],
                "hooks": [
                    {
                        "hookName": "createContainer",
                        "path": "/usr/bin/nvidia-cdi-hook",
                        "args": ["nvidia-cdi-hook", "chmod", "--mode", "755", "--path", "/dev/dri"],
                    }
                ],
            },
        },
        {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1", "type": "c", "major": 195}]}},
    ],
    "containerEdits": {
        "env": ["NVIDIA_VISIBLE_DEVICES=void", 'QUOTED="a\\b"'],
        "deviceNodes": [{"path": "/dev/nvidiactl"}],
        "hooks": [
            {
                "hookName": "createContainer",
                "path": "/usr/bin/nvidia-ctk",
                "args": ["nvidia-ctk", "hook", "create-symlinks", "--link", "libcuda.so.1::/usr/lib64/libcuda.so"],
            },
            {
                "hookName": "createContainer",
                "path": "/usr/bin/nvidia-ctk",
                "args": ["nvidia-ctk", "hook", "update-ldcache", "--folder=/usr/lib64", "--folder", "/usr/lib64/vdpau"],
            },
        ],
        "mounts": [
            {
                "hostPath": "/usr/lib64/libcuda.so.550.54",
                "containerPath": "/usr/lib64/libcuda.so.550.54",
                "options": ["ro", "nosuid", "nodev", "bind"],
            },
            {
                "hostPath": "/run/nvidia-persistenced/socket",
                "containerPath": "/run/nvidia-persistenced/socket",
                "options": ["nosuid", "nodev", "bind", "noexec"],
            },
        ],
    },
}


def converted(document: object, *devices: str, site: str = SITE, name: str = "gpu") -> str:
    text = as_module(edits_of(json.dumps(document).encode(), "nvidia.json", devices), name, "/etc/cdi/nvidia.json")
    require_fitting(parse(site, "udi.toml"), name, text)
    return text


def changed(**edits: object) -> dict[str, Any]:
    """The specification with other common edits."""
    return {**NVIDIA, "containerEdits": edits}


def test_what_nvidia_writes() -> None:
    text = converted(NVIDIA)
    assert tomllib.loads(text)["modules"]["gpu"] == {
        "description": "devices of nvidia.json",
        "devices": ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dri/card1", "/dev/nvidia1"],
        "mounts": [
            "/usr/lib64/libcuda.so.550.54:/usr/lib64/libcuda.so.550.54:ro",
            "/run/nvidia-persistenced/socket:/run/nvidia-persistenced/socket:rw",
        ],
        "links": {"/usr/lib64/libcuda.so": "libcuda.so.1"},
        "environment": {
            "set": {"NVIDIA_VISIBLE_DEVICES": "void", "QUOTED": '"a\\b"'},
            "prepend": {"LD_LIBRARY_PATH": "/usr/lib64:/usr/lib64/vdpau"},
        },
    }
    remarks = {line.removeprefix("# ") for line in text.splitlines() if line.startswith("#")}
    assert remarks == {
        "Made by udi-admin cdi from /etc/cdi/nvidia.json.",
        "Instead of ldconfig: LD_LIBRARY_PATH. What programs load must be there by that name.",
        "Mounts that ask for noexec are without it; all are nosuid and nodev.",
        "Hook not run: createContainer /usr/bin/nvidia-cdi-hook chmod --mode 755 --path /dev/dri",
    }
    assert parse(SITE + text, "udi.toml").modules["gpu"].devices[0] == "/dev/nvidiactl"


def test_one_device_of_several() -> None:
    module = tomllib.loads(converted(NVIDIA, "1"))["modules"]["gpu"]
    assert module["devices"] == ["/dev/nvidiactl", "/dev/nvidia1"]
    called_all = {**NVIDIA, "devices": [*NVIDIA["devices"], {"name": "all", "containerEdits": {}}]}
    assert tomllib.loads(converted(called_all))["modules"]["gpu"]["devices"] == ["/dev/nvidiactl"]
    with pytest.raises(NotFound, match="no device '7' in it"):
        converted(NVIDIA, "7")


def test_device_nodes_only_by_the_sites_own_list() -> None:
    with pytest.raises(
        ConfigError, match=r"node\.devices does not allow /dev/nvidiactl, /dev/nvidia0, /dev/dri/card1, "
    ):
        converted(NVIDIA, site='[store]\npath = "/s"\n')
    for path in ("/dev/mem", "/dev/dri/by-path/x", "/dev/nvidia-caps/x", "/dev/sda"):
        with pytest.raises(ConfigError, match=f"node.devices does not allow {path}"):
            converted(changed(deviceNodes=[{"path": path}]))


@pytest.mark.parametrize("version", ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0"])
def test_versions(version: str) -> None:
    assert converted({**NVIDIA, "cdiVersion": version})


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "is not a JSON object"),
        ({**NVIDIA, "cdiVersion": "0.2.0"}, "cdiVersion 0.2.0 is none of 0.3.0"),
        ({**NVIDIA, "cdiVersion": "1.9.0"}, "cdiVersion 1.9.0 is none of"),
        ({**NVIDIA, "cdiVersion": 5}, "cdiVersion of nvidia.json is not a string"),
        ({**NVIDIA, "kind": "gpu"}, "kind 'gpu' is not vendor/class"),
        ({**NVIDIA, "devices": []}, "has no devices"),
        ({**NVIDIA, "devices": {}}, "devices of nvidia.json is not a list"),
        ({**NVIDIA, "devices": [NVIDIA["devices"][0]] * 2}, "two devices are called '0'"),
        ({**NVIDIA, "more": 1}, "unknown key more"),
        (changed(more=1), "unknown key more"),
        (changed(netDevices=[]), "unknown key netDevices"),
        (changed(env=["A"]), "is not NAME=VALUE"),
        (changed(env=["A=1", "A=2"]), "variable A is there twice, and not the same"),
        (changed(env=["HOME=/"]), "must not have HOME"),
        (changed(env=["A=x\ny"]), "contains a control character"),
        (changed(deviceNodes=[{"path": "dev/x"}]), "is not a plain absolute path: 'dev/x'"),
        (changed(deviceNodes=[{"path": "/dev/nvidia0", "hostPath": "/dev/sda"}]), "is /dev/sda on the host"),
        (changed(deviceNodes=[{"path": "/dev/nvidia0", "type": "p"}]), "of another type"),
        (changed(mounts=[{"hostPath": "/a"}]), "containerPath of item 1 of mounts of .* is not a string"),
        (changed(mounts=[{"hostPath": "/a:b", "containerPath": "/b"}]), "is not a plain absolute path: '/a:b'"),
        (changed(mounts=[{"hostPath": "/a/..", "containerPath": "/b"}]), "is not a plain absolute path"),
        (changed(mounts=[{"hostPath": "/a", "containerPath": "/proc"}]), "target /proc would hide"),
        (changed(mounts=[{"hostPath": "/a", "containerPath": "/opt/udi/bin/x"}]), "would hide what belongs"),
        (changed(mounts=[{"hostPath": "/var", "containerPath": "/x"}]), "shifter-xc's own"),
        (changed(mounts=[{"hostPath": "/a", "containerPath": "/b", "type": "tmpfs"}]), "is of type tmpfs"),
        (changed(mounts=[{"hostPath": "/a", "containerPath": "/b", "options": ["suid"]}]), "option 'suid'"),
        (changed(hooks=[{"hookName": "x", "path": "/y", "args": ["y", "create-symlinks", "--link", "a"]}]), "::link"),
        (changed(hooks=[{"hookName": "x", "path": "/y", "args": ["y", "update-ldcache", "--folder", "a"]}]), "plain"),
    ],
)  # fmt: skip
def test_what_is_refused(document: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        converted(document)


def test_other_hooks_are_remarks_of_one_line() -> None:
    hook = {"hookName": "poststart", "path": "/bin/evil", "args": ["x", "a\n[modules.other]"], "env": ["A=1"]}
    assert list(tomllib.loads(converted(changed(hooks=[hook])))["modules"]) == ["gpu"]


def test_names() -> None:
    assert tomllib.loads(converted(NVIDIA, name="gpu.550"))["modules"]["gpu.550"]
    for name in ("none", "a b", "", "a;b", "x]\n[y"):
        with pytest.raises(UsageError):
            converted(NVIDIA, name=name)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_specification(str(tmp_path / "none"))
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(UsageError, match="has more than"):
        read_specification(str(large))
    with pytest.raises(ConfigError, match="is not JSON"):
        edits_of(b"{", "x.json", ())


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("/dev/nvidia0"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["path", "hostPath", "containerPath", "args", "env", "name", "options", "hookName"]), inner
        )
    ),
    max_leaves=8,
)
EDITS = st.dictionaries(st.sampled_from(["env", "deviceNodes", "mounts", "hooks", "intelRdt", "additionalGids"]), ANY)


@settings(max_examples=200)
@given(EDITS, st.text(max_size=10))
def test_any_specification_is_refused_or_one_module_that_a_configuration_can_have(edits: object, name: str) -> None:
    try:
        text = converted({**NVIDIA, "containerEdits": edits}, name=name)
    except UdiError:
        return
    assert list(parse(SITE + text, "udi.toml").modules) == [name]
