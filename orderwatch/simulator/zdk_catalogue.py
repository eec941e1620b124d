"""What a ZDK shop sells: /client/api/products and /client/api/content."""

from typing import Any

from orderwatch.simulator.scenario import QuantityRange, ZdkPackage
from orderwatch.simulator.wire import Answer, Call, as_json


def answer(rows: tuple[ZdkPackage, ...], call: Call) -> Answer:
    """products (all, some by id, or names only) and content/{category}, where 0 is the root."""
    categories = list(dict.fromkeys(row.category for row in rows if row.category is not None))
    if call.parts[2] == "content":
        return content(rows, categories, call.parts[3])
    chosen = call.query.get("products_id") or call.query.get("product_id")
    if chosen:
        rows = tuple(row for row in rows if row.id in chosen.split(","))
    if call.query.get("base") == "1":
        return as_json([{"id": row.id, "name": row.name} for row in rows], "catalogue")
    return as_json([product(row) for row in rows], "catalogue")


def content(rows: tuple[ZdkPackage, ...], categories: list[str], number: str) -> Answer:
    """One category; numbers are positions in the list of categories, from 1."""
    if number == "0":
        names = [{"id": at, "name": name, "parent_id": 0} for at, name in enumerate(categories, 1)]
        outside = [product(row) for row in rows if row.category is None]
        return as_json({"categories": names, "products": outside}, "catalogue")
    at = int(number) - 1 if number.isascii() and number.isdigit() else -1
    wanted = categories[at] if 0 <= at < len(categories) else None
    inside = [product(row) for row in rows if wanted is not None and row.category == wanted]
    return as_json({"categories": [], "products": inside}, "catalogue")


def product(row: ZdkPackage) -> dict[str, Any]:
    """One row of the catalogue."""
    values = row.qty_values
    bounds = {"min": str(values.min), "max": str(values.max)} if isinstance(values, QuantityRange) else values
    return {
        "id": row.id,
        "name": row.name,
        "price": f"{row.price:f}",
        "base_price": f"{row.price:f}",
        "params": row.params if row.params_shown is None else row.params_shown,
        "category_name": row.category or "null",
        "available": row.available,
        "qty_values": bounds,
        "product_type": "amount" if isinstance(values, QuantityRange) else "specificPackage" if values else "package",
        "parent_id": 0,
        "category_img": None,
    }
