"""Whether a signature is one of a key of the site: with `cryptography`, in this process.

The library rather than the program openssl: there are up to thousands of pairs of a key and a signature, no file has to
be written for one, and of a stranger's bytes it parses nothing but the two numbers of an ECDSA signature. It is loaded
where a rule asks for signatures, and nowhere else.

How cosign signs (its specification, "Signature Schemes", and sigstore's `signature` package): ECDSA and RSA over the
SHA-256 of the payload, newer releases over the hash that is as long as the curve; RSA by PKCS #1 v1.5, with some key
services by PSS; Ed25519 over the payload itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from udi.keyring import PublicKey
from udiroot.errors import ConfigError, printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

_LEAST_RSA = 2048
Check = Callable[[bytes, bytes], None]
"""Of a signature and what it is over; raises InvalidSignature."""


class Verifier:
    """Verifies by the keys of one rule."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        """Raises ConfigError for a key of a kind that cosign does not have, or a weak one."""
        self._checks = [(key.fingerprint, _checks_of(key)) for key in keys]

    def signer(self, signature: bytes, content: bytes) -> str:
        """The fingerprint of the key whose signature over `content` this is; empty where it is of none."""
        from cryptography.exceptions import InvalidSignature

        for fingerprint, checks in self._checks:
            for check in checks:
                try:
                    check(signature, content)
                except InvalidSignature:
                    continue
                return fingerprint
        return ""


def _checks_of(key: PublicKey) -> list[Check]:
    """The ways in which a signature may be one of a key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        loaded = load_der_public_key(key.der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{key.path}: not a valid public key: {printable(error)}") from error
    if isinstance(loaded, EllipticCurvePublicKey):
        return _of_curve(loaded, key.path)
    if isinstance(loaded, RSAPublicKey):
        return _of_rsa(loaded, key.path)
    if isinstance(loaded, Ed25519PublicKey):
        return [loaded.verify]
    raise _unsuitable(key.path, f"a key of type {type(loaded).__name__.removesuffix('PublicKey').lstrip('_')}")


def _of_curve(key: EllipticCurvePublicKey, path: str) -> list[Check]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    own = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
    if key.curve.name not in own:
        raise _unsuitable(path, f"a key on the curve {printable(key.curve.name)}")
    algorithms = {algorithm.name: algorithm for algorithm in (hashes.SHA256(), own[key.curve.name])}

    def checked(algorithm: hashes.HashAlgorithm) -> Check:
        return lambda signature, content: key.verify(signature, content, ec.ECDSA(algorithm))

    return [checked(algorithm) for algorithm in algorithms.values()]


def _of_rsa(key: RSAPublicKey, path: str) -> list[Check]:
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.hashes import SHA256

    if key.key_size < _LEAST_RSA:
        raise _unsuitable(path, f"an RSA key of {key.key_size} bits")
    pss = padding.PSS(padding.MGF1(SHA256()), padding.PSS.AUTO)
    return [
        lambda signature, content: key.verify(signature, content, padding.PKCS1v15(), SHA256()),
        lambda signature, content: key.verify(signature, content, pss, SHA256()),
    ]


def _unsuitable(path: str, what: str) -> ConfigError:
    return ConfigError(
        f"{path}: {what} verifies no image", f"ECDSA on P-256, P-384 or P-521, RSA from {_LEAST_RSA} bits, or Ed25519"
    )
