"""Which images must be signed, and by whom: the site's rules, and what is known of where an image came from.

A rule names repositories, and the public keys that count for them. Signatures are verified by the gateway
(`gateway.sources.signatures`) when an image is pulled; what it found stays beside the image (`udi.provenance`), and new
jobs are judged by that record and by the rules that hold now.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Protocol

from udi.provenance import Provenance
from udi.reference import ImageReference
from udi.registries import HUB, full_name
from udi.settings import PATH, Bounds, Matching, OneOf, required, setting
from udi.values import Frozen
from udiroot.errors import ConfigError, UsageError, printable

ACCEPT, PUBLISHERS, REFUSE = "accept", "publishers", "refuse"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?"
_PATTERN = Matching(
    rf"\*|{_HOST}/(?:\*|{_COMPONENT}(?:/{_COMPONENT})*(?:/\*)?)", "REGISTRY/REPOSITORY, REGISTRY/* or *, in lower case"
)
_REPOSITORY = Matching(rf"{_HOST}/{_COMPONENT}(?:/{_COMPONENT})*", "REGISTRY/REPOSITORY, in lower case")
_MAX_NEEDED = 100


class SignatureRule(Frozen, kw_only=True):
    """Which images must be signed, and by which keys. The first rule that names an image decides."""

    images: tuple[str, ...] = required(
        "repositories, such as quay.io/team/app; registry.centre/* is all that is below, * every image of a registry",
        _PATTERN,
    )
    keys: tuple[str, ...] = setting(
        [], "PEM files of public keys, and directories of them (*.pem, *.pub); empty: no signature is needed", PATH
    )
    needed: int = setting(1, "how many of these keys must have signed an image", Bounds(1, _MAX_NEEDED))
    repositories: tuple[str, ...] = setting(
        [], "other repositories that a signature may name, as that which the images were copied from", _REPOSITORY
    )
    any_name: bool = setting(
        False, "whether a signature counts that names any other repository, or none, as those of cosign 3 do"
    )

    def check(self) -> None:
        """Raises ConfigError for a rule that names no image, or that no image could meet."""
        if not self.images:
            raise ConfigError("images must not be empty")
        if not self.keys and (self.needed > 1 or self.repositories or self.any_name):
            raise ConfigError("keys must not be empty in a rule that says what signatures must be")

    def names(self, repository: str) -> bool:
        """Whether the rule is for this repository, which is spelled with its registry (`docker.io/library/debian`)."""
        return any(_covers(_canonical(pattern), repository) for pattern in self.images)

    def accepted_names(self, repository: str) -> frozenset[str]:
        """The repositories that a signature of an image of `repository` may name."""
        return frozenset([repository, *map(_canonical, self.repositories)])


class SignaturesConfig(Frozen, kw_only=True):
    """Signatures of images, in cosign's format, by keys of the site. Without this table, nothing is asked for."""

    rules: tuple[SignatureRule, ...] = setting([], "which images must be signed, and by which keys")
    default: str = setting(ACCEPT, "what becomes of a registry's images that no rule names", OneOf(ACCEPT, REFUSE))
    files: str = setting(
        ACCEPT,
        "images that come from no registry (archives, disks, the Docker daemon's own): from whom they are accepted",
        OneOf(ACCEPT, PUBLISHERS, REFUSE),
    )

    @property
    def is_active(self) -> bool:
        """Whether the site asks for anything. If not, no record is kept, and none is read."""
        return bool(self.rules) or self.default != ACCEPT or self.files != ACCEPT

    def rule_for(self, repository: str) -> SignatureRule | None:
        """The rule that decides on images of a repository; None where `default` does."""
        return next((rule for rule in self.rules if rule.names(repository)), None)

    def may_be_called(self, repository: str, origin: Provenance) -> bool:
        """Whether an image may have a name of this repository for others than whoever pulled it: one to be signed
        is for images of the repository itself, and for what publishers of the site bring."""
        rule = self.rule_for(repository) if repository else None
        return rule is None or not rule.keys or origin.publisher or origin.repository == repository

    def objection_to(
        self, known: Iterable[Provenance], named: str | None, trusted: Trusted | None = None, *, own: bool = True
    ) -> str:
        """Why an image is not accepted, in words that follow its name; empty where it is.

        One provenance that the rules accept is enough: the content is the same. An image of which none is `known` was
        pulled before the site asked; it counts as an unsigned one of the repository that its name says (`named`, empty
        for a name of no registry), and is never accepted where it is called by its id (None). Where the name is not the
        caller's `own` and must be signed, what came from elsewhere does not count. Signers count that `trusted` has
        among the keys of their rule; without it, all that were accepted once.
        """
        origins = [each for each in known if own or self.may_be_called(named or "", each)]
        if not origins and named is None:
            strict = self.default == REFUSE or any(rule.keys for rule in self.rules) or self.files != ACCEPT
            return "was pulled before the site asked for signatures" if strict else ""
        if not origins:
            objection = self._objection(Provenance(repository=named or ""), None)
            return f"{objection}; it was pulled before the site asked for that" if objection else ""
        objections = [self._objection(origin, trusted) for origin in origins]
        return "" if "" in objections else objections[-1]

    def _objection(self, origin: Provenance, trusted: Trusted | None) -> str:
        if not origin.repository:
            accepted = self.files == ACCEPT or (self.files == PUBLISHERS and origin.publisher)
            return "" if accepted else self.refusal_of_files()
        rule = self.rule_for(origin.repository)
        if rule is None:
            return "" if self.default == ACCEPT else "comes from a repository that no rule of the site accepts"
        if not rule.keys:
            return ""
        keys = None if trusted is None else trusted.of(rule)
        signers = {signer for signer in origin.signers if keys is None or signer in keys}
        if len(signers) >= rule.needed:
            return ""
        return f"is signed by {len(signers)} of the keys that the site trusts for it, {rule.needed} needed"

    def refusal_of_files(self) -> str:
        """Why an image that comes from no registry is not accepted."""
        whom = "and takes others from its publishers only" if self.files == PUBLISHERS else "and no others"
        return f"comes from no registry; the site takes images of registries {whom}"


class Trusted(Protocol):
    """The keys that count now."""

    def of(self, rule: SignatureRule) -> Container[str]:
        """The fingerprints of those of a rule. Raises ConfigError where the keys cannot be read."""


def named_repository(text: str) -> tuple[str, str]:
    """The repository that a signature names, spelled with its registry, and the tag where it states one.

    cosign spells Docker Hub `index.docker.io`, and states a tag only where the signer asked for it. Raises UsageError.
    """
    reference = ImageReference.parse(text)
    if reference.id or reference.scheme:
        raise UsageError(f"not the name of a repository: '{printable(text)}'")
    stated = reference.tag if text.partition("@")[0].endswith(f":{reference.tag}") else ""
    return full_name(reference, HUB), stated


def _canonical(pattern: str) -> str:
    """Docker Hub has two names, and its official images are in `library/`: a rule that says it otherwise must not
    be one for no image."""
    registry, slash, rest = pattern.partition("/")
    registry = HUB if registry == "index.docker.io" else registry
    if registry == HUB and slash and "/" not in rest and rest != "*":
        rest = f"library/{rest}"
    return registry + slash + rest


def _covers(pattern: str, repository: str) -> bool:
    if pattern.endswith("*"):
        return repository.startswith(pattern[:-1])
    return repository == pattern


def unknown_registries(settings: SignaturesConfig, names: Container[str]) -> list[ConfigError]:
    """Errors for rules of registries that the site does not have: a misspelled one would let everything pass."""
    return [
        ConfigError(f"signatures.rules[{number}].images: registry {printable(registry)} is not one of registry.hosts")
        for number, rule in enumerate(settings.rules)
        for registry in dict.fromkeys(_canonical(pattern).partition("/")[0] for pattern in rule.images)
        if registry not in ("*", "") and registry not in names
    ]
