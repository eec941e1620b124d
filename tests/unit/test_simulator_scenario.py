"""Scenario files: what is shipped is right, what is wrong is named."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

import orderwatch.simulator
from orderwatch.simulator.faults import Fault, Faults
from orderwatch.simulator.scenario import ScenarioError, load, merged
from tests.shops import ZNET

ACCOUNT = "accounts: [{id: a, kind: znet, credentials: {kod: k, sifre: s}"


def test_the_shipped_scenario_is_valid_and_has_two_tenants_shops() -> None:
    scenario = load(Path(orderwatch.simulator.__file__).with_name("demo.yaml"))
    assert [account.id for account in scenario.accounts] == ["znet-main", "barakat-1", "znet-b", "barakat-b"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (ACCOUNT + ", balanse: 1}]", "accounts[0]: Object contains unknown field `balanse`"),
        (ACCOUNT + ", balance: much}]", "accounts[0].balance: Invalid decimal string (found 'much')"),
        (ACCOUNT + ", life: {after_checks: -1}}]", "accounts[0].life.after_checks: Expected `int` >= 0 (found -1)"),
        (ACCOUNT + ", latency: {kind: uniform, low_ms: 9, high_ms: 3}}]", "high_ms is 3; expected at least low_ms, 9"),
        (ACCOUNT + "}, {id: a, kind: zdk, credentials: {token: t}}]", "account id 'a' occurs twice"),
        (ACCOUNT + "}]\nlives: [{account: b, player: x}]", "a life names account 'b'; expected one of a"),
        (ACCOUNT + "}]\nlives: [{package: x, player: x}]", "either a package or a player"),
        (ACCOUNT + ", faults: [{kind: hide}]}]", "expected hidden_checks or hidden_ms"),
        (ACCOUNT + ", faults: [{kind: empty, operation: check, executions: 1}]}]", "executions of a fault"),
        (ACCOUNT + ", faults: [{kind: empty, operation: balance, player: x}]}]", "has no package and no player"),
        (ACCOUNT + ", catalogue: [{id: 1, name: n, price: 1, oyun: o, kupur: k}]}]", "catalogue[0].id: Expected `str`"),
        ("accounts: [{kind: zdk, id: a, credentials: {token: t}, currency: Lira}]", "currency"),
        ("accounts: [", "is not YAML"),
        ("[]", "Expected `object`"),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "shops.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ScenarioError) as caught:
        load(path)
    assert str(caught.value).startswith("shops.yaml: ") and named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.yaml: cannot be read"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize("field", ["id", "oyun and kupur"])
def test_catalogue_rows_are_told_apart(tmp_path: Path, field: str) -> None:
    row = ZNET["catalogue"][0]
    double = {**row, "kupur": "other"} if field == "id" else {**row, "id": "other"}
    path = tmp_path / "shops.yaml"
    path.write_text(str({"accounts": [{**ZNET, "catalogue": [row, double]}]}), "utf-8")
    with pytest.raises(ScenarioError, match="occurs twice"):
        load(path)


@pytest.mark.parametrize(
    ("base", "patch", "result"),
    [
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"kind": "x", "b": 1}}, {"a": {"kind": "y"}}, {"a": {"kind": "y"}}),
        ({"a": {"kind": "x", "b": 1}}, {"a": {"c": 2}}, {"a": {"kind": "x", "b": 1, "c": 2}}),
    ],
)
def test_settings_are_merged(base: Any, patch: Any, result: Any) -> None:
    assert merged(base, patch) == result


def fault(**settings: Any) -> Fault:
    return msgspec.convert({"kind": "empty", **settings}, Fault)


@pytest.mark.parametrize(
    ("settings", "hits"), [({}, 1), ({"times": 3}, 3), ({"times": None}, 9), ({"times": 2, "probability": 0.999999}, 2)]
)
def test_a_fault_hits_as_often_as_it_says(settings: dict[str, Any], hits: int) -> None:
    faults = Faults("k", (fault(**settings),))
    assert sum(faults.hit("place", "1", []) is not None for _ in range(9)) == hits


def test_a_probability_has_no_limit_and_hits_about_that_share() -> None:
    faults = Faults("k", (fault(probability=0.25),))
    hits = sum(faults.hit("place", str(reference), []) is not None for reference in range(4000))
    assert 900 < hits < 1100


def test_the_same_reference_is_drawn_for_anew_each_time() -> None:
    faults = Faults("k", (fault(probability=0.5),))
    drawn = [faults.hit("place", "1", []) is not None for _ in range(60)]
    again = Faults("k", (fault(probability=0.5),))
    assert set(drawn) == {True, False}
    assert [again.hit("place", "1", []) is not None for _ in range(60)] == drawn
