"""The view `holds`: the open holds of each account."""

from projection_service.view import View
from projection_service.views.holds.queries import add_queries
from projection_service.views.holds.tables import changes

VIEW = View("holds", changes, add_queries)
