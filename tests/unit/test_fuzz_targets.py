"""A short, seeded run of every fuzz target; `make fuzz` is the long one."""

import dataclasses

import pytest

from agents.providers.base import Placed, PlacedAnswer
from tests.fuzz import answers
from tests.fuzz.engine import attempt, run_seeded
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import TARGETS, Target

INPUTS = {"configuration": 40, "order files": 150}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_bad_input_is_handled_and_settles_nothing_wrongly(target: Target) -> None:
    report = run_seeded(target, INPUTS.get(target.name, 400), seed=2)

    assert report.findings == {}
    assert report.inputs == INPUTS.get(target.name, 400)


def test_a_wrongly_settled_order_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    class Believer:
        async def place(self, *_: object) -> PlacedAnswer:
            return PlacedAnswer(Placed.REJECTED)

    monkeypatch.setattr(answers, "ZNET", Believer())
    [target] = [target for target in TARGETS if target.name == "znet placement"]

    [finding] = run_seeded(target, 200, seed=1).findings

    assert "rejected" in finding


def test_an_error_that_nobody_handles_is_a_finding_with_its_first_input() -> None:
    def check(data: bytes) -> object:
        return 1 // (len(data) - 3)

    target = Target("x", check, lambda: [b"abcd"], ["w"], 1)
    report = run_seeded(target, 500, seed=1)

    [(finding, data)] = report.findings.items()
    assert finding.startswith("ZeroDivisionError at test_fuzz_targets.py")
    with pytest.raises(ZeroDivisionError):
        check(bytes.fromhex(data))
    assert attempt(dataclasses.replace(target, check=len), b"ab", report) == 2


def test_the_same_seed_gives_the_same_inputs() -> None:
    corpus = [b'{"a": [1, "b"]}', b"OK|1|2"]
    one, other = (Mutator(("t", 5), ["w", "x"]) for _ in range(2))
    assert [one.change(corpus[0], corpus) for _ in range(200)] == [other.change(corpus[0], corpus) for _ in range(200)]
