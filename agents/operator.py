"""What a person may do to an order: the same ledger, the same rules, their name beside it."""

from dataclasses import dataclass

from agents import decide
from agents.dispatch import place_due
from agents.work import Deps, require, settle, tell, tell_again
from db.rows import Change, OrderState


@dataclass(frozen=True, slots=True)
class Resolution:
    """Whether it was done, and the sentence for the person."""

    done: bool
    said: str


async def resolve(
    deps: Deps, tenant_id: str, order_id: str, attempt: int, outcome: str, by: str, reason: str,
    evidence: str | None = None,
) -> Resolution:  # fmt: skip
    """Say how an attempt ended that nobody else can tell; attempt 0 means the order when no attempt is live.

    ``outcome``: accepted, completed, failed or not_sent. Raises ``OrderNotFound``, ``StoreUnavailable``,
    ``BrokerUnavailable``; a refusal is an answer.
    """
    state = await require(deps, (tenant_id, order_id))
    row = state.attempt(attempt)
    account = deps.account(row) if row is not None else None

    def decided(state: OrderState) -> Change:
        return decide.resolved(
            state, attempt, outcome.replace("-", "_"), by, reason, evidence, deps.routing,
            account.schedule if account is not None else None, deps.clock.now(),
        )  # fmt: skip

    try:
        after = await settle(deps, state, decided)
    except decide.Refused as refused:
        # Who asks again because the first try never answered: it may have been stored, and never told.
        await tell_again(deps, state)
        return Resolution(False, str(refused))
    await tell(deps, state, after)
    await place_due(deps, after)
    return Resolution(True, f"order {order_id} of {tenant_id} is now {after.order.external_status}")
