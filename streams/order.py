"""The words of an order's life and the moves between them. Imports nothing of ours."""

from enum import StrEnum


class AttemptState(StrEnum):
    """Where one intent to buy stands. The database keeps the guard; these are its words."""

    INTENT = "intent"  # written down, nothing sent; safe to send
    SENDING = "sending"  # under a lease: the request may be on the wire
    ACCEPTED = "accepted"  # the provider has the order and works on it
    REJECTED = "rejected"  # the provider says there is no order
    NOT_SENT = "not_sent"  # proven: nothing was bought (never left us, or looked up and absent)
    UNKNOWN = "unknown"  # it may or may not have been bought; only evidence leaves this state
    COMPLETED = "completed"  # delivered
    FAILED = "failed"  # the provider accepted and later gave up


#: States in which money may still be spent. At most one such attempt per line of an order: a unique index.
LIVE = frozenset({AttemptState.INTENT, AttemptState.SENDING, AttemptState.UNKNOWN, AttemptState.ACCEPTED})

#: Every arrow of an attempt, and nothing else. The ledger refuses the rest.
ATTEMPT_MOVES: dict[AttemptState, frozenset[AttemptState]] = {
    AttemptState.INTENT: frozenset({AttemptState.SENDING, AttemptState.NOT_SENT}),
    AttemptState.SENDING: frozenset(
        {
            AttemptState.INTENT,  # "try the same reference later": the provider says there is no order yet
            AttemptState.ACCEPTED,
            AttemptState.REJECTED,
            AttemptState.UNKNOWN,
            AttemptState.NOT_SENT,
            AttemptState.COMPLETED,
            AttemptState.FAILED,
        }
    ),
    AttemptState.UNKNOWN: frozenset(
        {
            AttemptState.SENDING,  # only where the profile says that a repeated reference buys once
            AttemptState.ACCEPTED,
            AttemptState.REJECTED,
            AttemptState.NOT_SENT,
            AttemptState.COMPLETED,
            AttemptState.FAILED,
        }
    ),
    AttemptState.ACCEPTED: frozenset({AttemptState.COMPLETED, AttemptState.FAILED}),
    AttemptState.REJECTED: frozenset(),
    AttemptState.NOT_SENT: frozenset(),
    AttemptState.COMPLETED: frozenset(),
    AttemptState.FAILED: frozenset(),
}


class ExternalStatus(StrEnum):
    """Delivery, as the shop sees it."""

    NOT_SENT = "not_sent"
    SENT = "sent"
    PROCESSING = "processing"
    UNKNOWN = "unknown"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"


class Status(StrEnum):
    """Money, as the buyer sees it."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


#: Nothing but a person moves an order out of these.
TERMINAL = frozenset({ExternalStatus.COMPLETED, ExternalStatus.FAILED})


def buyer_status(external: ExternalStatus) -> Status:
    """approved iff completed, rejected iff failed; an expired order still holds the buyer's money."""
    if external is ExternalStatus.COMPLETED:
        return Status.APPROVED
    if external is ExternalStatus.FAILED:
        return Status.REJECTED
    return Status.PENDING


class CheckReason(StrEnum):
    """Why a check event exists."""

    FIRST = "first"
    BACKOFF = "backoff"
    RECONCILE = "reconcile"
    DISPATCH = "dispatch"
    SWEEP = "sweep"
    OPERATOR = "operator"
    CALLBACK = "callback"


class CommandAction(StrEnum):
    """What a person may ask for; the ledger decides whether it is done."""

    CHECK = "check"  # ask the provider now
    RESOLVE = "resolve"  # say how an attempt ended that nobody else can tell
    PLACE_AGAIN = "place_again"  # another attempt, where the last one is proven dead
    SEND_TO = "send_to"  # the same, or what was not sent yet, at a named integration
    CANCEL = "cancel"  # give up an order of which nothing was bought
    ACKNOWLEDGE = "acknowledge"  # a person has seen these attentions
    REPLAY = "replay"  # send these dead letters to their topics again


#: Acts on what waits in a queue; every other one is about one order.
QUEUE_ACTIONS = frozenset({CommandAction.ACKNOWLEDGE, CommandAction.REPLAY})


class StatusReason(StrEnum):
    """What made a status change."""

    PROVIDER = "provider"
    REFUSED = "refused"
    DEADLINE = "deadline"
    OPERATOR = "operator"
    ROUTING = "routing"
    REVERSAL = "reversal"


class AttentionCode(StrEnum):
    """Why an order or an integration waits for a person."""

    NO_ROUTING = "no_routing"
    MANUAL_ROUTE = "manual_route"
    NO_MAPPING = "no_mapping"
    INTEGRATION_DISABLED = "integration_disabled"
    INVALID_ORDER = "invalid_order"
    OUTCOME_UNKNOWN = "outcome_unknown"
    LONG_PENDING = "long_pending"
    EXPIRED = "expired"
    REVERSAL = "reversal"
    UNRECOGNISED_ANSWER = "unrecognised_answer"
    PIN_MISSING = "pin_missing"
    LOW_BALANCE = "low_balance"
    INTEGRATION_DOWN = "integration_down"
    DEAD_LETTER = "dead_letter"
    LEDGER_BEHIND = "ledger_behind"  # the database went back in time: nothing is sent until `orderwatch db recover`
    ACCESS_REFUSED = "access_refused"  # the provider refuses the account, the balance question included
    REFUSED_REPEATEDLY = "refused_repeatedly"  # the same order was sent several times and always refused without proof
    COST_CHANGED = "cost_changed"  # a cost far from the expected one, or above the mapping's limit
    PARTLY_DELIVERED = "partly_delivered"  # some units of a quantity came, the rest was refused
