"""What the words of the engine are called on a page, with the icon and the tone that say the same without reading.

A tone is one of ok, info, wait, doubt, bad; a page never shows it alone. ``N_`` marks a text for the catalogues.
"""

from collections.abc import Mapping
from typing import NamedTuple

from streams.order import AttemptState, AttentionCode, CommandAction, ExternalStatus


def N_(text: str) -> str:
    """Marks a text that is said later."""
    return text


class Word(NamedTuple):
    """A label with its icon and tone."""

    label: str
    icon: str
    tone: str


STATES: Mapping[str, Word] = {
    ExternalStatus.NOT_SENT: Word(N_("Not sent yet"), "clock", "wait"),
    ExternalStatus.SENT: Word(N_("Sent"), "arrow", "info"),
    ExternalStatus.PROCESSING: Word(N_("In work"), "dots", "info"),
    ExternalStatus.UNKNOWN: Word(N_("Outcome unknown"), "question", "doubt"),
    ExternalStatus.EXPIRED: Word(N_("Deadline passed"), "hourglass", "bad"),
    ExternalStatus.COMPLETED: Word(N_("Completed"), "check", "ok"),
    ExternalStatus.FAILED: Word(N_("Failed"), "cross", "bad"),
}

ATTEMPTS: Mapping[str, Word] = {
    AttemptState.INTENT: Word(N_("Written down, not sent"), "clock", "wait"),
    AttemptState.SENDING: Word(N_("Being sent"), "arrow", "info"),
    AttemptState.ACCEPTED: Word(N_("Accepted, in work"), "dots", "info"),
    AttemptState.REJECTED: Word(N_("Refused"), "cross", "bad"),
    AttemptState.NOT_SENT: Word(N_("Nothing bought"), "minus", "wait"),
    AttemptState.UNKNOWN: Word(N_("Outcome unknown"), "question", "doubt"),
    AttemptState.COMPLETED: Word(N_("Delivered"), "check", "ok"),
    AttemptState.FAILED: Word(N_("Failed"), "cross", "bad"),
}

LANES: Mapping[str, Word] = {
    "closed": Word(N_("Working"), "check", "ok"),
    "half-open": Word(N_("Trying again, slowly"), "dots", "wait"),
    "open": Word(N_("Stopped: it does not answer"), "cross", "bad"),
}


class Reason(NamedTuple):
    """Why something waits for a person, and the act that helps."""

    title: str
    act: str


ATTENTION: Mapping[str, Reason] = {
    AttentionCode.NO_ROUTING: Reason(
        N_("No route for the package"), N_("Add a route for the package. The orders go on by themselves.")
    ),
    AttentionCode.MANUAL_ROUTE: Reason(
        N_("To be delivered by hand"),
        N_("Deliver it, then say so on the order's page: it was completed, or it failed."),
    ),
    AttentionCode.NO_MAPPING: Reason(
        N_("The package has no mapping at its integration"),
        N_("Add the mapping, or send the order to another integration."),
    ),
    AttentionCode.INTEGRATION_DISABLED: Reason(
        N_("Its integration is switched off"),
        N_("Switch the integration on, change the route, or send the order to another integration."),
    ),
    AttentionCode.INVALID_ORDER: Reason(
        N_("The order lacks something the provider needs"),
        N_("Correct the mapping, or cancel the order and tell the shop what is missing."),
    ),
    AttentionCode.OUTCOME_UNKNOWN: Reason(
        N_("Nobody knows whether it was bought"),
        N_("Look for the reference in the provider's panel, then say on the order's page what became of it."),
    ),
    AttentionCode.LONG_PENDING: Reason(
        N_("Takes longer than usual"), N_("Ask the provider with the reference. The engine keeps asking by itself.")
    ),
    AttentionCode.EXPIRED: Reason(
        N_("The deadline passed without an outcome"),
        N_("Ask once more with Check now, or settle it with what the provider's panel says."),
    ),
    AttentionCode.REVERSAL: Reason(
        N_("The provider took back a final answer"),
        N_("Compare both answers on the order's page and settle the money with the provider and the shop."),
    ),
    AttentionCode.UNRECOGNISED_ANSWER: Reason(
        N_("An answer nobody understands"),
        N_("Read the answer on the order's page. It was not counted as bought or refused."),
    ),
    AttentionCode.PIN_MISSING: Reason(
        N_("Done, but without a PIN"), N_("Ask the provider for the PIN with the reference.")
    ),
    AttentionCode.LOW_BALANCE: Reason(N_("Low balance or stock"), N_("Top up the account, or load codes.")),
    AttentionCode.INTEGRATION_DOWN: Reason(
        N_("An integration does not work"),
        N_("Check credentials, IP address and the provider's state. Orders wait and go on by themselves."),
    ),
    AttentionCode.ACCESS_REFUSED: Reason(
        N_("The provider refuses our access"),
        N_("Check credentials, API permission and the allowed IP address. Orders wait and go on by themselves."),
    ),
    AttentionCode.REFUSED_REPEATEDLY: Reason(
        N_("Sent several times without a clear answer"),
        N_("Look for the order in the provider's panel, then place it again, send it elsewhere or cancel it."),
    ),
    AttentionCode.COST_CHANGED: Reason(
        N_("The cost changed"), N_("Compare the cost with the mapping. Above its limit nothing is sent.")
    ),
    AttentionCode.DEAD_LETTER: Reason(
        N_("An event could not be used"), N_("Open the dead letters: repair the cause, then replay.")
    ),
    AttentionCode.LEDGER_BEHIND: Reason(
        N_("The database is older than the log"),
        N_(
            "Run `orderwatch db recover`. Nothing is sent before; an order that only the log knows is looked up at the"
            " provider by hand."
        ),
    ),
    AttentionCode.PARTLY_DELIVERED: Reason(
        N_("Some units came, the rest was refused"),
        N_("Decide with the shop what the buyer gets, then settle the order."),
    ),
}

#: For a code that is younger than this page.
OTHER = Reason(N_("Something else"), N_("Read the message and decide."))

#: Steps of a timeline.
STEPS: Mapping[str, str] = {
    "accepted": N_("order accepted"),
    "routed": N_("route found"),
    "not_routed": N_("no way to send it"),
    "intent": N_("attempt written down"),
    "sending": N_("request sent"),
    "answered": N_("answer to the order"),
    "checked": N_("asked how it stands"),
    "status": N_("status changed"),
    "attention": N_("a person was called"),
    "again": N_("planned again"),
    "fallback": N_("goes to the other integration"),
    "lease_over": N_("the sender did not come back"),
    "late_answer": N_("a late answer"),
    "proven_absent": N_("proven: it was not bought"),
    "deadline": N_("the deadline passed"),
    "resolved": N_("settled by a person"),
    "asked": N_("a person asked to check"),
    "refused": N_("a person's wish was refused"),
    "placed_again": N_("placed again by a person"),
    "sent_elsewhere": N_("sent elsewhere by a person"),
    "cancelled": N_("cancelled by a person"),
    "reopened": N_("opened again"),
    "acknowledged": N_("seen by a person"),
}

ACTORS: Mapping[str, str] = {
    "the engine": N_("the engine"),
    "the provider": N_("the provider"),
    "an operator": N_("a person, here"),
    "the shop": N_("the shop"),
    "nobody": N_("nobody: it is done"),
}


class Act(NamedTuple):
    """A command on an order: its button, and what the dialog says before it is sent."""

    label: str
    explained: str
    icon: str


ACTS: Mapping[str, Act] = {
    CommandAction.CHECK: Act(
        N_("Check now"), N_("Asks the provider now instead of at the planned time. It asks, and never buys."), "refresh"
    ),
    CommandAction.RESOLVE: Act(
        N_("Say what became of it"),
        N_("You have looked and know the outcome. It is written down with your name and your reason."),
        "pen",
    ),
    CommandAction.PLACE_AGAIN: Act(
        N_("Place again"),
        N_("Nothing was bought by the attempts before: the ledger proves it. The order is bought by its route."),
        "again",
    ),
    CommandAction.SEND_TO: Act(
        N_("Send to another integration"),
        N_("Buys it at the integration you choose, whatever the route says. Nothing was bought before."),
        "branch",
    ),
    CommandAction.CANCEL: Act(
        N_("Cancel"), N_("Nothing was sent yet. The order fails, and the shop gives the money back."), "cross"
    ),
}

OUTCOMES: Mapping[str, str] = {
    "completed": N_("It was delivered"),
    "failed": N_("It failed, no goods and no cost"),
    "accepted": N_("The provider has it and works on it"),
    "not_sent": N_("It was never bought"),
}

AGES: Mapping[str, tuple[int, str]] = {
    "5m": (300, N_("older than 5 minutes")),
    "1h": (3600, N_("older than 1 hour")),
    "24h": (86400, N_("older than 24 hours")),
    "7d": (604800, N_("older than 7 days")),
}

#: Why an event was set aside.
LETTERS: Mapping[str, str] = {
    "malformed": N_("The event cannot be read"),
    "conflict": N_("The same order id with other content"),
    "handler_failed": N_("The handler failed again and again"),
    "other_type": N_("Another kind of event"),
}

#: What the buyer is told.
MONEY: Mapping[str, str] = {
    "pending": N_("pending: the money is held"),
    "approved": N_("approved: paid"),
    "rejected": N_("rejected: the money goes back"),
}

STEP_ICONS: Mapping[str, str] = {
    "accepted": "check",
    "routed": "branch",
    "not_routed": "alert",
    "intent": "pen",
    "sending": "arrow",
    "answered": "mail",
    "checked": "question",
    "status": "pulse",
    "attention": "bell",
    "again": "again",
    "fallback": "branch",
    "lease_over": "hourglass",
    "late_answer": "mail",
    "proven_absent": "minus",
    "deadline": "hourglass",
    "resolved": "pen",
    "asked": "refresh",
    "refused": "lock",
    "placed_again": "again",
    "sent_elsewhere": "branch",
    "cancelled": "cross",
    "reopened": "again",
    "acknowledged": "check",
}

#: Steps of the test of a route.
TRIALS: Mapping[str, str] = {
    "route": N_("the route"),
    "integration": N_("the integration is known"),
    "enabled": N_("it is switched on"),
    "mapping": N_("the package there"),
    "parameters": N_("the parameters"),
    "reference": N_("our reference"),
    "request": N_("the exact request"),
}
