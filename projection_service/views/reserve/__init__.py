"""The view `reserve`: the sum of all balances."""

from projection_service.view import View
from projection_service.views.reserve.queries import add_queries, endpoints
from projection_service.views.reserve.tables import changes

VIEW = View("reserve", changes, add_queries, endpoints)
