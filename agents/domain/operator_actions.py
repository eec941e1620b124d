"""What a person may do to an order, and when. Pure: what is offered is what would be accepted, by the same functions.

Nobody passes the ledger's rules. A line is bought again only where every attempt of it is proven dead and nothing has
been said against that proof since. An order at its end stays there: when it failed, the buyer's money went back.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from agents.domain.resolution import line_failed, retry_line
from agents.domain.routing import Routing, Waiting, facts_of
from agents.domain.status_answers import last_sent_at
from agents.domain.transition import OrderTransition, schedule_look_up
from db.rows import Answer, Attempt, Change, OrderState, Step
from streams.events import Command
from streams.order import (
    ATTEMPT_MOVES,
    TERMINAL,
    AttemptState,
    AttentionCode,
    CommandAction,
    ExternalStatus,
    StatusReason,
)

S = AttemptState

_OUTCOMES = ("completed", "failed", "accepted", "not_sent")


class Refused(Exception):
    """A person asked for something that the ledger does not allow; the text says why."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that would be accepted now. ``attempt`` is None where the whole order is meant, 0 where it has to be
    named so; ``outcomes`` are those that `resolve` takes, ``integrations`` those that `send_to` takes."""

    action: CommandAction
    attempt: int | None = None
    outcomes: tuple[str, ...] = ()
    integrations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Done:
    said: str
    change: Change
    asked: tuple[tuple[int, int], ...] = ()


def decided(state: OrderState, command: Command, routing: Routing, now: datetime) -> Change:
    """What the ledger writes for a command, with the answer to it; a refusal is an answer, and changes nothing."""
    try:
        done = _ACTS[command.action](state, command, routing, now)
    except Refused as refused:
        step = Step(
            step="refused",
            actor=_actor(command),
            attempt=command.attempt or None,
            details={"action": command.action.value, "said": str(refused), **_told(command)},
        )
        answer = Answer(tenant_id=state.order.tenant_id, command_id=command.command_id, done=False, said=str(refused))
        return Change(order=state.order, steps=[step], answer=answer)
    answer = Answer(
        tenant_id=state.order.tenant_id,
        command_id=command.command_id,
        done=True,
        said=done.said,
        asked=list(done.asked),
    )
    return msgspec.structs.replace(done.change, answer=answer)


def offers(state: OrderState, routing: Routing, now: datetime) -> list[Offer]:
    """Everything that a person may do to this order now."""

    def accepted(action: CommandAction, **words: object) -> bool:
        probe = Command(
            command_id="offer",
            tenant_id=state.order.tenant_id,
            order_id=state.order.order_id,
            action=action,
            reason="offered",
            by="nobody",
            issued_at=now,
            **words,  # type: ignore[arg-type]
        )
        try:
            _ACTS[action](state, probe, routing, now)
        except Refused:
            return False
        return True

    made = [Offer(CommandAction.CHECK)] if accepted(CommandAction.CHECK) else []
    for number in (*(row.attempt for row in state.attempts), 0):
        outcomes = [o for o in _OUTCOMES if accepted(CommandAction.RESOLVE, attempt=number, outcome=o)]
        if outcomes:
            made.append(Offer(CommandAction.RESOLVE, number, outcomes=tuple(outcomes)))
    if accepted(CommandAction.PLACE_AGAIN):
        made.append(Offer(CommandAction.PLACE_AGAIN))
    names = [name for name in routing.accounts if accepted(CommandAction.SEND_TO, integration_id=name)]
    if names:
        made.append(Offer(CommandAction.SEND_TO, integrations=tuple(sorted(names))))
    if accepted(CommandAction.CANCEL):
        made.append(Offer(CommandAction.CANCEL))
    return made


# -- the acts -------------------------------------------------------------------------------------------------------


def _check(state: OrderState, command: Command, routing: Routing, now: datetime) -> _Done:
    """Asks about what is live, or for the route of an order that has nothing live."""
    order = state.order
    live = [row for row in state.attempts if row.live and command.attempt in (None, 0, row.attempt)]
    if command.attempt and not live:
        row = state.attempt(command.attempt)
        raise Refused(
            f"attempt {command.attempt} is {row.state}: nothing is left to ask"
            if row is not None
            else f"the order has no attempt {command.attempt}"
        )
    if not live and order.external_status in TERMINAL:
        raise Refused(f"the order is {order.external_status}: nothing is left to ask")
    if not live and order.external_status is ExternalStatus.EXPIRED:
        raise Refused("the deadline has passed and no attempt is live: nothing is left to ask")
    asked = tuple((row.attempt, row.check_number) for row in live) or ((0, order.check_number),)
    step = Step(step="asked", actor=_actor(command), details=_told(command))
    what = ", ".join(f"attempt {number}" for number, _ in asked) if live else "a new dispatch"
    return _Done(f"asked for {what}", Change(order=order, steps=[step]), asked)


def _resolve(state: OrderState, command: Command, routing: Routing, now: datetime) -> _Done:
    """A person says how an attempt ended, or (attempt 0) how an order without a live one ended."""
    number, outcome = command.attempt, command.outcome
    if number is None or outcome is None:
        raise Refused("say which attempt (0: the order itself) and what became of it")
    draft = _draft(state, command, routing, now, "resolved", outcome=outcome, evidence=command.evidence)
    if number == 0:
        _resolve_order(draft, outcome)
        draft.set_status(ExternalStatus(outcome), StatusReason.OPERATOR, command.reason)
    else:
        _resolve_attempt(draft, number, outcome, command)
    return _ended(draft, command, number or None)


def _resolve_attempt(draft: OrderTransition, number: int, outcome: str, command: Command) -> None:
    row, to = draft.attempts.get(number), S(outcome)
    if row is None:
        raise Refused(f"the order has no attempt {number}")
    if row.state not in (S.UNKNOWN, S.ACCEPTED):
        raise Refused(f"attempt {number} is {row.state}; only an unknown or accepted one can be resolved")
    if to not in ATTEMPT_MOVES[row.state]:
        raise Refused(f"attempt {number} is {row.state} and cannot become {outcome}")
    sent_at = last_sent_at(row)
    if sent_at is not None and sent_at > command.issued_at:
        raise Refused(f"attempt {number} was sent again after this was said: look once more")
    account = draft.routing.accounts.get(row.integration_id)
    word = {"by": command.by, "reason": command.reason, "evidence": command.evidence, "at": draft.now.isoformat()}
    draft.move(number, to, evidence={**row.evidence, "resolved": word})
    if to is S.ACCEPTED and account is not None:
        draft.schedule(number, account.schedule.first_after_s)
    elif to is S.NOT_SENT and account is not None:
        retry_line(draft, row, account.schedule, command.reason)
    else:
        line_failed(draft, row)


def _resolve_order(draft: OrderTransition, outcome: str) -> None:
    if outcome not in (ExternalStatus.COMPLETED, ExternalStatus.FAILED):
        raise Refused(f"an order can be resolved as completed or failed, not as {outcome}")
    if draft.order.external_status in TERMINAL:
        raise Refused(f"the order is {draft.order.external_status} already")
    for row in [row for row in draft.attempts.values() if row.live]:
        if row.state is not S.INTENT:
            raise Refused(f"attempt {row.attempt} is {row.state}; resolve that attempt first")
        draft.move(row.attempt, S.NOT_SENT, message="resolved by a person before it was sent")


def _place_again(state: OrderState, command: Command, routing: Routing, now: datetime) -> _Done:
    """Another attempt, by the route as it is now, on each line whose attempts are proven dead."""
    draft = _draft(state, command, routing, now, "placed_again")
    for row in _lines(draft, command, "place it again", lambda row: row.live):
        _start(draft, routing.following(draft.order, row, skip=frozenset()))
    _reopen(draft)
    return _ended(draft, command, None)


def _send_to(state: OrderState, command: Command, routing: Routing, now: datetime) -> _Done:
    """The same at a named integration, whatever the route says; also what was not sent yet, or never had a route."""
    name = command.integration_id
    if name is None:
        raise Refused("say which integration")
    draft = _draft(state, command, routing, now, "sent_elsewhere", integration=name)
    if not state.attempts:
        _still_open(draft, "send it")
        _start(draft, routing.first_at(name, facts_of(draft.order)))
    else:
        rows = _lines(
            draft,
            command,
            "send it",
            lambda row: row.live and (row.state is not S.INTENT or row.integration_id == name),
        )
        for row in rows:
            if row.state is S.INTENT:
                draft.move(row.attempt, S.NOT_SENT, message=f"not sent: a person chose {name}")
            _start(draft, routing.following_at(name, draft.order, row))
    _reopen(draft)
    return _ended(draft, command, None)


def _cancel(state: OrderState, command: Command, routing: Routing, now: datetime) -> _Done:
    """Ends an order of which nothing was bought and nothing is on its way."""
    draft = _draft(state, command, routing, now, "cancelled")
    if draft.order.external_status in TERMINAL:
        raise Refused(f"the order is {draft.order.external_status} already")
    if command.attempt:
        raise Refused("an order is cancelled whole; expected no attempt")
    for row in draft.newest():
        if row.state is not S.INTENT and (row.live or row.state is S.COMPLETED):
            raise Refused(_words(row))
        _refuse_doubt(draft, row)
        if row.state is S.INTENT:
            draft.move(row.attempt, S.NOT_SENT, message="cancelled by a person before it was sent")
    draft.set_status(ExternalStatus.FAILED, StatusReason.OPERATOR, command.reason)
    return _ended(draft, command, None)


_ACTS: dict[CommandAction, Callable[[OrderState, Command, Routing, datetime], _Done]] = {
    CommandAction.CHECK: _check,
    CommandAction.RESOLVE: _resolve,
    CommandAction.PLACE_AGAIN: _place_again,
    CommandAction.SEND_TO: _send_to,
    CommandAction.CANCEL: _cancel,
}


# -- what they share ------------------------------------------------------------------------------------------------


def _draft(
    state: OrderState, command: Command, routing: Routing, now: datetime, step: str, **details: object
) -> OrderTransition:
    draft = OrderTransition(state, routing, now, _actor(command))
    draft.step(step, command.attempt or None, **details, **_told(command))
    return draft


def _actor(command: Command) -> str:
    return f"operator:{command.by}"


def _told(command: Command) -> dict[str, str]:
    return {"by": command.by, "reason": command.reason, "command": command.command_id}


def _ended(draft: OrderTransition, command: Command, number: int | None) -> _Done:
    change = draft.change(StatusReason.OPERATOR, command.reason, number)
    started = [row for row in change.attempts if row.state is S.INTENT]
    said = f"order {draft.order.order_id} of {draft.order.tenant_id} is now {draft.order.external_status}"
    if started:
        said += "; " + ", ".join(f"attempt {row.attempt} goes to {row.integration_id}" for row in started)
    return _Done(said, change)


def _lines(draft: OrderTransition, command: Command, what: str, unfit: Callable[[Attempt], bool]) -> list[Attempt]:
    """The newest attempts of the lines that may go on; raises with the first reason when there is none."""
    _still_open(draft, what)
    newest = draft.newest()
    if not newest:
        raise Refused("no attempt was made yet: it waits for its route, or is sent to a named integration")
    if command.attempt:
        newest = [row for row in newest if row.attempt == command.attempt]
        if not newest:
            raise Refused(f"attempt {command.attempt} is not the newest of its line")
    fit = [row for row in newest if not unfit(row) and row.state is not S.COMPLETED]
    for row in fit:
        _refuse_doubt(draft, row)
    if not fit:
        raise Refused(_words(newest[0]))
    return fit


def _still_open(draft: OrderTransition, what: str) -> None:
    """After the end only the shop starts again: the buyer has the goods, or the money back."""
    if draft.order.external_status is ExternalStatus.COMPLETED:
        raise Refused("the order is completed")
    if draft.order.external_status is ExternalStatus.FAILED:
        raise Refused(f"the order is failed and the buyer's money goes back: to {what}, the shop sends a new order")


def _refuse_doubt(draft: OrderTransition, row: Attempt) -> None:
    """A proof against which something was said since is none."""
    for number in (r.attempt for r in draft.attempts.values() if r.line == row.line):
        if any(
            r.code == AttentionCode.REVERSAL and r.discriminator.startswith(f"{number}:") for r in draft.order.raised
        ):
            raise Refused(
                f"attempt {number} was settled as {draft[number].state}, and the provider said otherwise"
                " since: find out what was bought, and resolve the order"
            )


def _words(row: Attempt) -> str:
    """Why an attempt stands in the way."""
    where = f"attempt {row.attempt} at {row.integration_id}"
    return {
        S.INTENT: f"{where} is on its way there already, and was not sent yet",
        S.SENDING: f"{where} is being sent right now",
        S.UNKNOWN: f"it is not known whether {where} was bought: find out and resolve it first",
        S.ACCEPTED: f"{where} was accepted, and the provider works on it",
        S.COMPLETED: f"{where} was delivered",
    }.get(row.state, f"{where} is {row.state}")


def _start(draft: OrderTransition, found: list[Attempt] | Waiting) -> None:
    if isinstance(found, Waiting):
        raise Refused(found.message)
    draft.add(found)


def _reopen(draft: OrderTransition) -> None:
    """An order whose time is over gets a new deadline, and what was left open is asked about again."""
    order = draft.order
    if order.external_status is not ExternalStatus.EXPIRED and draft.now < order.deadline_at:
        return
    order.deadline_at = draft.now + timedelta(seconds=draft.routing.config.checks.deadline)
    draft.reopened = True
    draft.step("reopened", deadline_at=order.deadline_at.isoformat())
    for row in _unasked(draft):
        if row.state is S.UNKNOWN:
            schedule_look_up(draft, row.attempt, 0.0)
        else:
            draft.schedule(row.attempt, 0.0)


def _unasked(draft: OrderTransition) -> Iterator[Attempt]:
    for row in list(draft.attempts.values()):
        if row.state in (S.UNKNOWN, S.ACCEPTED) and row.next_check_at is None:
            yield row
