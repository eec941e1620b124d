"""Every page in both directions and themes, and on a phone: nothing overflows, all has a name, headings nest."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Stack, Visit

PAGES = {
    "overview": "/",
    "orders": "/orders",
    "open": "/orders?state=open",
    "none": "/orders?number=nothing-like-it",
    "unknown": "/orders/shop/lost-1",
    "completed": "/orders/shop/done-1",
    "by-hand": "/orders/shop/hand-1",
    "attention": "/attention",
    "dead-letters": "/dead-letters",
    "dead-letter": "/dead-letters/1",
    "integrations": "/integrations",
    "routes": "/routes",
    "route": "/routes/shop/sixty",
    "absent": "/orders/shop/never-heard-of",
}

LOOKS = [
    ("en", "light", 1280),
    ("en", "dark", 1280),
    ("ar", "light", 1280),
    ("ar", "dark", 1280),
    ("tr", "light", 1280),
    ("en", "light", 390),
    ("ar", "dark", 390),
]

#: Runs in the page: what a person with a screen reader or a keyboard would trip over.
_TROUBLES = """() => {
  const named = (one) => (one.getAttribute("aria-label") || one.textContent || one.getAttribute("title") || "").trim()
    || (one.labels && [...one.labels].some((label) => label.textContent.trim()));
  const found = [];
  for (const one of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary"))
    if (!named(one)) found.push("no name: " + one.outerHTML.slice(0, 120));
  const levels = [...document.querySelectorAll("main h1, main h2, main h3")].filter((h) => !h.closest("dialog"))
    .map((h) => Number(h.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) found.push("h1: " + levels);
  levels.forEach((level, n) => { if (n && level > levels[n - 1] + 1) found.push("headings: " + levels); });
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  const twice = ids.filter((id, n) => ids.indexOf(id) !== n);
  if (twice.length) found.push("ids twice: " + twice);
  for (const one of document.querySelectorAll("[aria-labelledby], [for]"))
    for (const id of (one.getAttribute("aria-labelledby") || one.getAttribute("for")).split(" "))
      if (!document.getElementById(id)) found.push("points nowhere: " + id);
  for (const image of document.querySelectorAll("svg:not([aria-hidden=true])"))
    if (!image.querySelector("title")) found.push("image without a title");
  for (const table of document.querySelectorAll("table"))
    if (!table.querySelector("th[scope]")) found.push("table without headers");
  return found;
}"""


@pytest.mark.parametrize(("language", "theme", "width"), LOOKS)
def test_every_page_looks_right(visit: Callable[..., Visit], language: str, theme: str, width: int) -> None:
    visitor = visit(language=language, theme=theme, width=width)
    visitor.page.wait_for_selector("#live:not(.off)")
    wrong: list[str] = []
    for name, path in PAGES.items():
        page = visitor.go(path)
        page.wait_for_load_state("load")
        visitor.shoot(name)
        wrong += [f"{name}: {what}" for what in page.evaluate(_TROUBLES)]
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if over > 0:
            wrong.append(f"{name}: {over} px too wide")
        if page.evaluate("document.documentElement.dir") != ("rtl" if language == "ar" else "ltr"):
            wrong.append(f"{name}: direction")
    assert not wrong


def test_the_log_in_says_what_is_wrong_and_forgets_nothing(visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.click("text=Log out")
    page.wait_for_url("**/login")
    page.fill("#token", "ow_000000000000_" + "a" * 43)
    page.click("#login button")
    page.wait_for_selector("[role=alert]")


def test_a_link_with_a_token_logs_in_when_the_person_says_so(visit: Callable[..., Visit], stack: Stack) -> None:
    page = visit().page
    page.click("text=Log out")
    page.wait_for_url("**/login")
    page.goto("about:blank")
    page.goto(f"{stack.url}/login#token={stack.token()}")
    expect(page.locator("#login button")).to_be_focused()
    assert page.url == f"{stack.url}/login" and page.input_value("#token").startswith("ow_")
    page.keyboard.press("Enter")
    page.wait_for_selector("nav")


def test_a_page_that_is_not_allowed_looks_like_nothing_else(visit: Callable[..., Visit]) -> None:
    visitor = visit("orders:read", tenant="other")
    visitor.go("/orders/shop/done-1")
    visitor.shoot("not-allowed")
    assert visitor.page.locator("h1").inner_text() == "Not allowed"
    visitor.go("/attention")
    assert "lacks the scope actions" in visitor.page.inner_text("main")


def test_every_control_can_be_reached_and_seen_with_the_keyboard(visit: Callable[..., Visit]) -> None:
    page = visit().go("/orders")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement !== document.body")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def focused(page: Page) -> str:
    text: str = page.evaluate("document.activeElement.textContent.trim()")
    return text


def test_keys_move_through_rows_find_and_explain(visit: Callable[..., Visit]) -> None:
    page = visit().go("/orders")
    rows = page.locator("[data-row] a.main").all_inner_texts()
    for expected in rows[:2]:
        page.keyboard.press("j")
        assert focused(page) == expected
    page.keyboard.press("k")
    assert focused(page) == rows[0]
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("done-3")
    page.keyboard.press("Enter")
    page.wait_for_url("**/orders/shop/done-3")


def test_theme_and_language_are_kept(visit: Callable[..., Visit]) -> None:
    page = visit().page
    for theme in ("light", "dark"):
        page.click("#theme")
        assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.click("text=العربية")
    page.wait_for_selector("html[dir=rtl][data-theme=dark]")
