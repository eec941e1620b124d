"""Every act of a person, from the button to the ledger, and the pages that move by themselves."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa
from playwright.sync_api import Page, expect

from tests.browser.conftest import FAULTS, PLAYER, Stack, Visit, until
from tests.contract.ledger_rows import put_dead_letter


def act(page: Page, label: str, reason: str = "the browser suite wants it", **choices: str) -> str:
    """Open the dialog of a button, fill it, send it; what the dashboard said."""
    page.locator("main button[data-open]", has_text=label).first.click()
    dialog = page.locator("dialog[open]")
    for name, value in choices.items():
        field = dialog.locator(f"[name={name}]")
        if field.first.get_attribute("type") == "radio":
            dialog.locator(f"[name={name}][value={value}]").check()
        elif field.first.evaluate("one => one.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    if dialog.locator("[name=reason]").count():
        dialog.locator("[name=reason]").fill(reason)
    dialog.locator("[data-send]").click()
    said = dialog.locator(".said.done, .said.refused")
    expect(said).to_be_visible(timeout=20_000)
    text = said.inner_text()
    page.keyboard.press("Escape")
    return text


def test_a_check_is_asked_for_now(visit: Callable[..., Visit], stack: Stack) -> None:
    page = visit().go("/orders/shop/lost-2")
    assert "asked for attempt 1" in act(page, "Check now")
    assert stack.system.rows("select 1 from order_events where order_id = 'lost-2' and step = 'asked'")


def test_an_unknown_outcome_is_settled_with_evidence_and_the_page_follows(
    visit: Callable[..., Visit], stack: Stack
) -> None:
    visitor = visit()
    page = visitor.go("/orders/shop/lost-1")
    expect(page.locator("#head")).to_contain_text("It is not known whether znet-main bought it")
    page.locator("main button[data-open]", has_text="Say what became of it").first.click()
    visitor.shoot("dialog")
    page.keyboard.press("Escape")
    said = act(page, "Say what became of it", outcome="completed", evidence="seen in the panel, line 7")
    assert "is now completed" in said
    expect(page.locator("h1 .badge")).to_contain_text("Completed", timeout=20_000)
    [row] = stack.system.rows("select actor, details from order_events where order_id = 'lost-1' and step = 'resolved'")
    assert row["actor"] == "operator:ayşe"
    assert row["details"]["evidence"] == "seen in the panel, line 7"


def test_a_reason_is_asked_for(visit: Callable[..., Visit], stack: Stack) -> None:
    page = visit().go("/orders/shop/lost-2")
    page.locator("main button[data-open]", has_text="Check now").click()
    page.locator("dialog[open] [data-send]").click()
    assert page.locator("dialog[open] textarea:invalid").count() == 1
    before = len(stack.system.rows("select 1 from commands"))
    page.keyboard.press("Escape")
    assert len(stack.system.rows("select 1 from commands")) == before


def test_an_order_that_waits_is_sent_to_a_chosen_integration_or_cancelled(
    visit: Callable[..., Visit], stack: Stack
) -> None:
    page = visit().go("/orders/shop/hand-2")
    assert "failed" in act(page, "Cancel")
    until(lambda: stack.state("hand-2") == "failed", 30)
    page = visit().go("/orders/shop/hand-3")
    assert "attempt 1 goes to barakat-1" in act(page, "Send to another integration", integration_id="barakat-1")
    until(lambda: stack.state("hand-3") == "completed", 30)
    expect(page.locator("h1 .badge")).to_contain_text("Completed", timeout=20_000)


def test_an_order_whose_attempt_is_proven_dead_is_placed_again(visit: Callable[..., Visit], stack: Stack) -> None:
    fault = {"kind": "hang_up_before", "operation": "place", "times": 1}
    stack.system.control("POST", FAULTS, fault)  # nothing is bought, and nobody can know
    stack.send(("again-1", "sixty"))
    until(lambda: stack.state("again-1") == "unknown", 30)
    visitor = visit()
    page = visitor.go("/orders/shop/again-1")
    expect(page.locator("main button[data-open]", has_text="Place again")).to_have_count(0)
    with stack.system.engine.begin() as connection:
        connection.execute(sa.text("update ledger_orders set deadline_at = now() where order_id = 'again-1'"))
    until(lambda: stack.state("again-1") == "expired", 30)
    page.reload()
    act(page, "Say what became of it", outcome="not_sent", evidence="not in their panel")
    page.reload()
    assert "attempt 2 goes to" in act(page, "Place again", "the buyer still waits")
    until(
        lambda: (
            len(attempts := stack.system.rows("select state from attempts where order_id = 'again-1' order by attempt"))
            == 2
            and attempts[0]["state"] == "not_sent"
            and attempts[1]["state"] in ("accepted", "completed")
        ),
        30,
    )
    expect(page.locator("main")).to_contain_text("the buyer still waits", timeout=20_000)
    visitor.shoot("placed-again")
    references = {
        row["reference"] for row in stack.system.rows("select reference from attempts where order_id = 'again-1'")
    }
    assert (
        sum(
            text in references
            for row in stack.system.control("GET", "/ledger")
            for text in row.values()
            if isinstance(text, str)
        )
        == 1
    )


def test_letters_go_out_as_they_came_one_by_one_and_as_a_group(visit: Callable[..., Visit], stack: Stack) -> None:
    topic, order = stack.system.prefix + "orders.created", {"tenant_id": "shop", "package_id": "batch"}
    order |= {"user_identifier": PLAYER, "created_at": datetime.now(UTC).isoformat()}
    for number in range(3):
        value = json.dumps({"order_id": f"parked-{number}", **order}).encode()
        put_dead_letter(
            stack.system.engine,
            number,
            order_id=f"parked-{number}",
            reason="handler_failed",
            topic=topic,
            tenant_id="shop",
            value=value,
        )
    page = visit().go("/dead-letters?reason=handler_failed")
    page.locator("[data-row] a.main").first.click()
    assert "Sent again: 1" in act(page, "Replay as it came")
    until(lambda: stack.state("parked-0") == "completed", 30)
    page = visit().go("/dead-letters")
    assert "Sent again: 2" in act(page, "Replay these 2")
    until(lambda: stack.state("parked-1") == stack.state("parked-2") == "completed", 30)
    rows = stack.system.rows("select done, by, reason, moved from commands where action = 'replay' and done")
    assert [len(row["moved"]) for row in rows if row["reason"] == "the browser suite wants it"] == [1, 2]


def test_pins_are_shown_once_and_it_is_written_down(visit: Callable[..., Visit], stack: Stack) -> None:
    page = visit().go("/orders/shop/done-1")
    assert "PIN" in page.inner_text("#acts + .row, .acts")
    page.locator("main button[data-open]", has_text="Show the PINs").click()
    page.locator("dialog[open] [data-send]").click()
    expect(page.locator("dialog[open] .pins li")).to_have_count(1)
    page.keyboard.press("Escape")
    assert stack.system.rows("select 1 from audit where action = 'pin.release' and actor = 'ayşe'")
    reader = visit("orders:read", "actions").go("/orders/shop/done-1")
    assert "lacks the scope pins" in reader.inner_text("main")


def test_what_was_seen_leaves_the_queue_one_by_one_and_as_a_group(visit: Callable[..., Visit], stack: Stack) -> None:
    visitor = visit()
    page = visitor.go("/attention")
    group = page.locator("section", has=page.locator("code", has_text="manual_route"))
    expect(group.locator("[data-row]")).to_have_count(3)
    group.locator("[data-row] button").first.click()
    page.locator("dialog[open] [data-send]").click()
    expect(page.locator("dialog[open] .said.done")).to_be_visible()
    page.keyboard.press("Escape")
    expect(group.locator("[data-row]")).to_have_count(2, timeout=20_000)
    group.get_by_role("button", name="Seen: these").click()
    page.locator("dialog[open] [data-send]").click()
    expect(page.locator("dialog[open] .said.done")).to_be_visible()
    page.keyboard.press("Escape")
    expect(group).to_have_count(0, timeout=20_000)
    rows = stack.system.rows("select acknowledged_by from attention where code = 'manual_route'")
    assert {row["acknowledged_by"] for row in rows} == {"ayşe"}
    commanded = stack.system.rows("select done, moved from commands where action = 'acknowledge' order by received_at")
    assert [(row["done"], len(row["moved"])) for row in commanded] == [(True, 1), (True, 2)]


def test_a_dead_letter_is_judged_first_and_goes_out_corrected(visit: Callable[..., Visit], stack: Stack) -> None:
    visitor = visit()
    page = visitor.go("/dead-letters")
    page.locator("main button", has_text="Replay these 3").click()
    page.locator("dialog[open] [data-dry]").click()
    expect(page.locator("dialog[open] .outcome li")).to_have_count(3)
    assert "still malformed" in page.locator("dialog[open] .outcome").inner_text()
    visitor.shoot("replay")
    page.keyboard.press("Escape")
    page.locator("[data-row] a.main").first.click()
    page.locator("main button", has_text="Fix and replay").click()
    page.fill("dialog[open] [name=fix]", '{"quantity": 1}')
    page.locator("dialog[open] [data-dry]").click()
    expect(page.locator("dialog[open] .outcome")).to_contain_text("is accepted as a new order and bought at")
    visitor.shoot("fix")
    page.fill("dialog[open] [name=reason]", "the shop wrote a word")
    page.locator("dialog[open] [data-send]").click()
    expect(page.locator("dialog[open] .said.done")).to_contain_text("Sent again: 1")
    until(lambda: stack.state("bad-0") or stack.state("bad-1") or stack.state("bad-2"), 30)
    [row] = stack.system.rows(
        "select replayed_by from dead_letters where replayed_at is not null and reason = 'malformed'"
    )
    assert row["replayed_by"] == "ayşe"


def test_a_route_is_tested_and_nothing_leaves(visit: Callable[..., Visit], stack: Stack) -> None:
    visitor = visit()
    page = visitor.go("/routes/shop/sixty")
    bought = len(stack.system.control("GET", "/ledger"))
    page.fill("[name=user_identifier]", "player-77")
    page.locator("[data-send]").click()
    expect(page.locator(".timeline .proof").first).to_contain_text("player-77")
    assert "demo" not in page.locator(".timeline").inner_text()
    visitor.shoot("route-tested")
    page = visitor.go("/routes/shop/by-hand")
    page.locator("[data-send]").click()
    expect(page.locator(".timeline .bad")).to_have_count(1)
    assert len(stack.system.control("GET", "/ledger")) == bought


def test_an_integration_is_switched_off_and_on(visit: Callable[..., Visit], stack: Stack) -> None:
    visitor = visit()
    page = visitor.go("/integrations")
    card = page.locator("#codes-1")
    for button, shown, state in (("Switch off", "Switched off", False), ("Switch on", "Working", True)):
        card.get_by_role("button", name=button).click()
        page.locator("dialog[open] [name=reason]").fill("an emergency")
        page.locator("dialog[open] [data-send]").click()
        expect(page.locator("dialog[open] .said.done")).to_be_visible()
        page.keyboard.press("Escape")
        expect(card).to_contain_text(shown, timeout=20_000)
        expect(card.get_by_text("by ayşe: an emergency")).to_have_count(0 if state else 1)
        visitor.shoot(f"switch-{state}")
        [row] = stack.system.rows("select doc -> 'enabled' as enabled from integrations where id = 'codes-1'")
        assert row["enabled"] is state
    looker = visit("orders:read", "actions").go("/integrations")
    assert "lacks the scope admin" in looker.inner_text("main")


def test_an_order_that_comes_moves_the_overview_without_a_reload(visit: Callable[..., Visit], stack: Stack) -> None:
    page = visit().go("/")
    page.evaluate("document.body.dataset.same = 'yes'")
    page.wait_for_selector("#live:not(.off)")
    title = page.locator("#flow svg > title").first.text_content()
    stack.send(("live-1", "sixty"))
    expect(page.locator("#flow svg > title").first).not_to_have_text(title or "", timeout=30_000)
    assert page.evaluate("document.body.dataset.same") == "yes"


def test_a_search_by_any_number_leads_to_the_order(visit: Callable[..., Visit], stack: Stack) -> None:
    [row] = stack.system.rows("select reference, external_order_id from attempts where order_id = 'done-2'")
    page = visit().page
    for number in filter(None, ("done-2", row["reference"])):
        page.fill("#find", number)
        page.keyboard.press("Enter")
        page.wait_for_url("**/orders/shop/done-2")
    page.fill("#find", PLAYER)
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-row]")
    assert page.locator("[data-row]").count() > 10


def test_a_filter_narrows_the_list(visit: Callable[..., Visit]) -> None:
    page = visit().go("/orders")
    page.select_option("[name=state]", "completed")
    page.click("text=Show")
    page.wait_for_url("**state=completed**")
    assert set(page.locator("tbody .badge").all_inner_texts()) == {"Completed"}


def test_many_tabs_of_one_browser_all_answer(visit: Callable[..., Visit], stack: Stack) -> None:
    """Six connections are all that a browser opens to one server, and each tab would like to keep one."""
    first = visit().page
    tabs = [first.context.new_page() for _ in range(8)]
    for tab in tabs:
        tab.goto(stack.url + "/orders", timeout=15_000)
        expect(tab.locator("h1")).to_have_text("Orders")
