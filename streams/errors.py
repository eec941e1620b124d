"""Everything we raise on purpose, ordered by what the caller may do next."""


class AppError(Exception):
    """The root; never raised itself."""


class ConfigError(AppError):
    """config.yaml is wrong: the text names the key, the value and what was expected. Do not start."""


class EventError(AppError):
    """An event cannot be understood: the text names the field and what was expected. Dead letter.

    ``reason`` is a short machine word for the header ``dlq.reason``.
    """

    def __init__(self, message: str, reason: str = "malformed") -> None:
        super().__init__(message)
        self.reason = reason


class StoreError(AppError):
    """The database side of the tree."""


class OrderNotFound(StoreError):
    """No row for this order. Dead letter: somebody speaks of an order that was never accepted."""


class StoreUnavailable(StoreError):
    """The database did not answer; nothing is known about the write. Hold the event and try again."""


class StoreRefused(StoreUnavailable):
    """The database refuses this installation: password, missing right, missing table. Waiting alone does not help.

    At start the process ends; at run time the event is held until somebody has repaired it. ``code`` is the SQLSTATE,
    where the server gave one.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class LedgerBehind(StoreUnavailable):
    """The ledger is older than what the log or this worker has seen: nothing is written or sent before it was
    reconciled, see ``orderwatch db recover``."""


class BrokerUnavailable(AppError):
    """The broker did not acknowledge in time. Hold the event and try again."""


class BrokerRefused(BrokerUnavailable):
    """The broker refused our credentials or our TLS settings: waiting does not help, a start ends at once."""


class ProviderError(AppError):
    """A provider gave no usable answer. The text carries no URL, no credential and no player id."""


class NotSent(ProviderError):
    """Proof that no byte of the request left us: it may be placed again."""


class LeaseOver(NotSent):
    """The lease ended before the request could leave: our own delay, which says nothing about the provider."""


class OutcomeUnknown(ProviderError):
    """The request may have left and no readable answer came. Never place again; look it up."""


class InvalidOrder(AppError):
    """The order lacks something the mapping needs; refused before anything is sent. Names the field."""
