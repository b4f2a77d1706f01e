"""The fields of our text formats, which are plans, records and reports: escaped text, and the tokens that name nodes.

A node's identity is how programs know it: on a Cray its nid in decimal, in a cluster its host name. Its name is how
people and other hosts know it. Both are tokens; `udi.nodes` makes them, and nothing in `udiroot` does.
"""

_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._:@+=,~-"
_TOKEN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
_MAX_TOKEN = 64
_MAX_DIGITS = 20
LARGEST_ID = (1 << 32) - 2
"""The largest uid and gid: the kernel's type has 32 bits, and all of them set mean "no change"."""


def escape(text: str) -> str:
    """A field as plan and record write it: bytes outside a small set become %XX; nothing becomes `%`."""
    raw = text.encode("utf-8", "surrogateescape")
    if raw and not raw.translate(None, _PLAIN):
        return text
    return "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in raw) or "%"


def unescape(field: str) -> str:
    """The text of which `escape` made the field. Raises ValueError."""
    if "%" not in field:
        return field
    if field == "%":
        return ""
    head, *parts = field.split("%")
    raw = head.encode() + b"".join(bytes((int(part[:2], 16),)) + part[2:].encode() for part in parts)
    return raw.decode("utf-8", "surrogateescape")


def is_token(text: str) -> bool:
    """Whether `text` is `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`."""
    return bool(text) and "," not in text and are_tokens((text,), text)


def are_tokens(tokens: "tuple[str, ...]", joined: str) -> bool:
    """Whether each of `tokens`, which commas make `joined`, is a token: a few passes of the interpreter's own loops,
    since a plan may have tens of thousands."""
    if joined.encode("utf-8", "surrogatepass").translate(None, _TOKEN + b",") or max(map(len, tokens)) > _MAX_TOKEN:
        return False
    return not any(wrong in f",{joined}," for wrong in (",.", ",_", ",-", ",,"))


def absolute(path: str) -> str:
    """An absolute path in its one spelling. Raises ValueError for `.`, `..`, doubled or trailing slashes, and NUL."""
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or any(part in ("", ".", "..") for part in parts[1:]) or "\0" in path:
        raise ValueError(f"not a plain absolute path: '{path}'")
    return path


def number(text: str, largest: int = LARGEST_ID) -> int:
    """The number that `text` writes in ASCII digits, of 0 to `largest`; -1 for every other text.

    `int` accepts digits of all scripts, signs, blanks and underscores, and raises for thousands of digits.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > _MAX_DIGITS:
        return -1
    value = int(text)
    return value if value <= largest else -1
