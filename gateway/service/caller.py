"""Who sends a request, what came with it, and what the site lets that user do."""

from __future__ import annotations

import contextlib
import grp
from dataclasses import dataclass, field

from gateway.wire.events import EventSink
from udi.accounts import Account, account_of_uid
from udi.gatewayconfig import GatewayConfig
from udiroot.errors import NotFound, NotPermitted, printable


@dataclass
class Call:
    """One request in progress: its caller, its descriptors, which `held` closes, and where its events go."""

    uid: int
    on_event: EventSink
    descriptors: list[int] = field(default_factory=list)
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def account(self) -> Account:
        """The caller's account; one that the gateway does not know is called by its number, and in no group."""
        try:
            return account_of_uid(self.uid)
        except NotFound:
            return Account(str(self.uid), self.uid, self.uid, (), "/", "/bin/sh")

    @property
    def groups(self) -> tuple[int, ...]:
        """All groups of the caller, by the gateway's own account database."""
        try:
            return account_of_uid(self.uid).groups
        except NotFound:
            return ()

    def is_publisher(self, settings: GatewayConfig) -> bool:
        """Whether the caller may make images public."""
        if self.uid == 0:
            return True
        try:
            return account_of_uid(self.uid).name in settings.publishers
        except NotFound:
            return False

    def owner(self, public: bool, settings: GatewayConfig) -> int | None:
        """The owner of a new name: the caller, or nobody for a public one. Raises NotPermitted."""
        if not public:
            return self.uid
        if not self.is_publisher(settings):
            raise NotPermitted("only a publisher may make an image public", "gateway.publishers lists them")
        return None

    def shared_with(self, group: str) -> tuple[int, ...]:
        """The gid of the group that may use a new name too; empty for none. Raises NotFound, NotPermitted."""
        if not group:
            return ()
        try:
            gid = grp.getgrnam(group).gr_gid
        except (KeyError, ValueError) as error:  # ValueError: a NUL byte
            raise NotFound(f"group {printable(group)!r} does not exist on the gateway") from error
        if gid not in self.groups:
            raise NotPermitted(f"you are not in group {printable(group)!r}")
        return (gid,)
