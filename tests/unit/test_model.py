"""Lives that nobody wrote down: Hypothesis draws what happens, the judge looks on after every write.

`ORDERWATCH_MODEL_EXAMPLES=5000` draws more and other ones than every run does.
"""

import os
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agents.domain import placement, resolution, status_answers, transition
from db.rows import OrderState
from orderwatch.crash.judge import Judge
from orderwatch.crash.memory import MemoryLedger
from orderwatch.crash.scenario import FAIL, FAULTS, PACKAGE, TENANT, Scenario, Step
from orderwatch.crash.shop import CLASSES
from orderwatch.crash.world import Subject, World, open_states, virtual
from streams.events import Check
from streams.kafka.producer import message

MORE = os.environ.get("ORDERWATCH_MODEL_EXAMPLES")
PROFILE = settings(
    max_examples=int(MORE or 150),
    stateful_step_count=40,
    deadline=None,
    derandomize=MORE is None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)

#: For what is broken on purpose: the first wrong life is enough, and nobody will read it.
UNSHRUNK = settings(PROFILE, phases=[Phase.generate], report_multiple_bugs=False)

LIFE = Scenario("drawn", (), checks={"deadline": "8000h", "long_pending_after": ["40s", "400s"]}, hours=3.0)
SHORT_LIFE = Scenario("drawn", (), checks={"deadline": "200s", "long_pending_after": ["40s"]}, ends=False)
orders = st.sampled_from(["o1", "o2", "o3"])
integrations = st.sampled_from(["one", "two"])


class Lives(RuleBasedStateMachine):
    """One world: orders of one shop, two integrations of a drawn kind, workers that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()

    @initialize(
        kind=st.sampled_from(sorted(CLASSES)),
        life=st.sampled_from([LIFE, LIFE, SHORT_LIFE]),
        fault=st.sampled_from(sorted(FAULTS)),
    )
    def begin(self, kind: str, life: Scenario, fault: str) -> None:
        self.world = World(Subject(kind, *CLASSES[kind]), life, FAULTS[fault], {})
        self.judge = Judge(self.world)
        self.open.enter_context(virtual(self.world))
        self.world.take_over()
        self.versions: dict[str, int] = {}
        self.world.play(Step(0.0, "order"))

    # -- what a shop, a person and the clock do --

    @rule(order=orders, quantity=st.sampled_from([1, 1, 2]), player=st.sampled_from(["ann", "ann", "bob"]))
    def order(self, order: str, quantity: int, player: str) -> None:
        self.world.play(Step(0.0, "order", order, quantity, player))

    @rule(order=orders)
    def ask(self, order: str) -> None:
        self.world.play(Step(0.0, "ask", order))

    @rule(order=orders, attempt=st.integers(0, 3), number=st.integers(0, 6))
    def stray_check(self, order: str, attempt: int, number: int) -> None:
        event = Check(
            order_id=order,
            tenant_id=TENANT,
            attempt=attempt,
            check_number=number,
            due_at=self.world.now(),
            reason="backoff",
        )
        if self.world.ledger.state((TENANT, order)) is not None:
            self.world.log.append(message(event, "orders.check"))

    @rule(order=orders)
    def resolve(self, order: str) -> None:
        self.world.resolve(order)

    @rule(order=orders, kind=st.sampled_from(["again", "send", "cancel"]))
    def command(self, order: str, kind: Any) -> None:
        self.world.play(Step(0.0, kind, order))

    @rule()
    def repeat_command(self) -> None:
        self.world.play(Step(0.0, "repeat"))

    @rule()
    def sweep(self) -> None:
        self.world.sweep()

    @rule(integration=integrations, enabled=st.booleans())
    def switch(self, integration: str, enabled: bool) -> None:
        self.world.switch(integration, enabled=enabled)

    # -- what a provider and the network do --

    @rule(
        integration=integrations,
        words=st.lists(
            st.sampled_from(["stock", "funds", "player", "access", "later", "fails"]), min_size=1, max_size=3
        ),
    )
    def provider_says(self, integration: str, words: list[str]) -> None:
        shop: Any = self.world.shops[integration]
        shop.script += words

    @rule(fault=st.sampled_from(sorted(FAULTS)))
    def network(self, fault: str) -> None:
        self.world.faults.arm(FAULTS[fault])

    @rule(times=st.integers(1, 3))
    def lanes_are_busy(self, times: int) -> None:
        self.world.busy = times

    # -- what time and machines do --

    @rule(seconds=st.sampled_from([0.0, 1.0, 6.0, 30.0, 61.0, 400.0, 4000.0]))
    def time(self, seconds: float) -> None:
        until = self.world.loop.time() + seconds
        self.world.loop.run_to(until)
        self.world.loop.skip_to(until)

    @rule(points=st.integers(1, 12))
    def a_little(self, points: int) -> None:
        """Stop in the middle of whatever is being done."""
        self.world.stop_at = len(self.world.points) + points
        self.world.loop.run_to(self.world.loop.time() + 100.0)
        self.world.stop_at = None

    @rule(points=st.integers(0, 12))
    def fails(self, points: int) -> None:
        self.world.plan[len(self.world.points) + points] = FAIL

    @precondition(lambda self: self.world.owner.alive)
    @rule()
    def kill(self) -> None:
        assert self.world.owner is not None
        self.world.kill(self.world.owner)

    @precondition(lambda self: self.world.owner.alive and self.world.owner.thaw is None)
    @rule(seconds=st.sampled_from([5.0, 15.0, 60.0, 500.0]))
    def freeze(self, seconds: float) -> None:
        assert self.world.owner is not None
        self.world.freeze(self.world.owner, seconds)

    @rule()
    def rebalance(self) -> None:
        """Another worker gets the partitions while this one is in the middle of its work."""
        self.world.take_over()

    # -- what must hold --

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert not self.world.objections, self._said()

    @invariant()
    def nothing_is_bought_twice(self) -> None:
        for state in self.world.ledger.states():
            self.judge._bought_once(state)
        assert not self.world.objections, self._said()

    @invariant()
    def versions_only_grow(self) -> None:
        for state in self.world.ledger.states():
            name = state.order.order_id
            assert state.order.version >= self.versions.get(name, 0)
            self.versions[name] = state.order.version

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self._end()
        finally:
            self.open.close()

    def _end(self) -> None:
        """Every disturbance is over: the order's own means and the sweeper bring all of it to an end."""
        if self.world.objections:
            return
        self.world.plan.clear()
        self.world.busy = 0
        for name, shop in self.world.shops.items():
            shop.script.clear()  # type: ignore[attr-defined]
            self.world.switch(name, enabled=True)
        self.world.faults.arm(FAULTS["none"])
        self.world.loop.run_to(self.world.loop.time() + 1000.0)
        self.world.counting = False
        self.world.run_sweeps(3)
        self.judge.at_end()
        for _ in range(4):
            for state in open_states(self.world):
                self.world.resolve(state.order.order_id)
            self.world.run_sweeps(1)
        self.judge.after_people()
        assert not self.world.objections, self._said()

    def _said(self) -> str:
        return "\n".join([*self.world.objections, *self.world.trace])


def test_whatever_happens_nothing_is_bought_twice_and_nothing_is_lost() -> None:
    run_state_machine_as_test(Lives, settings=PROFILE)


def test_the_model_notices_a_missing_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = MemoryLedger.apply

    async def apply(self: MemoryLedger, change: Any) -> Any:
        state = self.state(change.order.key)
        assert state is not None
        change.order.rev = state.order.rev
        return await guarded(self, change)

    monkeypatch.setattr(MemoryLedger, "apply", apply)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Lives, settings=UNSHRUNK)


def test_the_model_notices_a_fallback_while_an_outcome_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_out(draft: Any, number: int, delay_s: float) -> None:
        draft.move(number, transition.S.NOT_SENT)
        resolution.retry_line(
            draft, draft[number], draft.routing.accounts[draft[number].integration_id].schedule, "gave up"
        )

    for module in (transition, placement, status_answers):
        monkeypatch.setattr(module, "schedule_look_up", find_out)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Lives, settings=UNSHRUNK)


def test_an_undisturbed_life_in_the_model_ends_completed() -> None:
    world = World(Subject("both", *CLASSES["both"]), LIFE, FAULTS["none"], {})
    with virtual(world):
        world.take_over()
        world.play(Step(0.0, "order"))
        world.loop.run_to(1000.0)
        (state,) = list(world.ledger.states())
        assert isinstance(state, OrderState) and state.order.request["package_id"] == PACKAGE
        assert state.order.external_status == "completed"
