"""The view `accounts`: each account as its last event left it."""

from projection_service.view import View
from projection_service.views.accounts.queries import add_queries, endpoints
from projection_service.views.accounts.tables import changes

VIEW = View("accounts", changes, add_queries, endpoints)
