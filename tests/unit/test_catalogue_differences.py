"""What changed between two catalogues of an account."""

from decimal import Decimal

from agents.providers.base import CatalogueItem, Money
from orderwatch.cli.integration import as_document, differences


def entry(package_id: str, price: str, *, available: bool = True, kupur: str = "UC60") -> CatalogueItem:
    return CatalogueItem(
        package_id, f"Package {package_id}", Money(Decimal(price), "TRY"), {"kupur": kupur}, available=available
    )


def changes(before: list[CatalogueItem], now: list[CatalogueItem]) -> list[tuple[str, str, object, object]]:
    found = differences([as_document(e) for e in before], [as_document(e) for e in now])
    return [(c["change"], c["package_id"], c["before"], c["now"]) for c in found]


def test_new_gone_and_changed_packages_are_told_in_order() -> None:
    before = [entry("1", "10"), entry("2", "20"), entry("3", "30"), entry("4", "40")]
    now = [entry("4", "40"), entry("2", "20.50"), entry("3", "30", available=False), entry("5", "50")]
    assert changes(before, now) == [
        ("gone", "1", "10 TRY", None),
        ("price", "2", "20 TRY", "20.50 TRY"),
        ("available", "3", True, False),
        ("new", "5", None, "50 TRY"),
    ]


def test_nothing_changed_is_nothing() -> None:
    assert changes([entry("1", "10")], [entry("1", "10")]) == []


def test_one_package_id_may_be_sold_in_several_sizes() -> None:
    both = [entry("1", "10", kupur="UC60"), entry("1", "50", kupur="UC325")]
    assert changes(both, [both[0]]) == [("gone", "1", "50 TRY", None)]
