"""SHA-256 by the interpreter's own module: `hashlib` would load all of libcrypto."""


def sha256(data: bytes) -> str:
    """The digest of `data` as 64 hex digits."""
    try:
        from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]
    except ImportError:  # Python 3.12 and later
        from hashlib import sha256
    return str(sha256(data).hexdigest())
