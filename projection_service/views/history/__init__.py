"""The view `history`: every event of each account, in order, as the ledger recorded it, and what it made of things."""

from projection_service.view import View
from projection_service.views.history.past import past
from projection_service.views.history.queries import add_queries, endpoints
from projection_service.views.history.tables import changes

VIEW = View(
    "history",
    changes,
    add_queries,
    endpoints,
    past,
    needs=("accounts", "reserve"),
    sparse=("history_chain", "history_reserves"),
)
