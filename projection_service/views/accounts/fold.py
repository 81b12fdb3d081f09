"""What each event changes in an account. Pure."""

from shared.events import AccountCreated, AccountId, AmountDeposited, AmountWithdrawn, RecordedEvent, Value, Version


class AccountView(Value, frozen=True):
    """An account as queries see it. `balance` is in cents, `last_updated` the time of the last change of it."""

    id: AccountId
    name: str
    balance: int
    version: Version
    last_updated: str


def project_account(account: AccountView | None, recorded: RecordedEvent) -> AccountView | None:
    """The account after `recorded`. A rejection only counts as a version."""
    match recorded.event:
        case AccountCreated(name=name):
            return AccountView(recorded.account_id, name, 0, recorded.version, recorded.time)
        case AmountDeposited(amount=amount) if account is not None:
            return AccountView(account.id, account.name, account.balance + amount, recorded.version, recorded.time)
        case AmountWithdrawn(amount=amount) if account is not None:
            return AccountView(account.id, account.name, account.balance - amount, recorded.version, recorded.time)
        case _ if account is not None:
            return AccountView(account.id, account.name, account.balance, recorded.version, account.last_updated)
        case _:
            return None
