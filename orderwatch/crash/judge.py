"""What must hold after every write and at the end of every run. The shops' books are the judge of what was bought."""

import msgspec

from agents.domain.transition import PLACED
from db.rows import Attempt, OrderState
from orderwatch.crash.world import World, open_states
from streams.events import Attention, Check, Command, Created, Referenced, StatusChanged, decode, event_id
from streams.order import ATTEMPT_MOVES, TERMINAL, AttemptState, AttentionCode, ExternalStatus

S = AttemptState

_DEAD = (S.NOT_SENT, S.REJECTED, S.FAILED)
_FIXED = ("line", "quantity", "integration_id", "provider", "reference", "wire")


class Judge:
    """Watches one world. Objections go to the world's trace, at the moment of the write that caused them."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.ledger.watcher = self.wrote

    # -- after every write --

    def wrote(self, before: OrderState | None, after: OrderState) -> None:
        """The rules for one write of the ledger."""
        order = after.order
        name = order.order_id
        old = {row.attempt: row for row in before.attempts} if before is not None else {}
        if before is not None:
            if order.version < before.order.version or (
                (order.version != before.order.version) != (order.last_event != before.order.last_event)
            ):
                self._no(f"{name}: version {before.order.version} -> {order.version} beside its last event")
            if before.order.external_status in TERMINAL and order.external_status is not before.order.external_status:
                self._no(f"{name}: left {before.order.external_status}")
        if [row.attempt for row in after.attempts] != list(range(1, len(after.attempts) + 1)):
            self._no(f"{name}: attempts are not numbered 1 to {len(after.attempts)}")
        for row in after.attempts:
            self._attempt(name, old.get(row.attempt), row)
        self._bought_once(after)
        self._has_a_way_forward(after)

    def _attempt(self, name: str, old: Attempt | None, row: Attempt) -> None:
        what = f"{name}/{row.attempt}"
        if old is None:
            if row.state is not S.INTENT and not (row.state is S.SENDING and row.lease_until is not None):
                self._no(f"{what}: born {row.state}")
            return
        if any(getattr(old, field) != getattr(row, field) for field in _FIXED):
            self._no(f"{what}: what was decided at its birth was changed")
        if old.state is row.state:
            return
        if row.state not in ATTEMPT_MOVES[old.state]:
            self._no(f"{what}: {old.state} -> {row.state} is not a move")
        if old.state is S.UNKNOWN and row.state is S.SENDING and not self._world.subject.adapter.profile.repeat_safe:
            self._no(f"{what}: sent again, and it is not known whether it was bought")
        if (row.reference, row.attempt) in self._world.operator_said:
            return
        until = old.lease_until
        if "lease_over" in row.evidence and "lease_over" not in old.evidence and until and until > self._world.now():
            self._no(f"{what}: taken from its sender before the lease was over")
        bought = self._world.bought(row.reference)
        if row.state in _DEAD and bought:
            self._no(f"{what}: settled as {row.state}, and bought {bought} times")
        if row.state in (S.ACCEPTED, S.COMPLETED) and not bought and row.reference not in self._failing():
            self._no(f"{what}: settled as {row.state}, and never bought")

    def _failing(self) -> set[str]:
        return {p.reference for shop in self._world.shops.values() for p in getattr(shop, "book", ())}

    def _has_a_way_forward(self, state: OrderState) -> None:
        order = state.order
        if order.external_status in TERMINAL or order.external_status is ExternalStatus.EXPIRED:
            return
        raised = {(r.code, r.discriminator) for r in order.raised}
        for row in state.attempts:
            told = (AttentionCode.OUTCOME_UNKNOWN.value, str(row.attempt)) in raised
            if row.live and row.next_check_at is None and not told:
                self._no(f"{order.order_id}/{row.attempt}: {row.state}, with no check, no lease and nobody told")
        if not any(row.live for row in state.attempts) and order.waiting is None and order.next_check_at is None:
            self._no(f"{order.order_id}: open, with no live attempt, no check and nothing it waits for")

    # -- at the end --

    def at_rest(self) -> None:
        """After the run, before any sweep that the scenario did not ask for: the log alone must have been enough.

        Not after two disturbances: those may need the sweeper.
        """
        if not self._world.scenario.ends or len(self._world.plan) > 1:
            return
        for state in self.asleep():
            rows = ", ".join(f"attempt {row.attempt} {row.state}" for row in state.attempts)
            self._no(f"{state.order.order_id}: came to rest {state.order.external_status} ({rows})")

    def asleep(self) -> list[OrderState]:
        """Open orders that wait for nobody: only the sweeper wakes them."""
        return [
            state
            for state in open_states(self._world)
            if state.order.waiting is None and not self._waits_for_a_person(state)
        ]

    def at_end(self) -> None:
        """After the sweeps: nothing lost, nothing bought twice, everything told."""
        self._accepted()
        for state in self._world.ledger.states():
            self._bought_once(state)
            self._settled_as_bought(state)
            self._told(state)
            self._not_forgotten(state)
        self._answers_are_kept()
        self._commands_are_decided()
        self._books_are_closed()

    def after_people(self) -> None:
        """After operators resolved every unknown outcome: every order is at its end, and was bought at most once."""
        for state in self._world.ledger.states():
            self._bought_once(state)
            self._settled_as_bought(state)
            done = state.order.finished_at is not None or self._off() or self._for_a_person(state)
            if self._world.scenario.ends and not done:
                self._no(f"{state.order.order_id}: {state.order.external_status} after a person said what happened")

    def _not_forgotten(self, state: OrderState) -> None:
        order = state.order
        if not self._world.scenario.ends or order.finished_at is not None or self._waits_for_a_person(state):
            return
        if not self._off() and not self._for_a_person(state):
            self._no(f"{order.order_id}: {order.external_status} after the sweeps; waits for {order.waiting}")

    def _for_a_person(self, state: OrderState) -> bool:
        """The engine stopped on purpose: partly delivered, or refused again and again for an unknown reason."""
        return state.order.waiting in (AttentionCode.PARTLY_DELIVERED, AttentionCode.REFUSED_REPEATEDLY)

    def _off(self) -> bool:
        return not any(integration.enabled for integration in self._world.config.integrations)

    def _waits_for_a_person(self, state: OrderState) -> bool:
        codes = {r.code for r in state.order.raised}
        profile = self._world.subject.adapter.profile
        blind = not (profile.look_up or profile.repeat_safe)
        unknown = any(row.state is S.UNKNOWN for row in state.attempts)
        return unknown and blind and AttentionCode.OUTCOME_UNKNOWN in codes

    def _accepted(self) -> None:
        for record in self._world.log.records("orders.created"):
            event = decode(Created, record.value)
            if self._world.ledger.state((event.tenant_id, event.order_id)) is None:
                self._no(f"{event.order_id}: lost; it was never written down")
        for letter in self._world.log.records("orders.dead-letter"):
            why = dict(letter.headers).get("dlq.error", b"").decode()
            self._no(f"dead letter: {why}")

    def _bought_once(self, state: OrderState) -> None:
        """Judged by the references that the shops know, not by what the ledger believes."""
        doubled = self._world.faults.doubled
        for line in {row.line for row in state.attempts}:
            rows = [row for row in state.attempts if row.line == line]
            bought = {row.reference: count for row in rows if (count := self._world.bought(row.reference))}
            own = sum(count - (1 if reference in doubled and count > 1 else 0) for reference, count in bought.items())
            if own > 1:
                self._no(f"{state.order.order_id}, line {line}: bought {own} times ({', '.join(sorted(bought))})")

    def _settled_as_bought(self, state: OrderState) -> None:
        order = state.order
        rows = [row for row in state.attempts if self._world.bought(row.reference)]
        codes = {r.code for r in order.raised}
        fewer = len({row.line for row in rows}) < order.lines
        if order.external_status is ExternalStatus.COMPLETED and fewer and AttentionCode.REVERSAL not in codes:
            self._no(f"{order.order_id}: completed, and {len(rows)} of {order.lines} lines were bought")
        told = {AttentionCode.REVERSAL.value, AttentionCode.OUTCOME_UNKNOWN.value} & codes
        by_deadline = self._world.config.checks.on_deadline == "fail" and self._world.now() >= order.deadline_at
        if order.external_status is ExternalStatus.FAILED and rows and not told and not by_deadline:
            self._no(f"{order.order_id}: failed, and bought by attempt {rows[0].attempt}")
        for row in rows:
            if row.state in _DEAD and not told and (row.reference, row.attempt) not in self._world.operator_said:
                self._no(f"{order.order_id}/{row.attempt}: {row.state}, and bought")

    def _told(self, state: OrderState) -> None:
        """What the ledger says was said to everybody else: on the topics and in the views."""
        order = state.order
        log = self._world.log
        said = {"orders.attention": {r.ce_id for r in log.records("orders.attention")}}
        references = (decode(Referenced, record.value) for record in log.records("orders.referenced"))
        referenced = {(event.tenant_id, event.order_id, event.attempt) for event in references}
        for row in state.attempts:
            if row.state in PLACED and (*order.key, row.attempt) not in referenced:
                self._no(f"{order.order_id}/{row.attempt}: {row.state}, and no reference event was written")
        for raised in order.raised:
            attention = Attention(
                code=raised.code,
                message="",
                since=raised.since,
                order_id=order.order_id,
                tenant_id=order.tenant_id,
                discriminator=raised.discriminator,
            )
            if raised.code == AttentionCode.EXPIRED and order.finished_at is not None:
                continue  # overtaken by the end of the order, which was told
            if event_id(attention) not in said["orders.attention"]:
                self._no(f"{order.order_id}: attention {raised.code} was raised and never told")
            elif event_id(attention) not in self._world.views.raised:
                self._no(f"{order.order_id}: attention {raised.code} is not in the view")
        changes = [decode(StatusChanged, record.value) for record in log.records("orders.status-changed")]
        mine = [change for change in changes if (change.tenant_id, change.order_id) == order.key]
        if order.last_event is not None and msgspec.convert(order.last_event, StatusChanged) not in mine:
            self._no(f"{order.order_id}: status {order.external_status} (version {order.version}) was never told")
        shown = self._world.views.orders[order.key]
        if (shown["version"], shown["external_status"]) != (order.version, order.external_status):
            self._no(f"{order.order_id}: {order.external_status} in the ledger, {shown['external_status']} in the view")

    def _answers_are_kept(self) -> None:
        """What a process heard, and lived to write down, is not forgotten: frozen ones wake up with an answer."""
        heard = {reference for process, reference in self._world.heard if process.alive}
        for state in self._world.ledger.states():
            for row in state.attempts:
                if row.state is S.UNKNOWN and row.reference in heard:
                    self._no(f"{state.order.order_id}/{row.attempt}: unknown, and the provider said that it took it")

    def _commands_are_decided(self) -> None:
        """Every command has its answer, was carried out at most once, and what follows from it was said."""
        ledger, log = self._world.ledger, self._world.log
        written = [step.details["command"] for _, step in ledger.timeline if "command" in step.details]
        said = {record.ce_id for record in log.records("orders.check")}
        for event in {decode(Command, record.value) for record in log.records("orders.command")}:
            held = ledger.commands.get((event.order[0], event.command_id))
            if held is None or held.done is None:
                self._no(f"command {event.command_id} ({event.action}): never answered")
                continue
            times = written.count(event.command_id)
            if times != int("never accepted" not in str(held.said)):
                self._no(f"command {event.command_id} ({event.action}): {times} times in the timeline")
            for attempt, number in held.asked or ():
                tenant_id, order_id = event.order
                check = Check(
                    order_id=order_id,
                    tenant_id=tenant_id,
                    attempt=attempt,
                    check_number=number,
                    due_at=event.issued_at,
                    reason="operator",
                )
                if event_id(check) not in said:
                    self._no(f"command {event.command_id}: its check of attempt {attempt} was never written")

    def _books_are_closed(self) -> None:
        """Every placement is of a known attempt, and one id never carries two facts."""
        known = {row.reference for state in self._world.ledger.states() for row in state.attempts}
        for _, reference in self._world.faults.placed:
            if reference not in known:
                self._no(f"placed under {reference}, which no attempt has")
        for topic in ("orders.referenced", "orders.status-changed"):
            values: dict[str, bytes | None] = {}
            for record in self._world.log.records(topic):
                if values.setdefault(record.ce_id, record.value) != record.value:
                    self._no(f"{topic}: one id, two contents: {record.value!r}")

    def _no(self, what: str) -> None:
        self._world.object_to(what)
