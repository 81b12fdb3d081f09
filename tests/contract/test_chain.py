"""The ledger's chain at any position, from what the history keeps of it; over every view store."""

import pytest

from projection_service.view_store import Read, ViewStore
from projection_service.views.history.explain import PIECE_EVENTS_MAX, read_chain
from projection_service.views.history.tables import CHAIN_EVENTS
from shared.chain import CHAIN_START, extend
from shared.errors import ProjectionBehind
from shared.events import AccountId, Event, Position, encode_event
from tests.contract.test_history import fold
from tests.examples import ALICE, CREATED, DEPOSIT_REJECTED, DEPOSITED, log_of

PAIR: list[tuple[AccountId, Event]] = [(ALICE, DEPOSITED), (ALICE, DEPOSIT_REJECTED)]
LOG = [encode_event(event) for event in log_of([(ALICE, CREATED), *PAIR * 700])]


@pytest.mark.parametrize("sizes", [[1401], [100] * 15, [1] * 300 + [600, 501], [255, 1, 1, 1144], [256, 256, 889]])
async def test_it_is_worked_out_from_where_it_is_kept(view_store: ViewStore, sizes: list[int]) -> None:
    """At some events of each run, and not at all of them, however small the runs are."""
    pages, begin = [], 0
    for size in sizes:
        pages.append(LOG[begin : begin + size])
        begin += size
    await fold(view_store, *pages)
    chains = [CHAIN_START]
    for event in LOG:
        chains.append(extend(chains[-1], [event]))
    ((kept, most),) = await view_store.read(
        Read.in_both(
            "SELECT count(*), max(position - coalesce(before, 0)) FROM ("
            "SELECT position, lag(position) OVER (ORDER BY position) AS before FROM history_chain) AS kept"
        )
    )
    assert 1 <= kept <= len(LOG) // CHAIN_EVENTS
    assert most <= CHAIN_EVENTS + max(sizes)
    edges = [n for step in (CHAIN_EVENTS, PIECE_EVENTS_MAX) for n in range(step, len(LOG), step)]
    for position in {1, 2, 1400, 1401, *edges, *(n + 1 for n in edges), *(n - 1 for n in edges)}:
        assert await read_chain(view_store.read, Position(position)) == chains[position]
    with pytest.raises(ProjectionBehind):
        await read_chain(view_store.read, Position(1402))
