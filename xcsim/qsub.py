"""`qsub`: options, `#PBS` lines, the submit filter, `-v`; then the job goes to the server (torque-reference d).

Runs on the login node as the user, so everything that a user specifies is read with the user's own rights.
"""

import json
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable

from xcsim import standin
from xcsim.variables import BadVariableList, escaped, qsub_list

_VALUE = "aAbcCdDeJjklmMNopPqrSTuvWwt"
_FLAG = "hIVxXz"
_CONFIGURATION = "/var/spool/torque/torque.cfg"
_USAGE = "usage: qsub [-A account] [-d dir] [-e path] [-h] [-j oe|eo|n] [-l resources] [-N name] [-o path] [-q queue]\n"
_USAGE += "            [-S shell] [-t tasks] [-v variables] [-V] [script]\n"


class Refused(Exception):
    """qsub prints this line and exits with this code."""

    def __init__(self, line: str, code: int = 1) -> None:
        super().__init__(line)
        self.line = line
        self.code = code


Options = dict[str, list[str]]


def main() -> int:
    """Submit one job; print its id."""
    try:
        return submit(sys.argv[1:])
    except Refused as refused:
        sys.stderr.write(refused.line + "\n")
        return refused.code


def submit(arguments: list[str]) -> int:
    options, rest = parse(arguments)
    if "I" in options:
        raise Refused("qsub: interactive jobs are not supported on this machine")
    name, script = _script(rest)
    environment = dict(os.environ)
    path = submit_filter()
    if path:
        script = _filtered(path, arguments, script)
        environment["PBS_O_SUBMIT_FILTER"] = path
    for line in directives(script):
        for letter, values in parse(line)[0].items():
            # The command line takes precedence; of several directives the first one wins. Resources add up.
            if letter == "l" or letter not in options:
                options.setdefault(letter, []).extend(values)
    job = {
        "name": options.get("N", [name])[0],
        "resources": [part for value in options.get("l", []) for part in value.split(",")],
        "queue": options.get("q", ["batch"])[0],
        "account": options.get("A", [""])[0],
        "output": options.get("o", [""])[0],
        "error": options.get("e", [""])[0],
        "join": options.get("j", ["n"])[0],
        "shell": options.get("S", [""])[0],
        "hold": "u" if "h" in options else "n",
        "array": _array(options.get("t", [""])[0]),
        "workdir": options.get("d", [os.getcwd()])[0],
        "variables": _variables(options, environment),
        "submit_args": " ".join(arguments),
    }
    return standin.call("qsub", [json.dumps(job), script], [])


def parse(words: list[str]) -> tuple[Options, list[str]]:
    """Options by letter, in order, and the arguments after them. A value may be attached to its letter."""
    options: Options = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        letter, value = word[1], word[2:]
        if letter in _FLAG:
            options.setdefault(letter, []).append("")
            if value:
                rest.insert(0, "-" + value)
        elif letter in _VALUE and (value or rest):
            options.setdefault(letter, []).append(value or rest.pop(0))
        else:
            raise Refused(f"qsub: invalid option -- '{letter}'\n{_USAGE}".rstrip(), 2)
    return options, rest


def _array(request: str) -> tuple[list[int], int]:
    """The tasks of an array, and how many of them may run at a time, 0 for all: `1-3,7%2` (torque-reference i)."""
    if not request:
        return [], 0
    found = re.fullmatch(r"((?:\d+(?:-\d+)?,)*\d+(?:-\d+)?)(?:%(\d+))?", request)
    ranges = [part.partition("-") for part in found[1].split(",")] if found else []
    tasks = [task for first, _, last in ranges for task in range(int(first), int(last or first) + 1)]
    if not found or not tasks or len(set(tasks)) < len(tasks):
        raise Refused("qsub: illegal -t value")
    return sorted(tasks), int(found[2] or 0)


def _script(rest: list[str]) -> tuple[str, str]:
    """Default job name and text of the script, from a file or from stdin."""
    if not rest or rest[0] == "-":
        return "STDIN", sys.stdin.buffer.read().decode(errors="surrogateescape")
    try:
        with open(rest[0], errors="surrogateescape", newline="") as script:
            return os.path.basename(rest[0]), script.read()
    except OSError as error:
        raise Refused(f"qsub: script file '{rest[0]}' cannot be loaded - {error.strerror}") from error


def directives(script: str) -> list[list[str]]:
    """The arguments in each `#PBS` line before the first command."""
    found = []
    for line in script.splitlines():
        if line.startswith("#PBS"):
            found.append(words_of(line[4:]))
        elif line.strip() and not line.lstrip().startswith(("#", ":")):
            break
    return found


def words_of(line: str) -> list[str]:
    """Blanks separate, quotes group and are removed, a backslash outside quotes keeps one character (T64)."""
    words, word, quote, started, literal = [], "", "", False, False
    for char in line:
        if literal:
            word, literal = word + char, False
        elif quote:
            word, quote = (word, "") if char == quote else (word + char, quote)
        elif char in "\"'":
            quote, started = char, True
        elif char == "\\":
            literal = started = True
        elif char in " \t":
            if word or started:
                words.append(word)
            word, started = "", False
        else:
            word += char
    return [*words, word] if word or started else words


def submit_filter() -> str:
    """The path of the site's filter from torque.cfg, empty if there is none."""
    try:
        with open(_CONFIGURATION) as lines:
            for line in lines:
                words = line.split()
                if len(words) >= 2 and words[0] == "SUBMITFILTER" and os.path.exists(words[1]):
                    return words[1]
    except FileNotFoundError:
        pass
    return ""


def _filtered(path: str, arguments: list[str], script: str) -> str:
    """The script as the filter returns it. The real qsub uses a shell for this, arguments in single quotes only."""
    quoted = " ".join(f"'{argument}'" for argument in arguments)
    raw = script.encode(errors="surrogateescape")
    done = subprocess.run(["/bin/sh", "-c", f"{path} {quoted}"], input=raw, stdout=subprocess.PIPE, check=False)
    if done.returncode == 255:
        raise Refused(
            "qsub: Your job has been administratively rejected by the queueing system.\n"
            "qsub: There may be a more detailed explanation prior to this notice."
        )
    if done.returncode != 0:
        raise Refused("qsub: submit filter returned an error code, aborting job submission.")
    return done.stdout.decode(errors="surrogateescape")


def _variables(options: Options, environment: dict[str, str]) -> str:
    """The list that is sent: PBS_O_* first, then -v, then (with -V) the environment, then directory and host."""
    home = pwd.getpwuid(os.getuid())
    given: list[tuple[str, Callable[[], str]]] = [
        ("HOME", lambda: home.pw_dir),
        ("LOGNAME", lambda: home.pw_name),
        ("PATH", lambda: environment.get("PATH", "")),
        ("MAIL", lambda: environment.get("MAIL", f"/var/mail/{home.pw_name}")),
        ("SHELL", lambda: home.pw_shell),
        ("LANG", lambda: environment.get("LANG", "")),
    ]
    items = [f"PBS_O_QUEUE={options.get('q', ['batch'])[0]}"]
    items += [f"PBS_O_{name}={escaped(value())}" for name, value in given if value()]
    if "PBS_O_SUBMIT_FILTER" in environment:
        items.append(f"PBS_O_SUBMIT_FILTER={environment.pop('PBS_O_SUBMIT_FILTER')}")
    if "v" in options:
        try:
            items.append(qsub_list(options["v"][0], environment))
        except BadVariableList as error:
            raise Refused("qsub: invalid -v syntax", 3) from error
    if "V" in options:
        items += [f"{name}={escaped(value)}" for name, value in environment.items() if name != "_"]
    items.append(f"PBS_O_WORKDIR={escaped(os.getcwd())}")
    host = os.uname().nodename
    items += [f"PBS_O_HOST={host}", f"PBS_O_SERVER={host}"]
    return ",".join(items)


if __name__ == "__main__":
    sys.exit(main())
