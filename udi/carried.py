"""What a job carries of an environment file: read at submission, and parsed again, as user text, where it starts.

`UDI=@FILE` and `--image=@FILE` name a file that only its user's own programs open (`udi.runfile`). From then on the job
has this text, whatever becomes of the file: records `KEYWORD=VALUE`, separated by `;`, each value with every byte
outside a small set as %XX, so that lines of scripts, lists of variables and Slurm's environment all keep it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from udi.environment import Listed, Variable
from udi.values import Frozen
from udiroot.errors import UsageError, printable

MARK = "@"
"""Begins an image's name where it is a file's."""
MAX_TEXT = 16 << 10
"""Characters of the text."""
_PLAIN = "/:@.+-_"
_SINGLE = ("file", "image", "volumes", "modules", "workdir")
_CHANGES = ("unset", "set", "prepend", "append")
_WORDS = {"entrypoint": "word", "args": "arg"}
"""What can replace the image's own, and the keyword of each of its words."""
_MAX_PATH = 1024

Record = tuple[str, str]


class RunChanges(Frozen):
    """What replaces an image's own working directory, entry point and arguments, and the changes to its environment:
    `unset NAME`, `set`, `prepend` and `append` NAME=VALUE. Empty, or None, leaves it as the image has it."""

    workdir: str = ""
    entrypoint: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    environment: tuple[Record, ...] = ()

    def wrong(self) -> Iterator[tuple[str, str]]:
        """What no job can have: of what, and why."""
        if self.workdir and (words := _broken_path(self.workdir)):
            yield "workdir", words
        for name in _WORDS:
            words_of: tuple[str, ...] = getattr(self, name) or ()
            if any(map(has_control, words_of)):
                yield name, "has a control character"
            if words_of and not words_of[0] and name == "entrypoint":
                yield name, "must begin with a program"
        for keyword, text in self.environment:
            name, equals, value = text.partition("=")
            rule: Listed | Variable = Listed() if keyword in ("prepend", "append") else Variable()
            pair = name if keyword == "unset" else (name, value)
            if has_control(text):
                yield "environment", f"has a control character at {printable(name)}"
            elif words := rule.broken_by(pair):
                yield "environment", words
            elif bool(equals) == (keyword == "unset"):
                yield "environment", f"has no variable at {printable(name)}"


UNCHANGED = RunChanges()


class Carried(Frozen):
    """What an environment file says, as it would have been typed: `image` as `UDI=` takes it, `volumes` and `modules`
    as lists separated by `;`. `file` is how the user named it."""

    file: str
    image: str
    volumes: str = ""
    modules: str = ""
    run: RunChanges = UNCHANGED

    def text(self) -> str:
        """What the job carries. Raises UsageError where it is too much."""
        from urllib.parse import quote  # few jobs carry an environment file

        text = ";".join(f"{keyword}={quote(value, safe=_PLAIN)}" for keyword, value in self._records())
        if len(text) > MAX_TEXT:
            raise UsageError(f"{printable(self.file)}: a job would have to carry {len(text)} bytes, over {MAX_TEXT}")
        return text

    @classmethod
    def parse(cls, text: str) -> Carried:
        """What the text carries. Raises UsageError: anybody may have written it."""
        single: dict[str, str] = {}
        words: dict[str, list[str]] = {}
        environment: list[Record] = []
        for keyword, value in _split(text):
            owner = next((name for name, word in _WORDS.items() if word == keyword), "")
            if keyword in _SINGLE and keyword not in single and not has_control(value):
                single[keyword] = value
            elif keyword == "own" and value in _WORDS and value not in words:
                words[value] = []
            elif owner in words:
                words[owner].append(value)
            elif keyword in _CHANGES:
                environment.append((keyword, value))
            else:
                raise _not_understood(keyword)
        if not single.get("file") or not single.get("image"):
            raise _not_understood("file and image")
        replaced = {name: tuple(words[name]) if name in words else None for name in _WORDS}
        run = RunChanges(single.pop("workdir", ""), replaced["entrypoint"], replaced["args"], tuple(environment))
        for key, why in run.wrong():
            raise UsageError(f"{printable(single['file'])}: {key} {why}")
        return cls(**single, run=run)

    def _records(self) -> Iterator[Record]:
        for keyword in _SINGLE:
            value = self.run.workdir if keyword == "workdir" else getattr(self, keyword)
            if value:
                yield keyword, value
        for name, keyword in _WORDS.items():
            words: tuple[str, ...] | None = getattr(self.run, name)
            if words is not None:
                yield "own", name
                yield from ((keyword, word) for word in words)
        yield from self.run.environment


class Asked(NamedTuple):
    """A request as it was typed, or would have been."""

    image: str
    volumes: str
    modules: str
    run: RunChanges


def is_file(image: str) -> bool:
    """Whether what stands in an image's place is the name of an environment file."""
    return image.strip().startswith(MARK)


def asked(image: str, volumes: str = "", modules: str = "", carried: str = "") -> Asked:
    """What a job asks for; where `image` names a file, what the job carries of it, and after that what was typed.

    Raises UsageError where the job carries nothing of that file, or what is not understood.
    """
    if not is_file(image):
        return Asked(image, volumes, modules, UNCHANGED)
    name = image.strip().removeprefix(MARK)
    if not carried:
        raise UsageError(
            f"environment file {printable(name)}: the job carries nothing of it",
            "what submits jobs here has not read it; udi env show prints what it says, to be typed in its place",
        )
    found = Carried.parse(carried)
    if found.file != name:
        raise UsageError(f"the job was to have environment file {printable(name)}, and carries {printable(found.file)}")
    return Asked(found.image, _joined(found.volumes, volumes), _joined(found.modules, modules), found.run)


def has_control(text: str) -> bool:
    """Whether a control character is in it, which no name, path or value here may have."""
    return any(c < " " or c == "\x7f" for c in text)


def _joined(*lists: str) -> str:
    return ";".join(each for each in lists if each.strip())


def _broken_path(path: str) -> str:
    if has_control(path):
        return "has a control character"
    names = path.split("/")[1:] if path != "/" else []
    if not path.startswith("/") or len(path) > _MAX_PATH or any(name in ("", ".", "..") for name in names):
        return f"must be a plain absolute path, not '{printable(path)}'"
    return ""


def _split(text: str) -> Iterator[Record]:
    from urllib.parse import unquote  # few jobs carry an environment file

    if len(text) > MAX_TEXT:
        raise UsageError(f"the job carries {len(text)} bytes of an environment file, over {MAX_TEXT}")
    for record in text.split(";"):
        keyword, equals, value = record.partition("=")
        try:
            plain = unquote(value, errors="strict")
        except UnicodeDecodeError as error:
            raise _not_understood(keyword) from error
        if not equals or not value.isascii():
            raise _not_understood(keyword)
        yield keyword, plain


def _not_understood(keyword: str) -> UsageError:
    return UsageError(
        f"what the job carries of its environment file is not understood, at {printable(keyword, 40)}",
        "submit it again",
    )
