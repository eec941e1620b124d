"""Fingerprints of gift codes: equal for equal codes, and useless without the key."""

import hashlib
import hmac
import secrets


def fingerprint(key: str, code: str) -> str:
    """HMAC-SHA256 of ``code`` under ``key``, in hexadecimal."""
    return hmac.new(key.encode(), code.encode(), hashlib.sha256).hexdigest()


def new_key() -> str:
    """A random key for ``fingerprint``."""
    return secrets.token_urlsafe(32)
