"""Torque's variable lists: `-v` as qsub reads it, as the server keeps it, as qstat shows it.

Three different rules meet here, and all are kept with their traps: qsub splits at every comma, the server then splits
at unescaped commas and newlines and drops backslashes, and qstat inserts backslashes again (torque-reference c,
cray-reference T60).
"""

import re
from collections.abc import Mapping

_SPECIAL = re.compile(r"([\"',\\\n])")


class BadVariableList(Exception):
    """The list starts with `=` or `,`, or has an empty item (T61)."""


def escaped(value: str) -> str:
    """A value with a backslash before each special character."""
    return _SPECIAL.sub(r"\\\1", value)


def qsub_list(text: str, environment: Mapping[str, str]) -> str:
    """What qsub sends for `-v text`: a bare NAME (or `NAME=` before a comma) takes its value from the environment."""
    if text[:1] in ("=", ",", ""):
        raise BadVariableList(text)
    parts = text.split(",")
    sent = []
    for index, part in enumerate(parts):
        name, equals, value = part.strip().partition("=")
        if not name:
            raise BadVariableList(text)
        if not equals or (not value and index < len(parts) - 1):
            sent.append(f"{name}={escaped(environment.get(name, ''))}")
        else:
            sent.append(f"{name}={value}")
    return ",".join(sent)


def server_items(sent: str) -> list[str]:
    """The items that the server keeps of a sent list, backslashes dropped."""
    items, item, literal = [], "", False
    for char in sent:
        if literal:
            item, literal = item + char, False
        elif char == "\\":
            literal = True
        elif char in ",\n":
            items.append(item)
            item = ""
        else:
            item += char
    return [item.strip() for item in [*items, item] if item.strip()]


def shown(items: list[str]) -> str:
    """The list as qstat shows it, before any XML escaping."""
    return ",".join(escaped(item) for item in items)


def environment_of(items: list[str]) -> dict[str, str]:
    """The environment of a job's shell: of several items with one name the last; non-assignments are dropped."""
    return {name: value for name, equals, value in (item.partition("=") for item in items) if equals and name}
