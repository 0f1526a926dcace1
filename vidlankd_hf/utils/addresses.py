"""Removes credentials from addresses (URLs)."""

import re
from urllib.parse import quote, unquote

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>`]*", re.IGNORECASE)
_BEGIN = re.compile(r"[a-z][a-z0-9+.-]*(::|://)", re.IGNORECASE)
_WEB = ("http", "https", "ftp", "ftps")
_LEAST_SECRET = 4  # characters; shorter values in a query are not credentials


def public_address(address: str) -> str:
    """Removes user, password and query from an address; a query may hold a signature.

    Addresses may be chained, as fsspec does (`simplecache::https://...`). Paths of files stay as they are.
    """
    return "::".join(_public(part) if "://" in part else part for part in address.split("::"))


def is_address(text: str) -> bool:
    return _BEGIN.match(text) is not None


def without_secrets(text: str) -> str:
    """Applies [`public_address`] to every address in a text, however a library has quoted or capitalised it."""
    return _ADDRESS.sub(lambda found: public_address(found[0]), text)


def hide_secrets(text: str, address: str) -> str:
    """Removes from a text, such as an error, all that [`public_address`] removes from an address."""
    text = text.replace(address, public_address(address))
    for secret in _secrets(address):
        text = re.sub(re.escape(secret), "...", text, flags=re.IGNORECASE)  # %7e and %7E are the same
    return without_secrets(text)


def _public(part: str) -> str:
    scheme, _, rest = part.partition("://")
    rest = rest.partition("?")[0]
    if scheme.lower() in _WEB:
        rest = rest.partition("#")[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _secrets(address: str) -> list[str]:
    """User, password and values of the query in the spellings in use, longest first."""
    found = []
    for part in address.split("::"):
        rest, _, query = part.partition("://")[2].partition("?")
        user = rest.partition("/")[0].rpartition("@")[0]
        found += [user, user.partition(":")[2], query, *(pair.partition("=")[2] for pair in query.split("&"))]
    found += [spelled for secret in found for spelled in (unquote(secret), quote(unquote(secret)))]
    return sorted({secret for secret in found if len(secret) >= _LEAST_SECRET}, key=len, reverse=True)
