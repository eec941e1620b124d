"""Codes in stock, on real PostgreSQL: each goes to one reference, once."""

import asyncio
from collections.abc import Iterator

import pytest

from orderwatch.localservers.bundled import free_port
from streams.errors import StoreUnavailable
from tests.contract.store import Store, store_on


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with store_on(database) as made:
        yield made


@pytest.fixture
def other(database: str) -> Iterator[Store]:
    with store_on(database) as made:
        yield made


def load(store: Store, count: int, group: str = "g", tenant: str = "t") -> None:
    store.run(
        "insert into codes (tenant_id, code_group, sealed, fingerprint)"
        " select :tenant, :group, 'sealed-' || n, 'f' || n from generate_series(1, :count) n",
        tenant=tenant,
        group=group,
        count=count,
    )


async def test_many_buyers_of_few_codes_each_get_another_one_and_one_goes_away_empty(
    store: Store, other: Store
) -> None:
    load(store, 39)
    buyers = [(store, other)[n % 2].stock.take("t", "g", f"r{n}", 1) for n in range(40)]
    got = await asyncio.gather(*buyers)
    codes = [code for taken in got if taken is not None for code in taken]
    assert sum(taken is None for taken in got) == 1 and len(codes) == len(set(codes)) == 39
    assert await store.stock.left("t", "g") == 0


async def test_who_asks_for_too_many_at_the_same_time_does_not_make_the_others_go_away_empty(
    store: Store, other: Store
) -> None:
    load(store, 40)
    greedy = [other.stock.take("t", "g", f"greedy{n}", 41) for n in range(10)]
    modest = [store.stock.take("t", "g", f"modest{n}", 4) for n in range(10)]
    got = await asyncio.gather(*greedy, *modest)
    assert got[:10] == [None] * 10
    assert all(taken is not None and len(taken) == 4 for taken in got[10:])


async def test_the_same_reference_gets_the_same_codes_however_often_it_asks(store: Store, other: Store) -> None:
    load(store, 30)
    first = await store.stock.take("t", "g", "r", 3)
    assert first is not None and len(first) == 3
    again = await store.stock.take("t", "g", "r", 3)
    assert again is not None and sorted(again) == sorted(first) == sorted(await other.stock.taken("r"))
    assert await store.stock.left("t", "g") == 27


async def test_the_same_reference_asking_at_once_takes_codes_once(store: Store, other: Store) -> None:
    load(store, 200)
    for n in range(20):
        got = await asyncio.gather(*(side.stock.take("t", "g", f"r{n}", 2) for side in (store, other, store, other)))
        assert all(taken is not None and sorted(taken) == sorted(got[0] or ()) for taken in got)
    assert await store.stock.left("t", "g") == 160


async def test_too_few_codes_are_none_at_all(store: Store) -> None:
    load(store, 2)
    assert await store.stock.take("t", "g", "r", 3) is None
    assert await store.stock.left("t", "g") == 2 and await store.stock.taken("r") == []


async def test_groups_and_tenants_are_apart(store: Store) -> None:
    load(store, 1, "g")
    assert await store.stock.take("t", "h", "r", 1) is None
    assert await store.stock.take("u", "g", "r", 1) is None
    assert await store.stock.take("t", "g", "r", 1) == ["sealed-1"]


async def test_a_stock_that_is_away_is_said_so() -> None:
    with store_on(f"postgresql+psycopg2://nobody@127.0.0.1:{free_port()}/none") as store:
        for call in (store.stock.take("t", "g", "r", 1), store.stock.taken("r"), store.stock.left("t", "g")):
            with pytest.raises(StoreUnavailable):
                await call
