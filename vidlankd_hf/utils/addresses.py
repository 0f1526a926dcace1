"""Removes credentials from addresses (URLs)."""

import re
from urllib.parse import quote, unquote

# `pathlib` turns `https://` into `https:/`. A single letter before `:/` is a drive of Windows.
_SLASHES = r"(?:[a-z][a-z0-9+.-]+:/+|[a-z]://)"
_ADDRESS = re.compile(rf"{_SLASHES}[^\s'\"<>`]*", re.IGNORECASE)
_BEGIN = re.compile(rf"[a-z][a-z0-9+.-]*::|{_SLASHES}", re.IGNORECASE)
_SCHEME = re.compile(_SLASHES, re.IGNORECASE)
_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:[0-9]*)?|\.\.\.")
_WEB = ("http", "https", "ftp", "ftps")
_MIN_SECRET_LENGTH = 4  # characters; shorter values in a query are not credentials


def public_address(address: str) -> str:
    """Removes user, password and query (which may hold a signature) from an address.

    Addresses may be chained, as in fsspec (`simplecache::https://...`). File paths stay as they are.
    """
    return "::".join(_public(part) if _SCHEME.search(part) else part for part in _parts(address))


def is_address(text: str) -> bool:
    """Whether a text begins like a URL (`https://`) or a chain of them (`simplecache::`)."""
    return _BEGIN.match(text) is not None


def without_secrets(text: str) -> str:
    """Applies [`public_address`] to every address in a text, however a library has quoted or capitalized it."""
    return _ADDRESS.sub(lambda found: public_address(found[0]), text)


def hide_secrets(text: str, address: str) -> str:
    """Removes from a text, such as an error, all that [`public_address`] removes from an address."""
    text = text.replace(address, public_address(address))
    for secret in _secrets(address):
        text = re.sub(re.escape(secret), "...", text, flags=re.IGNORECASE)  # %7e and %7E are the same
    return without_secrets(text)


def public_word(word: str) -> str:
    """Removes user, password and query from the address at the end of a command-line word (`--x=URL`)."""
    begin = _BEGIN.search(word)
    return word if begin is None else word[: begin.start()] + public_address(word[begin.start() :])


def _parts(address: str) -> list[str]:
    """Splits a chain of addresses; a `::` inside an address, as in a query or in IPv6, does not end it."""
    parts: list[str] = []
    for part in address.split("::"):
        if parts and _SCHEME.search(parts[-1]) and not _SCHEME.match(part):
            parts[-1] += f"::{part}"
        else:
            parts.append(part)
    return parts


def _public(part: str) -> str:
    begin, rest = _after_scheme(part)
    scheme = begin.partition(":")[0].lower()
    rest = rest.partition("?")[0]
    if scheme == "file":  # a path, which may contain @
        return begin + rest
    if scheme in _WEB:
        rest = rest.partition("#")[0]
    host, slash, path = rest.partition("/")
    if scheme in _WEB and not _HOST.fullmatch(host.rpartition("@")[2]):
        return f"{begin}..."  # the password contains an unquoted `/`, `?` or `#`
    return f"{begin}{host.rpartition('@')[2]}{slash}{path}"


def _after_scheme(part: str) -> tuple[str, str]:
    """Divides an address after the slashes that follow its scheme."""
    scheme = _SCHEME.search(part)
    end = scheme.end() if scheme else 0
    return part[:end], part[end:]


def _secrets(address: str) -> list[str]:
    """User, password and values of the query, quoted and unquoted, longest first."""
    found = []
    for part in _parts(address):
        if not _SCHEME.search(part):
            continue
        rest, _, query = _after_scheme(part)[1].partition("?")
        user = rest.partition("/")[0].rpartition("@")[0]
        found += [user, user.partition(":")[2], query, *(pair.partition("=")[2] for pair in query.split("&"))]
    found += [spelled for secret in found for spelled in (unquote(secret), quote(unquote(secret)))]
    return sorted({secret for secret in found if len(secret) >= _MIN_SECRET_LENGTH}, key=len, reverse=True)
