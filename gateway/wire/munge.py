"""MUNGE: how the sites of the field authenticate a user of another machine. Through libmunge, whose calls time out.

A credential holds a text that only the uid it is issued for can decode, once, within some minutes, on machines that
share the site's key; decoding it reveals the uid of its creator.
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
_REASONS = {
    _EXPIRED: "credential has expired; check the clocks of both machines",
    _REWOUND: "credential is from the future; check the clocks of both machines",
    _REPLAYED: "credential was used before",
    _UNAUTHORIZED: "credential was issued for another user",
}


@dataclass(frozen=True)
class Decoded:
    """The text of a credential, and who created it."""

    uid: int
    text: bytes


class Munge:
    """MUNGE through the munged that listens on `socket`; empty: where libmunge looks for it."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def encode(self, text: bytes, for_uid: int) -> bytes:
        """A credential of this process's user that `for_uid` alone can decode. Raises UpstreamFailed."""
        library, credential = _library(), ctypes.c_void_p()
        context = self._context()
        try:
            _set(library, context, _OPTION_UID_RESTRICTION, ctypes.c_uint32(for_uid))
            code = library.munge_encode(ctypes.byref(credential), context, text, len(text))
            if code != _SUCCESS:
                raise UpstreamFailed(f"munge: {_message(library, context, code)}", _hint(code))
            assert credential.value is not None
            return ctypes.string_at(credential.value)
        finally:
            _free()(credential)
            library.munge_ctx_destroy(context)

    def decode(self, credential: bytes) -> Decoded:
        """The text and the creator of a credential for this process's user. Raises NotPermitted, UpstreamFailed."""
        library, text = _library(), ctypes.c_void_p()
        length, uid, gid = ctypes.c_int(), ctypes.c_uint32(), ctypes.c_uint32()
        context = self._context()
        try:
            code = library.munge_decode(
                credential, context, ctypes.byref(text), ctypes.byref(length), ctypes.byref(uid), ctypes.byref(gid)
            )
            if code == _SOCKET:
                raise UpstreamFailed(f"munge: {_message(library, context, code)}", _hint(code))
            if code != _SUCCESS:
                reason = _REASONS.get(code) or _message(library, context, code)
                raise NotPermitted(f"MUNGE authentication failed: {reason}")
            return Decoded(uid.value, ctypes.string_at(text, length.value) if text.value else b"")
        finally:
            _free()(text)
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
        raise UpstreamFailed(
            f"{_LIBRARY} not found", "install MUNGE; it authenticates users of other machines"
        ) from error
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.munge_ctx_create.argtypes, library.munge_ctx_create.restype = [], pointer
    library.munge_ctx_destroy.argtypes, library.munge_ctx_destroy.restype = [pointer], None
    library.munge_strerror.argtypes, library.munge_strerror.restype = [ctypes.c_int], text
    library.munge_ctx_strerror.argtypes, library.munge_ctx_strerror.restype = [pointer], text
    library.munge_encode.argtypes = [pointer, pointer, ctypes.c_char_p, ctypes.c_int]
    library.munge_decode.argtypes = [text, pointer, pointer, pointer, pointer, pointer]
    return library  # munge_ctx_set is variadic: its arguments carry their own types


@functools.cache
def _free() -> ctypes._NamedFuncPointer:
    free = ctypes.CDLL(None).free
    free.argtypes, free.restype = [ctypes.c_void_p], None
    return free


def _set(library: ctypes.CDLL, context: ctypes.c_void_p, option: int, value: object) -> None:
    code = library.munge_ctx_set(context, option, value)
    if code != _SUCCESS:
        raise UpstreamFailed(f"munge: {_message(library, context, code)}")


def _message(library: ctypes.CDLL, context: ctypes.c_void_p, code: int) -> str:
    message: bytes = library.munge_ctx_strerror(context) or library.munge_strerror(code)
    return printable(message.decode("ascii", "replace").lower())


def _hint(code: int) -> str:
    return "is munged running? gateway.munge names its socket" if code == _SOCKET else ""
