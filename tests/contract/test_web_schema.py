"""The API does what its own description says, for whatever Schemathesis makes up; and the description is published."""

import base64
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hypothesis
import pytest
import schemathesis
import sqlalchemy as sa
import yaml
from hypothesis import strategies as st
from schemathesis import AuthContext, Case

from db import models as m
from orderwatch.dashboard.api import commands, live
from orderwatch.dashboard.api.openapi import document
from orderwatch.dashboard.app import create
from orderwatch.dashboard.context import gather
from tests.contract.ledger_rows import BORN, put, put_attempt, put_order
from tests.dashboard import Dashboard, settings

PUBLISHED = Path(__file__).parents[2] / "docs" / "openapi.yaml"
DESCRIPTION = document(create(gather(settings("postgresql://nobody@127.0.0.1:1/none"), None, {})))


def without_places(described: dict[str, Any]) -> dict[str, Any]:
    """No description can say which text is a place in a list: only an answer gives one. See the tests below."""
    made = copy.deepcopy(described)
    for path in made["paths"].values():
        for operation in path.values():
            operation["parameters"] = [item for item in operation.get("parameters", []) if item["name"] != "after"]
    return made


API = schemathesis.openapi.from_dict(without_places(DESCRIPTION))
LISTS = sorted(
    path.format(tenant="0", order="0")
    for path, item in DESCRIPTION["paths"].items()
    if any(parameter["name"] == "after" for parameter in item.get("get", {}).get("parameters", []))
)


@API.auth()
class Token:
    """Of all tenants and scopes."""

    text = ""

    def get(self, case: Case, context: AuthContext) -> str:
        return Token.text

    def set(self, case: Case, data: str, context: AuthContext) -> None:
        case.headers["authorization"] = f"Bearer {data}"


@pytest.fixture(scope="module", autouse=True)
def filled(running_site: Dashboard) -> Iterator[None]:
    """An order that can be found by guessing short words; no command is waited for, as no worker runs."""
    with running_site.engine.begin() as connection:
        connection.execute(sa.text(f"truncate {', '.join(table.name for table in m.metadata.sorted_tables)}"))
    put_order(running_site.engine, "0", "0", lines=1, attempts=1)
    put_attempt(running_site.engine, "unknown", "0", "0")
    put(running_site.engine, m.order_events, tenant_id="0", order_id="0", step="accepted", actor="dispatch", details={})
    put(running_site.engine, m.attention, id="0", tenant_id="0", order_id="0", code="expired", message="m", since=BORN)
    Token.text = running_site.token()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(commands, "WAIT_S", 0.0)
        patched.setattr(live, "HEARTBEAT_S", 0.0)
        patched.setattr(live._Standing, "holds", over)  # a stream ends after what it begins with
        yield


async def over(self: object) -> bool:
    return False


@API.parametrize()
@hypothesis.settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_the_api_does_what_it_says(case: Case, running_site: Dashboard) -> None:
    case.call_and_validate(base_url=running_site.url, timeout=20)


def words(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


#: What looks like a place of some list, and is one of none.
FORGED = (
    "",
    "/",
    "//",
    "-1",
    "+1",
    "1.5",
    "1e3",
    "\u0661",
    "9" * 19,
    "nan",
    "2026-01-01/0",
    "2026-01-01T00:00:00/0/0",
    "2026-01-01T00:00:00Z/0/\0",
    "9999-12-31T23:59:59-23:59/0",
    "9999-12-31T23:59:59-23:59/0/0",
    "2026-01-01T00:00:00Z/\0",
    "0' or 1=1 --",
)


@pytest.mark.parametrize("path", LISTS)
@hypothesis.given(
    after=st.one_of(
        st.sampled_from(FORGED).map(words),
        st.text(max_size=500),
        st.text(max_size=60).map(words),
        st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()),
    )
)
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_a_place_that_no_page_gave_is_refused_by_its_name(path: str, running_site: Dashboard, after: str) -> None:
    answer = running_site.get(f"{path}?after={quote(after, safe='')}", Token.text)
    if answer.status == 200:  # a whole number is a place in a list that goes by numbers, wherever it comes from
        assert base64.urlsafe_b64decode(after).isdigit()
        return
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.document()["errors"][0]["field"] == "after"


def test_the_description_is_the_one_that_is_published() -> None:
    """`orderwatch openapi -o docs/openapi.yaml` writes it."""
    assert yaml.safe_load(PUBLISHED.read_text("utf-8")) == DESCRIPTION


def test_the_description_is_served(running_site: Dashboard) -> None:
    assert running_site.get("/api/openapi.json").document() == DESCRIPTION
    assert DESCRIPTION["openapi"].startswith("3.1")
