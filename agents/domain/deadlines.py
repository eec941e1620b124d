"""Decides what time brings: the deadline of an order, and thresholds of a long wait. Pure."""

from datetime import datetime

from agents.domain.routing import Routing
from agents.domain.transition import OrderTransition, S
from db.rows import Change, OrderState
from streams.order import TERMINAL, AttentionCode, ExternalStatus, StatusReason


def expired(state: OrderState, routing: Routing, now: datetime, *, fail: bool, actor: str) -> Change | None:
    """The deadline: stop asking by itself. The outcome stays open unless the operator configured otherwise."""
    order = state.order
    if order.external_status in TERMINAL or order.external_status is ExternalStatus.EXPIRED:
        return None
    draft = OrderTransition(state, routing, now, actor)
    for row in state.attempts:
        if row.state is S.INTENT:
            draft.move(row.attempt, S.NOT_SENT, message="deadline")
        elif row.live and row.state is not S.SENDING:
            draft.set(row.attempt, next_check_at=None)
            if fail and (account := routing.accounts.get(row.integration_id)) is not None:
                draft.watch(row.attempt, account.schedule)  # a late delivery must not go unnoticed
    draft.order.next_check_at = None
    if not draft.attempts or not all(row.live for row in draft.newest()):
        # Without this a line that nobody asks about any more would let a refusal of another one fail the order.
        draft.order.waiting = draft.order.waiting or AttentionCode.EXPIRED.value
        draft.order.waiting_since = draft.order.waiting_since or now
    draft.step("deadline", deadline_at=order.deadline_at.isoformat())
    if not fail:
        again_at = order.deadline_at.isoformat() if AttentionCode.EXPIRED in {r.code for r in order.raised} else ""
        draft.raise_attention(
            AttentionCode.EXPIRED,
            f"no final answer by the deadline; last known: {order.external_status}",
            discriminator=again_at,
        )
    target = ExternalStatus.FAILED if fail else ExternalStatus.EXPIRED
    draft.set_status(target, StatusReason.DEADLINE, "deadline")
    return draft.change(StatusReason.DEADLINE)


def long_pending(state: OrderState, routing: Routing, now: datetime, threshold_s: float) -> Change | None:
    """An order that is open longer than a threshold: told once per threshold."""
    if state.order.external_status in TERMINAL or state.order.external_status is ExternalStatus.EXPIRED:
        return None
    draft = OrderTransition(state, routing, now, "sweep")
    draft.raise_attention(
        AttentionCode.LONG_PENDING,
        f"open for more than {threshold_s / 60:g} minutes; delivery is {state.order.external_status}",
        discriminator=threshold_key(threshold_s),
    )
    return draft.change(StatusReason.PROVIDER)


def threshold_key(threshold_s: float) -> str:
    """The discriminator of a long-pending threshold."""
    return f"{threshold_s:g}s"
