"""`udi modules`: what the site offers to go with an image, to the one who asks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from udi.accounts import account_of_uid
from udi.config import SiteConfig
from udi.sitemodules import may_have


class Offer(NamedTuple):
    """A module: whether a job has it without asking, and whether the caller may have it."""

    name: str
    description: str
    default: bool
    allowed: bool


def offered(site: SiteConfig) -> tuple[Offer, ...]:
    """Every module of the site, in the order of its configuration. Raises NotFound for a caller without an account."""
    caller = account_of_uid(os.getuid())
    return tuple(
        Offer(name, module.description, module.default, may_have(module, caller))
        for name, module in site.modules.items()
    )


def as_table(offers: Sequence[Offer]) -> str:
    """For people, with a line of heads."""
    rows = [("NAME", "USE", "DESCRIPTION"), *((each.name, _use(each), each.description) for each in offers)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{name:{widths[0]}}  {use:{widths[1]}}  {words}".rstrip() for name, use, words in rows)


def _use(offer: Offer) -> str:
    if not offer.allowed:
        return "not for you"
    return "by default" if offer.default else "on request"
