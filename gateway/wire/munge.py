"""MUNGE: the field's proof of who somebody is on another machine of the site. By libmunge, whose calls have own limits.

A credential holds a text that only the uid it is made for can decode, once, within some minutes, on machines that share
the site's key; decoding it tells who made it.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

from udiroot.errors import NotPermitted, UpstreamFailed, printable

MAX_TEXT = 512 << 10
"""munged takes requests of up to 1 MiB, and base64 makes a third more of them."""
_SUCCESS, _SOCKET, _EXPIRED, _REWOUND, _REPLAYED, _UNAUTHORIZED = 0, 6, 15, 16, 17, 18
_OPTION_SOCKET, _OPTION_UID_RESTRICTION = 8, 9
_LIBRARY = "libmunge.so.2"
_WHY = {
    _EXPIRED: "it is too old; are the clocks right?",
    _REWOUND: "it is from the future; are the clocks right?",
    _REPLAYED: "it was used before",
    _UNAUTHORIZED: "it was made for somebody else",
}


@dataclass(frozen=True)
class Proved:
    """What a credential said, and who made it."""

    uid: int
    text: bytes


class Munge:
    """MUNGE through the munged that listens on `socket`; empty: where libmunge looks for it."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def encode(self, text: bytes, for_uid: int) -> bytes:
        """A credential of this process's user that `for_uid` alone can decode. Raises UpstreamFailed."""
        library, made = _library(), ctypes.c_char_p()
        context = self._context()
        try:
            _set(library, context, _OPTION_UID_RESTRICTION, ctypes.c_uint32(for_uid))
            code = library.munge_encode(ctypes.byref(made), context, text, len(text))
            if code != _SUCCESS:
                raise UpstreamFailed(f"munge: {_said(library, context, code)}", _hint(code))
            assert made.value is not None
            return made.value
        finally:
            _free(made)
            library.munge_ctx_destroy(context)

    def decode(self, credential: bytes) -> Proved:
        """What a credential says to this process's user. Raises NotPermitted where it proves nothing."""
        library, text = _library(), ctypes.c_void_p()
        length, uid, gid = ctypes.c_int(), ctypes.c_uint32(), ctypes.c_uint32()
        context = self._context()
        try:
            code = library.munge_decode(
                credential, context, ctypes.byref(text), ctypes.byref(length), ctypes.byref(uid), ctypes.byref(gid)
            )
            if code == _SOCKET:
                raise UpstreamFailed(f"munge: {_said(library, context, code)}", _hint(code))
            if code != _SUCCESS:
                raise NotPermitted(f"no proof of who asks: {_WHY.get(code) or _said(library, context, code)}")
            return Proved(uid.value, ctypes.string_at(text, length.value) if text.value else b"")
        finally:
            _free(text)
            library.munge_ctx_destroy(context)

    def _context(self) -> ctypes.c_void_p:
        library = _library()
        context = ctypes.c_void_p(library.munge_ctx_create())
        if self._socket:
            _set(library, context, _OPTION_SOCKET, ctypes.c_char_p(self._socket.encode()))
        return context


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise UpstreamFailed(f"{_LIBRARY} is not here", "MUNGE proves who asks over the network; install it") from error
    library.munge_ctx_create.restype = ctypes.c_void_p
    library.munge_strerror.restype = library.munge_ctx_strerror.restype = ctypes.c_char_p
    return library


def _set(library: ctypes.CDLL, context: ctypes.c_void_p, option: int, value: object) -> None:
    code = library.munge_ctx_set(context, option, value)
    if code != _SUCCESS:
        raise UpstreamFailed(f"munge: {_said(library, context, code)}")


def _said(library: ctypes.CDLL, context: ctypes.c_void_p, code: int) -> str:
    said: bytes = library.munge_ctx_strerror(context) or library.munge_strerror(code)
    return printable(said.decode("ascii", "replace").lower())


def _hint(code: int) -> str:
    return "is munged running? gateway.wire.munge names its socket" if code == _SOCKET else ""


def _free(pointer: ctypes.c_char_p | ctypes.c_void_p) -> None:
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    free(ctypes.cast(pointer, ctypes.c_void_p))
