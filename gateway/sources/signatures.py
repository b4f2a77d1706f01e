"""Whether an image of a registry has the signatures that the site asks for, in cosign's formats, by the site's keys.

Read are: signatures under the tag `sha256-<hex>.sig` of the image's own repository, or attached as referrers (cosign's
SIGNATURE_SPEC), and sigstore bundles with a DSSE envelope among the referrers, as cosign 3 makes them (BUNDLE_SPEC).
Signed may be the manifest, or an index by which it was chosen: the chain between them is by digests. Keyless signatures
need authorities and logs elsewhere, and are named and not read.

Nothing of a signature is believed before a key of the site has verified it. What cannot be read, or is somebody else's,
is passed over and becomes the reason of a refusal; a registry that cannot be asked is an error, and no refusal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gateway.image.manifest import check_content, check_digest
from gateway.sources.claims import Claim, Signed, claim_of, statements
from gateway.sources.registry import Registry
from gateway.sources.verifying import Verifier
from udi.jsonvalue import JsonValue
from udi.keyring import KeyRings
from udi.provenance import Provenance
from udi.reference import ImageReference
from udi.signatures import SignatureRule, SignaturesConfig
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, TimedOut, UpstreamFailed, printable

_MAX_PAYLOAD = 1 << 18
_MAX_MANIFEST = 1 << 20
_MOST = 64
"""Signatures of one image that are read, and referrers."""
_MAX_REASONS = 3
_BUNDLE = "application/vnd.dev.sigstore.bundle"
_ATTACHED = (
    _BUNDLE,
    "application/vnd.dev.cosign.artifact.sig.",
    "application/vnd.oci.empty.",  # what some registries state for a bundle
)
"""How types of referrers begin that may be signatures."""


class Unsigned(NotPermitted):
    """The registry answered, and the image does not have the signatures that the site asks for."""


class SignatureCheck:
    """The site's rules, for one pull. The keys are read from the disk when a rule needs them, and once."""

    def __init__(self, settings: SignaturesConfig) -> None:
        self._settings = settings
        self._rings = KeyRings()

    def signers(
        self, registry: Registry, repository: str, reference: ImageReference, chain: Sequence[str]
    ) -> tuple[str, ...]:
        """The fingerprints of the keys that signed the image; none where no rule asks for a signature.

        `repository` is the image's own, spelled with the registry that the site calls it by, and `chain` the digests of
        the indexes by which it was chosen, and of its manifest. Raises Unsigned; NotPermitted, UpstreamFailed, TimedOut
        where the registry does not say; ConfigError.
        """
        rule = self._settings.rule_for(repository)
        if rule is None or not rule.keys:
            objection = self._settings.objection_to([Provenance(repository=repository)], repository)
            if objection:
                raise Unsigned(f"image {reference} {objection}", "signatures.default of the site refuses it")
            return ()
        search = _Search(registry, rule, Verifier(self._rings.keys(rule)), repository, reference)
        try:
            found = search.run(chain)
        except (UpstreamFailed, TimedOut, NotPermitted) as error:
            error.message = f"the signatures of {reference} cannot be read: {error.message}"
            raise
        if len(found) < rule.needed:
            raise Unsigned(
                f"image {reference} is not signed as the site requires: {search.why()}",
                f"{len(found)} of the site's keys for {repository} signed it, {rule.needed} needed",
            )
        return tuple(sorted(found))


@dataclass
class _Search:
    """The search for signatures of one image, until there are enough."""

    registry: Registry
    rule: SignatureRule
    verifier: Verifier
    repository: str
    reference: ImageReference
    found: set[str] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)
    left: int = _MOST

    def run(self, chain: Sequence[str]) -> set[str]:
        """Signatures under their tag first, as nearly all are, then what is attached as referrers."""
        for places in (self._under_tag, self._referrers):
            for digest in chain:
                for signed in self._readable(places(digest)):
                    self._consider(signed, chain)
                    if len(self.found) >= self.rule.needed:
                        return self.found
        return self.found

    def why(self) -> str:
        """Why there are not enough, in words."""
        kinds = list(dict.fromkeys(self.reasons))
        more = f", and {len(kinds) - _MAX_REASONS} more reasons" if len(kinds) > _MAX_REASONS else ""
        few = f"too few keys signed it ({len(self.found)})" if self.found else "its registry has no signature of it"
        return ("; ".join(kinds[:_MAX_REASONS]) or few) + more

    def _consider(self, signed: Signed, chain: Sequence[str]) -> None:
        signer = self.verifier.signer(signed.signature, signed.content)
        if not signer:
            keyless = "a signature is keyless (by a certificate), and only keys count"
            self.reasons.append(
                keyless if signed.keyless else "a signature is by no key of the site, or of other content"
            )
            return
        try:
            objection = self._objection(claim_of(signed), chain)
        except ImageInvalid as error:
            objection = f"what a key of the site signed cannot be read: {error.message}"
        if objection:
            self.reasons.append(objection)
        else:
            self.found.add(signer)

    def _objection(self, claim: Claim, chain: Sequence[str]) -> str:
        """Why what a key of the site signed is not this image; empty where it is."""
        if not set(claim.digests) & set(chain):
            return f"a signature is of another image ({printable(', '.join(claim.digests[:2]), 80)})"
        if self.rule.any_name:
            return ""
        if not claim.repository:
            return "a signature names no repository, as those of cosign 3 do not (any_name of the rule would accept it)"
        if claim.repository not in self.rule.accepted_names(self.repository):
            return f"a signature names the repository {printable(claim.repository, 80)}, not {self.repository}"
        if claim.tag and self.reference.tag and not self.reference.digest and claim.tag != self.reference.tag:
            return f"a signature is of the tag {printable(claim.tag, 80)}"
        return ""

    def _readable(self, manifests: Iterator[tuple[JsonValue, str]]) -> Iterator[Signed]:
        """The signatures in manifests, up to a limit; what is none is noted."""
        for layer, kind in manifests:
            self.left -= 1
            if self.left < 0:
                self.reasons.append(f"only {_MOST} of its signatures were read")
                return
            with self._noting():
                yield from statements(layer, kind, self._blob(layer))

    def _blob(self, layer: JsonValue) -> bytes:
        size = layer.get("size").integer()
        if size > _MAX_PAYLOAD:
            raise ImageInvalid(f"it has {size} bytes, the limit is {_MAX_PAYLOAD}")
        digest = check_digest(layer.get("digest"), "digest of a signature")
        content = self.registry.payload(digest, _MAX_PAYLOAD, size)
        check_content(content, digest, "signature")
        return content

    def _under_tag(self, digest: str) -> Iterator[tuple[JsonValue, str]]:
        """The layers of cosign's own tag for signatures of a digest."""
        try:
            text, _ = self.registry.manifest(f"{digest.replace(':', '-')}.sig", _MAX_MANIFEST)
        except NotFound:
            return
        yield from self._layers(text)

    def _referrers(self, digest: str) -> Iterator[tuple[JsonValue, str]]:
        """The layers of all signatures and bundles that the registry lists for a digest."""
        entries: list[JsonValue] = []
        with self._noting(), contextlib.suppress(NotFound):
            index = JsonValue.parse(self.registry.referrers(digest, _MAX_MANIFEST), "list of referrers")
            entries = index.as_object().get("manifests").items()
        for entry in entries[:_MOST]:
            with self._noting():
                if not entry.get("artifactType").text("").startswith(_ATTACHED):
                    continue
                at = check_digest(entry.get("digest"), "digest of a signature")
                text, _ = self.registry.manifest(at, _MAX_MANIFEST)
                check_content(text, at, "manifest of a signature")
                yield from self._layers(text)

    def _layers(self, text: bytes) -> Iterator[tuple[JsonValue, str]]:
        with self._noting():
            layers = JsonValue.parse(text, "manifest of a signature").as_object().get("layers").items()
            for layer in layers:
                yield layer, layer.get("mediaType").text("")

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """What is not of its form, or is not there, is a reason and no error."""
        try:
            yield
        except (ImageInvalid, NotFound) as error:
            self.reasons.append(f"a signature cannot be read: {error.message}")
