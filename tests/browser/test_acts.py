"""Every act of a person, from the button to the ledger, and the pages that move by themselves."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import PLAYER, Stack, Visit, until


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
    assert page.locator("main button[data-open]", has_text="Send to another integration").count() in (0, 1)


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
