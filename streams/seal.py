"""PINs are sealed before they leave a provider adapter; only a holder of the keys opens them again.

Fernet, keys from ``ORDERWATCH_PIN_KEYS``: comma separated, newest first. The newest seals, every one opens. To rotate,
put a new key in front, run `orderwatch db reseal`, then drop the old key.
"""

from collections.abc import Callable, Mapping

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from streams.errors import ConfigError, EventError

VARIABLE = "ORDERWATCH_PIN_KEYS"
_HINT = "expected Fernet keys, comma separated, newest first (each 32 bytes in URL-safe base64)"


class Sealer:
    """Seals and opens. Holds keys, so it never prints them."""

    def __init__(self, keys: list[str]) -> None:
        """Raises ``ConfigError`` that says which key is wrong, never what it is."""
        made = []
        for number, key in enumerate(keys, start=1):
            try:
                made.append(Fernet(key))
            except ValueError:
                raise ConfigError(f"{VARIABLE}: key {number} of {len(keys)} is not a Fernet key; {_HINT}") from None
        if not made:
            raise ConfigError(f"{VARIABLE} is empty; {_HINT}")
        self._fernet = MultiFernet(made)
        self._newest = made[0]
        self._count = len(made)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Sealer":
        """Raises ``ConfigError`` when the variable is absent, empty or holds something that is not a key."""
        if VARIABLE not in environ:
            raise ConfigError(f"{VARIABLE} is not set; {_HINT}")
        return cls([key.strip() for key in environ[VARIABLE].split(",") if key.strip()])

    def seal(self, pin: str) -> str:
        """A token of printable ASCII. Sealing the same PIN twice gives two tokens."""
        return self._fernet.encrypt(pin.encode()).decode("ascii")

    def open(self, sealed: str) -> str:
        """The PIN. Raises ``EventError`` when no key of ours sealed it."""
        return self._opened(sealed, self._fernet.decrypt).decode()

    def rotate(self, sealed: str) -> str:
        """The same PIN under the newest key. Raises ``EventError`` when no key of ours sealed it."""
        return self._opened(sealed, self._fernet.rotate).decode("ascii")

    def newest(self, sealed: str) -> bool:
        """Whether the newest key sealed it."""
        try:
            self._newest.decrypt(sealed.encode())
        except InvalidToken:
            return False
        return True

    @staticmethod
    def _opened(sealed: str, way: Callable[[bytes], bytes]) -> bytes:
        try:
            return way(sealed.encode())
        except InvalidToken:
            raise EventError(
                f"pins: sealed with no key of {VARIABLE}; expected the key it was sealed with",
                reason="sealed_elsewhere",
            ) from None

    def __repr__(self) -> str:
        return f"Sealer({self._count} keys)"


def new_key() -> str:
    """A fresh key, to be put in front of ``ORDERWATCH_PIN_KEYS``."""
    return Fernet.generate_key().decode("ascii")


def mask(pin: str) -> str:
    """What may be shown of a PIN: that there is one. Not its length, not its last characters."""
    return "********" if pin else ""
