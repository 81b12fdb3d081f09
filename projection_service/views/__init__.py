"""The views: one room each, with its fold (pure), its queries, and its SQL for both stores."""

from collections.abc import Mapping

from projection_service.view import View
from projection_service.views import accounts, directory, history, holds, reserve

VIEWS: Mapping[str, View] = {
    view.name: view
    for view in (
        accounts.VIEW,
        reserve.VIEW,
        history.VIEW,
        holds.VIEW,
        directory.VIEW,
    )
}
"""By their names. In this order they are folded, and stand in the documentation."""
