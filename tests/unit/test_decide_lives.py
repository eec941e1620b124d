"""Random lives of an order against an honest provider, which keeps its own book: nothing is bought twice, nothing is
forgotten, nothing settled moves.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agents.domain import deadlines, operator_actions, outbound_events, placement, status_answers, transition
from agents.domain.routing import facts_of
from agents.providers.base import Placed, PlacedAnswer, Profile, Refusal, Seen, StatusAnswer
from db.rows import Attempt, Change, OrderState
from streams.events import Command
from streams.order import TERMINAL, AttemptState, AttentionCode, CommandAction, ExternalStatus
from tests.fakes import CAREFUL, NOW, REPEATABLE, SCHEDULE, order, routing

S = AttemptState
LEASE_S = 35.0
DEADLINE = NOW + timedelta(days=1)

PROFILES: dict[str, Profile] = {
    "careful": CAREFUL,
    "repeatable": replace(REPEATABLE, quantity=False),
    "repeatable for a while": replace(REPEATABLE, quantity=False, repeat_safe_for_s=900.0),
    "blind": Profile(repeat_safe=True, look_up=False, batch=1, quantity=False, repeat_safe_for_s=900.0),
}
#: What happens to one request: (was it bought, the answer that comes back or None when the process dies).
SENDS: list[tuple[bool, PlacedAnswer | None]] = [
    (True, PlacedAnswer(Placed.ACCEPTED)),
    (True, PlacedAnswer(Placed.COMPLETED)),
    (True, PlacedAnswer(Placed.AMBIGUOUS)),
    (True, PlacedAnswer(Placed.AMBIGUOUS)),
    (True, None),
    (False, PlacedAnswer(Placed.AMBIGUOUS)),
    (False, PlacedAnswer(Placed.NOT_SENT)),
    (False, PlacedAnswer(Placed.NOT_SENT)),
    (False, PlacedAnswer(Placed.RETRY_LATER, retry_after_s=60.0)),
    (False, PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS)),
    (False, PlacedAnswer(Placed.REJECTED, reason=Refusal.PLAYER)),
    (False, PlacedAnswer(Placed.REJECTED, reason=Refusal.ACCESS)),
    (False, None),
]


class Life(RuleBasedStateMachine):
    """The engine is ``agents.domain.transition`` with the conditions of ``agents.handlers.check`` around it."""

    @initialize(profile=st.sampled_from(sorted(PROFILES)), quantity=st.integers(1, 3), fail=st.booleans())
    def begin(self, profile: str, quantity: int, fail: bool) -> None:
        self.now: datetime = NOW
        self.routing = routing(PROFILES[profile])
        self.profile = PROFILES[profile]
        self.fail = fail
        #: The provider's book: reference -> (since when a look-up can see it, how it ended).
        self.bought: dict[str, tuple[datetime, Seen]] = {}
        self.twice: list[str] = []
        self.in_flight: dict[str, tuple[int, PlacedAnswer | None]] = {}
        new = order(quantity, deadline_at=DEADLINE)
        self.state = OrderState(new, [])
        self.keep(placement.open_order(new, self.routing, self.routing.first(facts_of(new)), self.now))

    def keep(self, change: Change | None) -> None:
        if change is None:
            return
        before = self.state
        if change.lease is not None:
            for row in change.attempts:
                if row.attempt == change.lease[0]:
                    row.lease_until = row.next_check_at = self.now + timedelta(seconds=change.lease[1])
        self.state = outbound_events.after(before, change)
        assert self.state.order.version >= before.order.version
        if before.order.external_status in TERMINAL:
            assert self.state.order.external_status is before.order.external_status
        for old, row in zip(before.attempts, self.state.attempts, strict=False):
            assert row.reference == old.reference and row.wire == old.wire
            assert row.check_number >= old.check_number
            if not old.live:
                assert row.state is old.state

    def rows(self, *states: AttemptState) -> list[Attempt]:
        return [row for row in self.state.attempts if row.state in states]

    def wait_for(self, row: Attempt) -> None:
        """Most things happen when they are due."""
        if row.next_check_at is not None and self.now < row.next_check_at <= self.state.order.deadline_at:
            self.now = row.next_check_at

    def pick(self, data: st.DataObject, rows: list[Attempt]) -> Attempt:
        return rows[data.draw(st.integers(0, len(rows) - 1), label="attempt")]

    def may_send(self) -> list[Attempt]:
        """Exactly what dispatch and check would send."""
        if transition.closed(self.state.order):
            return []
        return [
            row
            for row in self.state.attempts
            if row.state is S.INTENT
            or (
                row.state is S.UNKNOWN
                and (row.evidence.get("repeat") or not self.profile.look_up)
                and transition.may_repeat(self.routing, row, self.now)
            )
        ]

    @rule(seconds=st.sampled_from([1.0, 10.0, 700.0, 4000.0, 40000.0]))
    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.may_send())
    @rule(
        data=st.data(),
        what=st.sampled_from(SENDS),
        hidden_s=st.sampled_from([0.0, 20.0, 59.0]),
        ended=st.sampled_from([Seen.PENDING, Seen.SUCCEEDED, Seen.FAILED]),
    )
    def send(self, data: Any, what: tuple[bool, PlacedAnswer | None], ended: Seen, hidden_s: float) -> None:
        row = self.pick(data, self.may_send())
        self.wait_for(row)
        if row not in self.may_send():
            return
        token = f"token-{row.attempt}-{row.sends}"
        change = placement.start_sending(
            self.state, row.attempt, self.routing, self.now, placement.Lease(token, LEASE_S)
        )
        assert change is not None
        self.keep(change)
        bought, answer = what
        if bought:
            if row.reference in self.bought and not self.profile.repeat_safe:
                self.twice.append(row.reference)
            if answer is not None and answer.kind is Placed.COMPLETED:
                ended = Seen.SUCCEEDED
                known = self.bought.get(row.reference)
                if known is not None and known[1] is Seen.FAILED:
                    answer = None  # a provider that gave up earlier does not call a repeat completed
                else:
                    self.bought[row.reference] = (self.now, ended)
            self.bought.setdefault(row.reference, (self.now + timedelta(seconds=hidden_s), ended))
        self.in_flight[token] = (row.attempt, answer)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def answer(self, data: Any) -> None:
        token = data.draw(st.sampled_from(sorted(self.in_flight)), label="token")
        number, answer = self.in_flight.pop(token)
        if answer is not None:  # else the process died with it
            self.keep(
                placement.on_placement_answer(self.state, number, token, answer, self.routing, SCHEDULE, self.now)
            )

    @precondition(lambda self: self.rows(S.SENDING))
    @rule(data=st.data())
    def lease_over(self, data: Any) -> None:
        row = self.pick(data, self.rows(S.SENDING))
        self.wait_for(row)
        self.keep(placement.on_lease_expired(self.state, row.attempt, self.routing, SCHEDULE, self.now, "check"))

    def truth(self, row: Attempt) -> Seen:
        visible_at, ended = self.bought.get(row.reference, (self.now, Seen.NOT_FOUND))
        return ended if visible_at <= self.now else Seen.NOT_FOUND

    @precondition(lambda self: self.profile.look_up and self.rows(S.UNKNOWN, S.ACCEPTED))
    @rule(data=st.data(), trouble=st.sampled_from([None, None, None, Seen.QUERY_ERROR, Seen.UNRECOGNISED]))
    def ask(self, data: Any, trouble: Seen | None) -> None:
        row = self.pick(data, self.rows(S.UNKNOWN, S.ACCEPTED))
        self.wait_for(row)
        answer = StatusAnswer(trouble or self.truth(row))
        self.keep(status_answers.on_status_answer(self.state, row.attempt, answer, self.routing, SCHEDULE, self.now))

    @precondition(lambda self: self.profile.look_up and self.rows(S.UNKNOWN))
    @rule(data=st.data())
    def look_up_until_it_is_known(self, data: Any) -> None:
        number = self.pick(data, self.rows(S.UNKNOWN)).attempt
        for _ in range(12):
            row = self.state.attempt(number)
            assert row is not None
            if row.state is not S.UNKNOWN or row in self.may_send():
                return
            self.wait_for(row)
            answer = StatusAnswer(self.truth(row))
            self.keep(status_answers.on_status_answer(self.state, number, answer, self.routing, SCHEDULE, self.now))

    @precondition(lambda self: self.rows(S.COMPLETED, S.FAILED, S.NOT_SENT, S.REJECTED))
    @rule(data=st.data())
    def watch(self, data: Any) -> None:
        row = self.pick(data, self.rows(S.COMPLETED, S.FAILED, S.NOT_SENT, S.REJECTED))
        if row.next_check_at is not None:
            answer = StatusAnswer(self.truth(row))
            self.keep(
                status_answers.on_status_answer(self.state, row.attempt, answer, self.routing, SCHEDULE, self.now)
            )

    @precondition(lambda self: self.rows(S.UNKNOWN) and not self.profile.look_up)
    @rule(data=st.data())
    def no_way_out(self, data: Any) -> None:
        row = self.pick(data, self.rows(S.UNKNOWN))
        if not transition.may_repeat(self.routing, row, self.now):
            self.keep(status_answers.on_missing_integration(self.state, row, self.routing, self.now))

    @precondition(lambda self: self.rows(S.INTENT, S.UNKNOWN, S.ACCEPTED))
    @rule(data=st.data())
    def lane_is_full(self, data: Any) -> None:
        row = self.pick(data, self.rows(S.INTENT, S.UNKNOWN, S.ACCEPTED))
        self.keep(placement.defer(self.state, row.attempt, self.routing, self.now, 5.0, "full"))

    @precondition(lambda self: self.now >= self.state.order.deadline_at)
    @rule()
    def deadline(self) -> None:
        self.keep(deadlines.expired(self.state, self.routing, self.now, fail=self.fail, actor="sweep"))

    @precondition(lambda self: self.rows(S.UNKNOWN))
    @rule(data=st.data())
    def a_person_finds_out(self, data: Any) -> None:
        row = self.pick(data, self.rows(S.UNKNOWN))
        if any(number == row.attempt for number, _ in self.in_flight.values()):
            return  # even a person cannot know before the answer
        words = {
            Seen.SUCCEEDED: "completed",
            Seen.FAILED: "failed",
            Seen.PENDING: "accepted",
            Seen.NOT_FOUND: "not_sent",
        }
        outcome = words[self.bought.get(row.reference, (self.now, Seen.NOT_FOUND))[1]]
        self.command(CommandAction.RESOLVE, attempt=row.attempt, outcome=outcome)

    @rule(
        action=st.sampled_from([CommandAction.CHECK, CommandAction.PLACE_AGAIN, CommandAction.CANCEL]),
        attempt=st.sampled_from([None, None, 1, 2, 3]),
    )
    def a_person_acts(self, action: CommandAction, attempt: int | None) -> None:
        self.command(action, attempt=attempt)

    @rule(integration=st.sampled_from(["one", "two", "none"]), attempt=st.sampled_from([None, None, 1, 2, 3]))
    def a_person_chooses(self, integration: str, attempt: int | None) -> None:
        self.command(CommandAction.SEND_TO, integration_id=integration, attempt=attempt)

    def command(self, action: CommandAction, **words: Any) -> None:
        """What is refused changes nothing; what is offered is accepted, and the other way round."""
        said = Command(
            command_id="c",
            tenant_id="t",
            order_id="o",
            action=action,
            reason="why",
            by="ayse",
            issued_at=self.now,
            **words,
        )
        offered = {offer.action for offer in operator_actions.offers(self.state, self.routing, self.now)}
        change = operator_actions.decided(self.state, said, self.routing, self.now)
        assert change.answer is not None
        if change.answer.done:
            assert action in offered
        else:
            assert (change.order, change.attempts) == (self.state.order, [])
            assert words.get("attempt") or action not in offered or words.get("integration_id")
        self.keep(change)

    @invariant()
    def a_line_has_at_most_one_live_attempt(self) -> None:
        lines = [row.line for row in self.state.attempts if row.live]
        assert len(lines) == len(set(lines))

    @invariant()
    def no_line_is_bought_twice(self) -> None:
        assert not self.twice
        lines = [
            row.line
            for row in self.state.attempts
            if self.bought.get(row.reference, (None, Seen.FAILED))[1] is not Seen.FAILED
        ]
        assert len(lines) == len(set(lines)), f"bought under {sorted(self.bought)}"

    @invariant()
    def an_end_is_what_the_provider_says(self) -> None:
        if self.state.order.external_status is ExternalStatus.COMPLETED:
            newest = {row.line: row for row in self.state.attempts}
            assert all(self.bought[row.reference][1] is Seen.SUCCEEDED for row in newest.values())
        late = self.fail and self.now >= self.state.order.deadline_at
        if self.state.order.external_status is ExternalStatus.FAILED and not late:
            ends = {self.bought.get(row.reference, (self.now, Seen.FAILED))[1] for row in self.state.attempts}
            assert ends <= {Seen.FAILED}

    @invariant()
    def nothing_open_is_forgotten(self) -> None:
        order = self.state.order
        raised = {(r.code, r.discriminator) for r in order.raised}
        if order.external_status is ExternalStatus.EXPIRED:
            assert (AttentionCode.EXPIRED, "") in raised
            return
        for row in {row.line: row for row in self.state.attempts}.values():
            if row.live:
                told = (AttentionCode.OUTCOME_UNKNOWN, str(row.attempt)) in raised
                over = order.external_status in TERMINAL
                assert row.next_check_at is not None or row.lease_until is not None or told or over
            elif transition.nothing_bought(row) and order.finished_at is None:
                assert order.waiting is not None

    @invariant()
    def a_finished_order_says_so(self) -> None:
        order = self.state.order
        assert (order.finished_at is not None) == (order.external_status in TERMINAL)
        if order.version:
            assert order.last_event is not None and order.last_event["version"] == order.version


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
