"""What happens in one run: who orders what, what the provider and the network do, and where a process stops."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

TENANT = "t"
PACKAGE = "p"


@dataclass(frozen=True, slots=True)
class Step:
    """Something from outside, ``at`` virtual seconds after the start.

    ``order``: the shop's created event (twice is a repeat; another ``player`` is a clash). ``sweep``: a pass of the
    sweeper. ``ask``: an operator's ``order check``. ``resolve``: an operator says, after a look into the provider's
    book, how an attempt with an unknown outcome ended. ``again``, ``send`` (to the second integration), ``cancel``:
    the operator's other commands. ``repeat``: the last command once more, under its id. ``off``, ``on``: a change of
    configuration; ``order`` names the integration then.
    """

    at: float
    kind: Literal["order", "sweep", "ask", "resolve", "again", "send", "cancel", "repeat", "off", "on"]
    order: str = "o1"
    quantity: int = 1
    player: str = "player"

    def __str__(self) -> str:
        return f"{self.at:g} s: {self.kind} {self.order}" + (f" x{self.quantity}" if self.quantity > 1 else "")


@dataclass(frozen=True)
class Scenario:
    """``scripts``: what the plain shop of each integration does to the next placements. ``busy``: how often a lane
    refuses a placement before it takes one. ``checks``: block of the configuration. ``ends``: whether every order has
    to reach its end without a person."""

    name: str
    steps: tuple[Step, ...]
    scripts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    busy: int = 0
    checks: Mapping[str, Any] = field(default_factory=dict)
    off: tuple[str, ...] = ()
    fallback: bool = True
    ends: bool = True
    hours: float = 3.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What the network and the provider do to the first ``placements`` placements, and to the first ``questions``.

    ``answer``: HTTP status and body in the place of the shop's answer to such a placement, None: silence.
    ``answers``: the same for each of the first ``questions``. ``delay_s``: how late a delayed placement is executed;
    None: just within what the adapter's profile grants.
    """

    name: str
    says: str
    placements: int = 1
    questions: int = 0
    delay_s: float | None = None
    answer: tuple[int, bytes] | None = None
    answers: tuple[tuple[int, bytes], ...] = ()


_PAGE = b"<html><head><title>403 Forbidden</title></head></html>"

FAULTS = {
    fault.name: fault
    for fault in (
        Fault("none", "everything answers", placements=0),
        Fault("lost", "executed, no answer until the time limit"),
        Fault("swallowed", "never executed, no answer until the time limit"),
        Fault("twice", "executed twice, answered once"),
        Fault("delayed", "no answer, executed within the time the profile grants (absent_settle_s)"),
        Fault("5xx", "executed, answered with HTTP 500", answer=(500, b"Internal Server Error")),
        Fault("403", "executed, answered with a page of a firewall", answer=(403, _PAGE)),
        Fault("409", "executed, answered with HTTP 409", answer=(409, b"Conflict")),
        Fault(
            "200",
            "executed, answered with words of no protocol",
            answer=(200, b"Daha \xc3\x96nce G\xc3\xb6nderilmi\xc5\x9f"),
        ),
        Fault("firewall", "never executed, answered with a page of a firewall", answer=(403, _PAGE)),
        Fault(
            "pages",
            "executed, no answer, and then the first questions are answered with pages and words of no protocol",
            questions=4,
            answers=((403, _PAGE), (200, b"Sistem bak\xc4\xb1mda"), (429, b""), (404, b"<html>Not Found</html>")),
        ),
        Fault("questions", "executed, no answer, and then the first questions fail too", questions=3),
        Fault("refused", "the connection is refused"),
    )
}


@dataclass(frozen=True, slots=True)
class Act:
    """What happens to a process at a point of its run.

    ``kill``: it is gone, and everything in its memory. ``freeze``: it stands still for ``seconds`` and then goes on,
    while another one took over. ``fail``: the store or broker says that it did not answer, whatever it did.
    """

    kind: Literal["kill", "freeze", "fail"]
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} for {self.seconds:g} s" if self.seconds else self.kind


KILL = Act("kill")
FAIL = Act("fail")
#: Longer than a rebalance, shorter than a lease; and longer than a lease.
NAP, COMA = Act("freeze", 15.0), Act("freeze", 100.0)


def _order(at: float, order: str = "o1", quantity: int = 1, player: str = "player") -> Step:
    return Step(at, "order", order, quantity, player)


_PLAIN = (_order(0.0),)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("one order", _PLAIN),
        Scenario("repeats", (_order(0.0), _order(0.001), _order(30.0), _order(500.0))),
        Scenario("clash", (_order(0.0), _order(20.0, player="somebody else"))),
        Scenario("two orders", (_order(0.0), _order(0.0, "o2"), Step(45.0, "ask"), Step(200.0, "sweep"))),
        Scenario("two units", (_order(0.0, quantity=2),)),
        Scenario("fallback", _PLAIN, scripts={"one": ["stock"]}),
        Scenario("two units, fallback", (_order(0.0, quantity=2),), scripts={"one": ["stock"]}),
        Scenario("refused twice", _PLAIN, scripts={"one": ["stock"], "two": ["funds"]}),
        Scenario("refused for good", _PLAIN, scripts={"one": ["player"]}),
        Scenario("locked out", _PLAIN, scripts={"one": ["access", "access"]}, fallback=False),
        Scenario("retry later", _PLAIN, scripts={"one": ["later", "later"]}),
        Scenario("given up later", _PLAIN, scripts={"one": ["fails"]}),
        Scenario("sold before", _PLAIN, scripts={"one": ["duplicate"]}),
        Scenario("unknown word", _PLAIN, scripts={"one": ["review"]}),
        Scenario("row of a stranger", _PLAIN, scripts={"one": ["stranger"]}),
        Scenario("two rows", _PLAIN, scripts={"one": ["rows"]}),
        Scenario(
            "called off later",
            _PLAIN,
            scripts={"one": ["back"]},
            checks={"after_final": {"every": "600s", "until": "6000s"}},
        ),
        Scenario("busy lane", _PLAIN, busy=3),
        Scenario("switched off", (_order(0.0), Step(100.0, "on", "one"), Step(400.0, "sweep")), off=("one", "two")),
        Scenario("operator", (_order(0.0), Step(700.0, "resolve"), Step(701.0, "resolve"))),
        Scenario(
            "deadline",
            (_order(0.0), Step(150.0, "sweep"), Step(400.0, "ask"), Step(500.0, "resolve")),
            ends=False,
            checks={"deadline": "90s", "first_after": "600s", "long_pending_after": ["30s"]},
        ),
        Scenario(
            "deadline fails",
            (_order(0.0), Step(150.0, "sweep")),
            ends=False,
            checks={"deadline": "90s", "first_after": "600s", "on_deadline": "fail"},
        ),
        Scenario(
            "sent elsewhere",
            (_order(0.0), Step(50.0, "send"), Step(50.001, "repeat"), Step(200.0, "on", "one"), Step(400.0, "sweep")),
            off=("one",),
            fallback=False,
        ),
        Scenario("sent elsewhere from the lane", (_order(0.0), Step(2.0, "send"), Step(2.0, "send")), busy=3),
        Scenario(
            "cancelled",
            (_order(0.0), Step(50.0, "cancel"), Step(60.0, "on", "one"), Step(400.0, "sweep")),
            off=("one", "two"),
        ),
        Scenario("cancelled in the lane", (_order(0.0), Step(2.0, "cancel"), Step(2.5, "repeat")), busy=3),
        Scenario(
            "placed again after the deadline",
            (_order(0.0), Step(150.0, "sweep"), Step(200.0, "again"), Step(201.0, "again"), Step(202.0, "ask")),
            busy=25,
            ends=False,
            checks={"deadline": "90s"},
        ),
        Scenario(
            "one of two units placed again",
            (_order(0.0, quantity=2), Step(400.0, "again"), Step(400.5, "cancel")),
            scripts={"one": ["fails"]},
        ),
        Scenario("asked in flight", (_order(0.0), Step(10.0, "ask"), Step(12.0, "ask"), _order(14.0))),
        Scenario(
            "long pending",
            (_order(0.0), Step(45.0, "sweep")),
            checks={"first_after": "200s", "long_pending_after": ["30s"]},
        ),
        Scenario("watched", _PLAIN, checks={"after_final": {"every": "600s", "until": "1500s"}}),
    )
}

#: Scenarios that need nothing of the shop but its orders: those for an adapter that somebody wrote.
FOR_ANY_SHOP = tuple(name for name, scenario in SCENARIOS.items() if not scenario.scripts)
