"""The view `directory`: the accounts in the orders in which they are listed."""

from projection_service.view import View
from projection_service.views.directory.queries import add_queries, endpoints
from projection_service.views.directory.tables import changes

VIEW = View("directory", changes, add_queries, endpoints, needs=("accounts",))
