"""The explorer on the real handlers: nothing goes wrong, and with a protection taken away something does.

A part of the points, chosen so that the whole takes about a minute; `python -m orderwatch.crash` takes them all.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.domain import deadlines, placement, status_answers, transition
from agents.handlers import check, dispatch
from agents.handlers.context import commit, publish
from agents.maintenance import sweeper
from agents.providers.base import Placed, PlacedAnswer, Refusal
from agents.runtime.ordered_pool import Pool
from db.rows import OrderState
from orderwatch.crash import explore as explorer
from orderwatch.crash import shop
from orderwatch.crash.explore import Report, Run, explore, pairs, perform, runs, shortest, told
from orderwatch.crash.judge import Judge
from orderwatch.crash.memory import MemoryLedger
from orderwatch.crash.scenario import COMA, FAIL, FAULTS, KILL, NAP, SCENARIOS, Act, Fault, Scenario
from orderwatch.crash.shop import CLASSES, LookUp, PlainShop
from orderwatch.crash.wire import Wire
from orderwatch.crash.world import Subject

SUBJECTS = {name: Subject(name, adapter, made) for name, (adapter, made) in CLASSES.items()}
ALL = list(FAULTS.values())
QUICK = [FAULTS["none"], FAULTS["lost"]]
#: Short lives of which no point is left out, for every kind of provider.
WHOLE = ["one order", "fallback"]
#: Lives in which somebody acts who is no event: of these every kill, for one kind of provider.
BY_HAND = ["long pending", "deadline", "operator", "switched off", "sent elsewhere", "cancelled in the lane"]


def named(*names: str) -> list[Scenario]:
    return [SCENARIOS[name] for name in names]


def assert_right(report: Report) -> None:
    assert not report.wrong, "\n\n".join(told(run, seen) for run, seen in report.shortest.values())


@pytest.mark.parametrize("kind", SUBJECTS)
def test_an_order_survives_a_kill_at_every_point(kind: str) -> None:
    report = explore(runs(SUBJECTS[kind], named(*WHOLE), QUICK, [KILL]))
    assert_right(report)
    assert report.acts["kill"] == report.points > 110


@pytest.mark.parametrize("life", BY_HAND)
def test_what_is_done_by_hand_or_by_the_clock_survives_a_kill_at_every_point(life: str) -> None:
    kind = "neither" if life == "operator" else "look-up"
    assert_right(explore(runs(SUBJECTS[kind], named(life), QUICK, [KILL])))


@pytest.mark.parametrize("kind", SUBJECTS)
def test_every_life_survives_kills_freezes_and_failures(kind: str) -> None:
    report = explore(runs(SUBJECTS[kind], SCENARIOS.values(), ALL, [KILL, FAIL, NAP, COMA], every=211))
    assert_right(report)
    assert report.scenarios == len(SCENARIOS) * len(ALL)


@pytest.mark.parametrize("kind", SUBJECTS)
def test_two_disturbances_in_one_life_are_survived(kind: str) -> None:
    assert_right(explore(pairs(SUBJECTS[kind], SCENARIOS.values(), ALL, [KILL, FAIL, NAP, COMA], 40, seed=7)))


def test_without_a_way_to_find_out_a_person_is_told_and_nothing_is_bought_again() -> None:
    seen = perform(Run(SUBJECTS["neither"], SCENARIOS["one order"], FAULTS["lost"]))
    assert not seen.objections and seen.ends == {"unknown": 1}
    assert sum("before place" in line for line in seen.trace) == 1
    assert any("write orders.attention" in line for line in seen.trace)


@pytest.mark.parametrize("kind", ["repeat", "look-up", "both"])
@pytest.mark.parametrize("fault", FAULTS)
def test_where_there_is_a_way_to_find_out_the_order_ends_without_a_person(kind: str, fault: str) -> None:
    seen = perform(Run(SUBJECTS[kind], SCENARIOS["one order"], FAULTS[fault], {5: COMA}))
    assert not seen.objections and seen.ends == {"completed": 1}


def test_what_the_provider_executes_twice_by_itself_is_counted_and_not_ours() -> None:
    seen = perform(Run(SUBJECTS["look-up"], SCENARIOS["one order"], FAULTS["twice"]))
    assert seen.doubled == 1 and not seen.objections
    assert perform(Run(SUBJECTS["both"], SCENARIOS["one order"], FAULTS["twice"])).doubled == 0


def test_what_a_worker_decides_after_a_freeze_and_dies_without_telling_is_told_by_the_sweep() -> None:
    life = Run(SUBJECTS["look-up"], SCENARIOS["sent elsewhere"], FAULTS["lost"])
    begun = next(number for number, point in enumerate(perform(life).points) if "before place at two" in point.where)
    frozen = replace(life, plan={begun: Act("freeze", 24.0)})  # longer than its membership, shorter than its lease
    points = perform(frozen).points
    late = [n for n, point in enumerate(points) if n > begun and point.process == points[begun].process]
    kills = [(replace(frozen, plan={**frozen.plan, number: KILL}), None) for number in late]
    assert len(kills) > 5
    assert_right(explore(kills))


def test_the_same_run_is_the_same_to_the_last_step() -> None:
    run = Run(SUBJECTS["both"], SCENARIOS["two orders"], FAULTS["questions"], {20: KILL, 60: NAP})
    assert perform(run) == perform(run)


def test_the_example_adapter_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples" / "provider_topup"))
    from orderwatch_topup import Topup
    from topup_shop import TopupShop

    subject = Subject("topup", Topup, TopupShop, {"sku": "1"}, {"key": "kit"})
    assert_right(explore(runs(subject, named("one order", "repeats"), ALL, [KILL, COMA], every=13)))


# -- taken away -----------------------------------------------------------------------------------------------------


def without_revisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision lands on whatever the order has become."""
    guarded = MemoryLedger.apply

    async def apply(self: MemoryLedger, change: Any) -> Any:
        state = self.state(change.order.key)
        assert state is not None
        return await guarded(
            self, msgspec.structs.replace(change, order=msgspec.structs.replace(change.order, rev=state.order.rev))
        )

    monkeypatch.setattr(MemoryLedger, "apply", apply)


def without_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds a sending takes it."""
    guarded = MemoryLedger.apply

    async def apply(self: MemoryLedger, change: Any) -> Any:
        return await guarded(self, msgspec.structs.replace(change, only_expired=None))

    monkeypatch.setattr(MemoryLedger, "apply", apply)
    monkeypatch.setattr(check, "_lease_runs", lambda *_: False)


def without_the_end_of_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that wakes up after its lease sends nevertheless."""
    monkeypatch.setattr(Wire, "_refuse_after_lease", lambda self: None)


def with_timeouts_as_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop, "unsent_or_unknown", lambda error: PlacedAnswer(Placed.REJECTED, reason=Refusal.STOCK))


def with_unknown_as_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fallback starts while the outcome is open."""
    right = placement.on_placement_answer

    def placed(state: OrderState, number: int, token: str, answer: PlacedAnswer, *rest: Any) -> Any:
        if answer.kind is Placed.AMBIGUOUS:
            answer = replace(answer, kind=Placed.NOT_SENT)
        return right(state, number, token, answer, *rest)

    monkeypatch.setattr(placement, "on_placement_answer", placed)


def with_acknowledgement_first(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Pool.submit

    async def submit(self: Pool, event: Any, handle: Any) -> None:
        event.ack()
        await right(self, event, handle)

    monkeypatch.setattr(Pool, "submit", submit)


def without_telling_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> None: ...

    for module in (dispatch, check):
        monkeypatch.setattr(module, "republish", nothing)


def with_orders_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated created event starts the order again."""
    right = MemoryLedger.open

    async def opened(self: MemoryLedger, change: Any) -> Any:
        self._states.pop(change.order.key, None)
        return await right(self, change)

    monkeypatch.setattr(MemoryLedger, "open", opened)


def with_late_answers_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_late", lambda *_: None)


def with_unknown_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine believes that every provider buys a repeated reference once."""
    for module in (transition, placement, status_answers):
        monkeypatch.setattr(module, "may_repeat", lambda *_: True)


def with_thresholds_written_before_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def long_pending(deps: Any, key: Any, threshold_s: float) -> None:
        state = await deps.ledger.load(key)
        now = deps.clock.now()
        after = await commit(deps, state, lambda s: deadlines.long_pending(s, deps.routing, now, threshold_s))
        await publish(deps, state, after)

    monkeypatch.setattr(sweeper, "_long_pending", long_pending)


Away = Callable[[pytest.MonkeyPatch], None]
LONG = Act("freeze", 1000.0)
#: What is taken away -> where it shows: provider, life, fault, disturbance, and what the judge says.
TAKEN_AWAY: dict[Away, tuple[str, str, str, Act | None, str]] = {
    without_revisions: ("look-up", "busy lane", "none", NAP, "bought 2 times"),
    without_leases: ("look-up", "asked in flight", "lost", None, "before the lease was over"),
    without_the_end_of_the_lease: ("look-up", "one order", "none", LONG, "bought"),
    with_timeouts_as_refusals: ("look-up", "one order", "lost", None, "settled as rejected, and bought"),
    with_unknown_as_not_sent: ("both", "one order", "lost", None, "settled as not_sent, and bought"),
    with_acknowledgement_first: ("repeat", "one order", "none", KILL, "lost"),
    without_telling_again: ("both", "one order", "none", KILL, "came to rest"),
    with_orders_opened_anew: ("look-up", "repeats", "none", None, "bought 4 times"),
    with_late_answers_dropped: ("neither", "one order", "none", COMA, "said that it took it"),
    with_unknown_sent_again: ("neither", "one order", "lost", None, "sent again"),
    with_thresholds_written_before_they_are_told: ("look-up", "long pending", "none", KILL, "never told"),
}


@pytest.mark.parametrize("taken", TAKEN_AWAY, ids=lambda away: away.__name__)
def test_a_protection_that_is_taken_away_shows(taken: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, life, fault, act, wrong = TAKEN_AWAY[taken]
    taken(monkeypatch)
    acts: Iterable[Act] = [] if act is None else [act]
    report = explore(runs(SUBJECTS[kind], named(life), [FAULTS[fault]], acts), shrink=False)
    said = [objection for _, seen in report.shortest.values() for objection in seen.objections]
    assert any(wrong in objection for objection in said), said[:10]


def test_a_provider_that_shows_orders_later_than_its_profile_says_is_found_out() -> None:
    class Hasty(LookUp):
        profile = replace(LookUp.profile, absent_settle_s=0.0, absent_answers=1, absent_window_s=0.0)

    slow = Fault("delayed", "no answer, executed after a minute", delay_s=60.0)
    seen = perform(Run(Subject("hasty", Hasty, PlainShop), SCENARIOS["one order"], slow))
    assert any("bought 2 times" in objection for objection in seen.objections)


def test_one_kind_of_violation_does_not_hide_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with_timeouts_as_refusals(monkeypatch)
    right = Judge.wrote

    def noisy(self: Judge, before: OrderState | None, after: OrderState) -> None:
        order = after.order
        self._world.object_to(f"{order.order_id}: noise {order.rev} in b'{order.rev}-{after.order.version}'")
        right(self, before, after)

    monkeypatch.setattr(Judge, "wrote", noisy)
    lives = [(Run(SUBJECTS["look-up"], SCENARIOS[life], FAULTS["lost"]), None) for life in ("one order", "two orders")]
    report = explore(lives, shrink=False)
    noise, *others = sorted(report.shortest, key=lambda kind: "noise" not in kind)
    assert "noise" in noise and not any("noise" in kind for kind in others)
    assert any("settled as rejected, and bought" in kind for kind in others)
    assert report.kinds[noise] == 2 == report.wrong
    texts = [told(run, seen, kind) for kind, (run, seen) in report.shortest.items()]
    assert all("WRONG" in text.splitlines()[-1] for text in texts)
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("o1: bought 2 times", "o1: bought 3 times"),
        ("o1, line 1: bought 2 times (6e2e96351b4b60e7)", "o1, line 1: bought 2 times (aa0f96351b4b60e7)"),
        ("orders.referenced: one id, two contents: b'{\"cost\": 1}'", "orders.referenced: one id, two contents: b'{}'"),
        ("o1: never told (t-o1-1)", "o2: never told (t-o2-1)"),
    ],
)
def test_violations_that_differ_in_names_and_contents_are_of_one_kind(first: str, second: str) -> None:
    assert explorer._kind(first) == explorer._kind(second)


def test_violations_of_different_rules_are_of_different_kinds() -> None:
    said = ["o1: left completed", "o1: left failed", "o1/1: settled as failed, and bought 1 times", "o1/1: born sent"]
    assert len({explorer._kind(objection) for objection in said}) == len(said)


def test_a_wrong_run_is_made_as_short_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    with_timeouts_as_refusals(monkeypatch)
    long = Run(SUBJECTS["look-up"], SCENARIOS["two orders"], FAULTS["lost"], {30: NAP, 55: KILL})
    seen = perform(long)
    assert seen.objections
    run, short = shortest(long, seen)
    assert (len(run.scenario.steps), run.plan, run.fault.name) == (1, {}, "lost")
    assert len(short.trace) < len(seen.trace)
    text = told(run, short)
    assert text.splitlines()[-1].endswith("WRONG: " + short.objections[0])
    assert explorer.told(run, short) == text


@pytest.mark.parametrize("kind", SUBJECTS)
@pytest.mark.parametrize("life", ["sold before", "unknown word", "row of a stranger", "two rows"])
def test_an_answer_that_does_not_say_what_happened_buys_nothing_more(kind: str, life: str) -> None:
    seen = perform(Run(SUBJECTS[kind], SCENARIOS[life], FAULTS["none"]))
    assert not seen.objections
    blind = life in ("sold before", "unknown word") and kind == "neither"
    assert seen.ends == ({"unknown": 1} if blind else {"completed": 1})
    repeats = kind == "repeat" and life in ("sold before", "unknown word")  # it has no other way to ask
    assert sum("after place" in line for line in seen.trace) == 1 + repeats


@pytest.mark.parametrize("kind", SUBJECTS)
def test_what_is_called_off_after_its_end_is_told(kind: str) -> None:
    seen = perform(Run(SUBJECTS[kind], SCENARIOS["called off later"], FAULTS["none"]))
    assert not seen.objections and seen.ends == {"completed": 1}
    assert any("write orders.attention" in line for line in seen.trace)


def test_an_unknown_word_that_is_believed_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine takes a row that nobody understands for a refusal."""
    right = placement.on_placement_answer

    def placed(state: OrderState, number: int, token: str, answer: PlacedAnswer, *rest: Any) -> Any:
        if answer.kind in (Placed.AMBIGUOUS, Placed.DUPLICATE):
            answer = replace(answer, kind=Placed.REJECTED, reason=Refusal.STOCK)
        return right(state, number, token, answer, *rest)

    monkeypatch.setattr(placement, "on_placement_answer", placed)
    for life, fault in (("sold before", "none"), ("unknown word", "none"), ("one order", "403"), ("one order", "200")):
        seen = perform(Run(SUBJECTS["look-up"], SCENARIOS[life], FAULTS[fault]))
        assert any("settled as rejected, and bought" in objection for objection in seen.objections), (life, fault)
