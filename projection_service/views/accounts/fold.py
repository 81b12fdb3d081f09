"""What each event changes in an account. Pure."""

from msgspec.structs import replace

from shared.events import (
    AccountCreated,
    AccountId,
    Asset,
    OverdraftLimitSet,
    RecordedEvent,
    Status,
    Value,
    Version,
    entries,
    status_after,
)


class AccountView(Value, frozen=True):
    """An account as queries see it. Amounts are in cents, `last_updated` is the time of the last change of it."""

    id: AccountId
    name: str
    asset: Asset
    balance: int
    held: int
    overdraft_limit: int
    status: Status
    version: Version
    last_updated: str

    @property
    def available(self) -> int:
        """What can go out of it. May be over 64 bits."""
        return self.balance - self.held + self.overdraft_limit


def project_account(
    account: AccountView | None, recorded: RecordedEvent, account_id: AccountId, version: Version
) -> AccountView | None:
    """The account after `recorded`, which is in its stream with `version`. A rejection only counts as a version."""
    event, time = recorded.event, recorded.time
    if account is None:
        if not isinstance(event, AccountCreated):
            return None
        return AccountView(account_id, event.name, event.asset, 0, 0, 0, "open", version, time)
    if moved := entries(recorded.account_id, event):
        _, change, change_of_held = moved[0] if account_id == recorded.account_id else moved[1]
        balance, held = account.balance + change, account.held + change_of_held
        name, asset, limit, status = account.name, account.asset, account.overdraft_limit, account.status
        return AccountView(account_id, name, asset, balance, held, limit, status, version, time)
    if isinstance(event, OverdraftLimitSet):
        return replace(account, overdraft_limit=event.limit, version=version, last_updated=time)
    if (changed := status_after(event)) is not None:
        return replace(account, status=changed, version=version, last_updated=time)
    return replace(account, version=version)
