"""A C program that makes the same system calls as one of our steps, made from the output of strace.

What the interpreter does for itself (memory, signals, querying a file's position) is left out, and so are waits for the
kernel. The calls begin with the lock of the run directory: reading the plan and importing are not included. A call that
changed the node must do so again; the result of a call that only reads may differ by now.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from udiroot.report import MARK
from xcsim import tools

STRACE = ("-s", "65536", "-e", "signal=none")
"""Options of strace for the output that `compile_replay` reads."""
_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\w+)(?: .*)?")
_POINTER = re.compile(r"\b0x[0-9a-f]{5,}\b")
_DEVICE = re.compile(r'"/dev/loop\d+"')
_CHANGES = ("link", "mkdir", "mkdirat", "mount", "rmdir", "symlink", "umount2", "unlink")
_READS = ("close", "fchmod", "flock", "openat", "setfsgid", "setfsuid")
_MUST_SUCCEED = (*_CHANGES, "mount_setattr", "move_mount", "open_tree")


def compile_replay(trace: str, program: Path) -> int:
    """Compile the replay of a trace to `program`; returns how many calls it makes."""
    calls = list(_statements(trace))
    listing = program.with_suffix(".calls")
    listing.write_text("\n".join(calls) + "\n")
    source = Path(__file__).with_name("replay.c")
    options = ("-O2", "-static", "-Wno-all", f'-DCALLS="{listing}"')
    tools.run("gcc", *options, "-o", program, source, failure="the replay did not compile")
    return len(calls)


def _statements(trace: str) -> Iterator[str]:
    lines = trace.split("\n")
    begin = next(number for number, line in enumerate(lines) if re.search(r'mkdir\("[^"]*/run/', line))
    end = next(number for number, line in enumerate(lines) if f'"{MARK}' in line)
    for line in lines[begin : end + 1]:
        found = _LINE.fullmatch(line.strip())
        statement = _statement(found[1], found[2]) if found else ""
        if found and statement:
            checked = not found[3].startswith("-") and (found[1] in _MUST_SUCCEED or "attach(" in statement)
            if found[1] == "openat" and found[3].startswith(
                "-"
            ):  # a file that did not exist may exist now: keep the numbers
                statement = f"close({statement})"
            yield f"must({statement}, __LINE__);" if checked else f"(void)({statement});"


def _statement(name: str, text: str) -> str:
    """The call in C; empty for one that the interpreter makes for itself."""
    text = _DEVICE.sub("device", text)
    if name in _CHANGES or name in _READS:
        return f"{name}({_POINTER.sub('(void *)0', text)})"
    first, _, rest = text.partition(", ")
    last = text.rpartition(", ")[2]
    match name:
        case "read":
            return f"read({first}, buffer, sizeof buffer < {last} ? sizeof buffer : {last})"
        case "pread64":
            _, size, offset = text.rsplit(", ", 2)
            return f"pread({first}, buffer, {size}, {offset})"
        case "write":
            return f"write({text})"
        case "newfstatat":
            path = re.match(r'"[^"]*"|device', rest)
            return f"fstatat({first}, {path[0]}, &status, {last})" if path else ""
        case "readlink":
            return f"readlink({first}, buffer, 4096)"
        case "getdents64":
            return f"syscall(SYS_getdents64, {first}, buffer, {last})"
        case "setgroups":
            groups = re.search(r"\[(.*)\]", text)
            return f"setgroups({first}, (gid_t[]){{{groups[1]}}})" if groups else ""
        case "openat2":
            path = re.match(r'"[^"]*"', rest)
            return f"in_root({first}, {path[0]})" if path else ""
        case "open_tree" | "move_mount":
            return f"syscall(SYS_{name}, {text})"
        case "mount_setattr":
            where, flags = re.findall(r'"", ([^{]*), \{attr_set=([^,]*),', text)[0]
            return f"set_flags({first}, {where}, {flags})"
        case "ioctl" if "LOOP_CTL_GET_FREE" in rest:
            return f"free_device({first})"
        case "ioctl" if "LOOP_CONFIGURE" in rest:
            backing, label = re.findall(r'fd=(\d+),.*lo_file_name="([^"]*)"', text)[0]
            return f'attach({first}, {backing}, "{label}")'
        case "ioctl" if "LOOP_GET_STATUS64" in rest:
            return f"ioctl({first}, LOOP_GET_STATUS64, buffer)"
    return ""
