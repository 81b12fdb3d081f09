"""What each event changes in an account. Pure."""

from shared.events import AccountCreated, AccountId, RecordedEvent, Value, Version, entries


class AccountView(Value, frozen=True):
    """An account as queries see it. `balance` is in cents, `last_updated` the time of the last change of it."""

    id: AccountId
    name: str
    balance: int
    version: Version
    last_updated: str


def project_account(
    account: AccountView | None, recorded: RecordedEvent, account_id: AccountId, version: Version
) -> AccountView | None:
    """The account after `recorded`, which is in its stream with `version`. A rejection only counts as a version."""
    if account is None:
        if not isinstance(recorded.event, AccountCreated):
            return None
        return AccountView(account_id, recorded.event.name, 0, version, recorded.time)
    for moved, change in entries(recorded.account_id, recorded.event):
        if moved == account_id:
            return AccountView(account_id, account.name, account.balance + change, version, recorded.time)
    return AccountView(account_id, account.name, account.balance, version, account.last_updated)
