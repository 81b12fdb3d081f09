"""What the view `directory` lists, and how much of the accounts it looks at for it, over every store."""

import re
from collections.abc import Sequence
from random import Random
from typing import Any, get_args

import pytest
from msgspec.structs import astuple, replace

from projection_service.view_store import Change, Checkpoint, Read, ViewStore
from projection_service.views.accounts.fold import AccountView
from projection_service.views.accounts.tables import PUT_ACCOUNTS
from projection_service.views.directory.tables import SCAN_ROWS_MAX, Listed, Order, Place, Sort, read_page
from shared.events import INT64_MAX, AccountId, Position, Status, Version
from tests.contract.conftest import ChangeViews, OpenViewStore
from tests.contract.test_view_store import checkpoint
from tests.examples import at

NAMES = ["A", "Al", "Alice", "Alice B", "Am", "a", "alice", "Z", "Zoë", "É", ""]
NAMES += ["\ud7ff", "\ue000", "\U0010ffff", "🏦", "%_"]
SORTS: list[Sort] = ["name", "id", "balance", "last_updated"]
ORDERS: list[Order] = ["asc", "desc"]
MANY = 20_000
"""So many that PostgreSQL has reason to use an index."""
EVERY_ACCOUNT = f"""
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MANY})
    INSERT INTO accounts (id, name, asset, balance, held, overdraft_limit, status, version, last_updated)
    SELECT 'account-' || n, 'Alice ' || (n * 7919 % 10007), CASE n % 10 WHEN 0 THEN 'EUR/2' ELSE 'USD/2' END,
        n * 7907 % 10007, 0, 0, CASE n % 9 WHEN 0 THEN 'frozen' WHEN 1 THEN 'closed' ELSE 'open' END, 1,
        '2026-01-01T00:00:00.' || (100000 + n * 7901 % 10007) || 'Z'
    FROM numbers
"""


def accounts(random: Random, number: int) -> list[AccountView]:
    def account(id_: int) -> AccountView:
        balance = random.choice([-5, 0, 0, 1, 7, INT64_MAX, random.randrange(10**6)])
        asset = random.choice(["EUR/2", "USD/2", "USD/2"])
        status: Status = random.choices(get_args(Status), [8, 1, 1])[0]
        name = random.choice(NAMES) + random.choice(NAMES)
        time = at(random.randrange(60))
        return AccountView(AccountId(f"{id_:x}.{id_ % 7}"), name, asset, balance, 0, 5, status, Version(1), time)

    return [account(id_) for id_ in range(number)]


async def put(store: ViewStore, views: Sequence[AccountView]) -> None:
    before = await store.checkpoint()
    moved: Checkpoint = checkpoint(before.position + 1)
    await store.commit(before, moved, [Change(PUT_ACCOUNTS, [astuple(view) for view in views])])


def expected(views: Sequence[AccountView], listed: Listed) -> list[AccountView]:
    """The same in Python, whose text is in the order of UTF-8's bytes, too."""
    found = [
        view
        for view in views
        if view.name.startswith(listed.prefix)
        and listed.asset in (None, view.asset)
        and listed.status in (None, view.status)
        and listed.min_balance <= view.balance <= listed.max_balance
    ]
    return sorted(found, key=lambda view: (getattr(view, listed.sort), view.id), reverse=listed.order == "desc")


def question(random: Random) -> Listed:
    sort = random.choice(SORTS)
    asset = random.choice(["EUR/2", "USD/2", "XXX/2"]) if sort == "balance" or random.random() < 0.5 else None
    some = random.choice([{}, {"min_balance": 1}, {"max_balance": 7}, {"min_balance": -5, "max_balance": 0}])
    status: Status | None = random.choice([None, "open", "frozen", "closed"])
    prefix = random.choice(["", "", *NAMES])
    return Listed(sort, random.choice(ORDERS), prefix, asset, status, **(some if asset else {}))


@pytest.mark.parametrize("seed", range(4))
async def test_every_list_has_the_accounts_that_are_asked_for_in_their_order_page_by_page(
    view_store: ViewStore, seed: int
) -> None:
    random = Random(seed)
    views = accounts(random, 3 * SCAN_ROWS_MAX)
    await put(view_store, views)
    for _ in range(60):
        listed, limit = question(random), random.choice([1, 7, 100, 250])
        found: list[AccountView] = []
        wanted, last, pages = expected(views, listed), None, 0
        while last or not pages:
            page = await read_page(view_store.read, listed, last, limit)
            assert len(page.accounts) <= limit
            assert page.position == 1
            found, last, pages = found + page.accounts, page.last, pages + 1
            if len(found) > 4 * limit:
                wanted = wanted[: len(found)]
                break
        assert found == wanted, listed
        assert pages <= len(found) / limit + 5


async def test_an_empty_directory_has_an_empty_page(view_store: ViewStore) -> None:
    page = await read_page(view_store.read, Listed("name", "asc"), None, 10)
    assert (page.accounts, page.last, page.position) == ([], None, 0)


@pytest.mark.parametrize("order", ORDERS)
async def test_accounts_that_do_not_change_are_listed_once_whatever_the_others_do(
    view_store: ViewStore, order: Order
) -> None:
    random = Random(1)
    views = [replace(view, asset="EUR/2") for view in accounts(random, 400)]
    await put(view_store, views)
    changing, listed = views[:100], Listed("balance", order, asset="EUR/2")
    still = set(views[100:])
    found: list[AccountView] = []
    page = await read_page(view_store.read, listed, None, 20)
    while page.last:
        found += page.accounts
        changing = [replace(view, balance=random.randrange(10**6)) for view in changing]
        await put(view_store, changing)
        page = await read_page(view_store.read, listed, page.last, 20)
    found += page.accounts
    assert [view for view in found if view in still] == expected(views[100:], listed)


@pytest.mark.parametrize("status", [None, "open", "frozen"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sort", SORTS)
async def test_a_page_goes_along_an_index_sorts_nothing_and_looks_at_a_bounded_number_of_accounts(
    view_store: ViewStore, change_views: ChangeViews, sort: Sort, order: Order, status: Status | None
) -> None:
    """With any filter: those that are no bounds of an index are in each of these statements, and may be null."""
    await change_views(EVERY_ACCOUNT)
    await change_views("ANALYZE accounts")
    plan: list[str] = []

    async def explained(read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        explain = Read(f"EXPLAIN QUERY PLAN {read.sqlite}", f"EXPLAIN (ANALYZE, TIMING OFF) {read.postgres}")
        plan.extend(str(row[-1]) for row in await view_store.read(explain, *parameters))
        return await view_store.read(read, *parameters)

    # What nobody is: so the page looks at as much as it ever does. What is in the index is what somebody is.
    asset = "USD/2" if sort == "balance" else None
    everybody = Listed(sort, order, asset=asset, status=status if status == "frozen" else None)
    nobody = replace(everybody, status=status, **({"asset": "XXX/2"} if sort == "name" else {"prefix": "Alicf"}))
    page = await read_page(explained, nobody, None, 10)
    assert page.accounts == []
    assert page.last == (await nth(view_store, everybody, SCAN_ROWS_MAX))
    index = f"directory_status_by_{sort}" if status == "frozen" else f"directory_by_{sort}"
    names = ("PRIMARY KEY", "accounts_pkey") if index == "directory_by_id" else (index,)
    scans = [line for line in plan if re.search("(SEARCH|SCAN|Scan .*on) accounts", line)]
    assert [any(name in line for name in names) for line in scans] == [True, True], plan
    assert not any(re.search("B-TREE|Sort|SCAN accounts", line) for line in plan), plan
    rows = [int(number) for line in plan for number in re.findall(r"(?:actual rows=|Removed by Filter: )(\d+)", line)]
    assert max(rows, default=0) <= SCAN_ROWS_MAX, plan


async def nth(store: ViewStore, listed: Listed, number: int) -> Place:
    """The place of the account with that number."""
    last: Place | None = None
    for _ in range(number // 250):
        last = (await read_page(store.read, listed, last, 250)).last
    assert last is not None
    return last


async def test_where_there_is_no_directory_only_the_id_is_in_an_index(open_view_store: OpenViewStore) -> None:
    """PostgreSQL leaves the indexes alone then, when a balance changes: there is room for the next state of an account
    beside the last one."""
    indexed = Read(
        sqlite="SELECT info.name FROM pragma_index_list('accounts') AS list, pragma_index_info(list.name) AS info",
        postgres="""
            SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)
            WHERE indrelid = 'accounts'::regclass
        """,
    )
    async with open_view_store("accounts", "directory") as store:
        assert {row[0] for row in await store.read(indexed)} >= {"id", "name", "balance", "last_updated"}
        await store.commit(await store.checkpoint(), checkpoint(1), [])
    async with open_view_store("accounts") as store:
        assert {row[0] for row in await store.read(indexed)} == {"id"}
        assert (await store.checkpoint()).position == Position(1)
