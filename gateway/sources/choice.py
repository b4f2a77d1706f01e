"""Which of several images in one archive is meant: by a name, or `@0`, `@1`, … where an image has none."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from gateway.sources.listing import listed
from udiroot.errors import NotFound, UsageError, counted, printable

_BY_NUMBER = re.compile(r"@([0-9]{1,6})")


class Choice:
    """The images of an archive: each has any number of names. `form` is how a user writes one of them."""

    def __init__(self, names: Sequence[Sequence[str]], what: str, form: str) -> None:
        self._names = names
        self._what = what
        self._form = form

    def named(self, wanted: str, same: Callable[[str, str], bool]) -> list[int]:
        """The images that `wanted` names, of which there may be several. Raises NotFound."""
        by_number = _BY_NUMBER.fullmatch(wanted)
        if by_number:
            found = [int(by_number[1])] if int(by_number[1]) < len(self._names) else []
        else:
            found = [at for at, names in enumerate(self._names) if any(same(name, wanted) for name in names)]
        if not found:
            raise NotFound(f"{self._what} has no image tagged '{printable(wanted)}'", f"it has: {self._listed()}")
        return found

    def unclear(self, numbers: Sequence[int]) -> UsageError:
        """The error where the user must choose between these images."""
        example = self._spelling(numbers[0])
        return UsageError(
            f"{self._what} has {counted(len(numbers), 'image')}: {self._listed(numbers)}",
            f"choose one, such as {self._form.format(example)}",
        )

    def _listed(self, numbers: Sequence[int] | None = None) -> str:
        chosen = range(len(self._names)) if numbers is None else numbers
        return listed([name for at in chosen for name in (self._names[at] or [f"@{at} (without a name)"])])

    def _spelling(self, number: int) -> str:
        """How a user names an image so that no other is meant."""
        names = self._names[number]
        return printable(names[0], 100) if names else f"@{number}"


def is_number(wanted: str) -> bool:
    """Whether a user chose by number."""
    return bool(_BY_NUMBER.fullmatch(wanted))
