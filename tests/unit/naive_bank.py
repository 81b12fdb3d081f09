"""A second bank, as simple as it can be: dicts and ifs. It knows none of the code that it is compared with."""

from dataclasses import dataclass, field

MOST = 2**63 - 1


@dataclass
class NaiveBank:
    """Each method does what it says, or returns why not. Amounts are in cents."""

    name: dict[str, str] = field(default_factory=dict)
    asset: dict[str, str] = field(default_factory=dict)
    balance: dict[str, int] = field(default_factory=dict)
    limit: dict[str, int] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)

    def create(self, account: str, name: str, asset: str) -> str | None:
        if account in self.balance:
            return "account-already-exists"
        self.name[account] = name
        self.asset[account] = asset
        self.balance[account] = 0
        self.limit[account] = 0
        return None

    def deposit(self, account: str, amount: int) -> str | None:
        if reason := self.not_open(account):
            return reason
        if amount <= 0:
            return "amount-not-positive"
        if self.balance[account] + amount > MOST:
            return "balance-limit-exceeded"
        self.balance[account] += amount
        return None

    def withdraw(self, account: str, amount: int) -> str | None:
        if reason := self.cannot_give(account, amount):
            return reason
        self.balance[account] -= amount
        return None

    def transfer(self, account: str, to: str, amount: int) -> str | None:
        if reason := self.cannot_give(account, amount):
            return reason
        if to == account:
            return "same-account"
        if reason := self.not_open(to):
            return reason.replace("account", "counterpart")
        if self.asset[account] != self.asset[to]:
            return "asset-mismatch"
        if self.balance[to] + amount > MOST:
            return "balance-limit-exceeded"
        self.balance[account] -= amount
        self.balance[to] += amount
        return None

    def set_limit(self, account: str, limit: int) -> str | None:
        if account not in self.balance:
            return "account-not-found"
        if account in self.closed:
            return "account-closed"
        if -self.balance[account] > limit:
            return "limit-in-use"
        self.limit[account] = limit
        return None

    def freeze(self, account: str) -> str | None:
        if reason := self.not_open(account):
            return reason
        self.frozen.add(account)
        return None

    def unfreeze(self, account: str) -> str | None:
        if account not in self.balance:
            return "account-not-found"
        if account in self.closed:
            return "account-closed"
        if account not in self.frozen:
            return "not-frozen"
        self.frozen.remove(account)
        return None

    def close(self, account: str) -> str | None:
        if reason := self.not_open(account):
            return reason
        if self.balance[account] != 0:
            return "balance-not-zero"
        self.closed.add(account)
        return None

    def not_open(self, account: str) -> str | None:
        if account not in self.balance:
            return "account-not-found"
        if account in self.closed:
            return "account-closed"
        if account in self.frozen:
            return "account-frozen"
        return None

    def cannot_give(self, account: str, amount: int) -> str | None:
        if reason := self.not_open(account):
            return reason
        if amount <= 0:
            return "amount-not-positive"
        if amount > self.balance[account] + self.limit[account]:
            return "insufficient-funds"
        return None

    def shown(self, account: str) -> dict[str, object]:
        """What everybody is to say of an account that exists."""
        status = "closed" if account in self.closed else "frozen" if account in self.frozen else "open"
        limit, balance = self.limit[account], self.balance[account]
        return {"name": self.name[account], "balance": balance, "overdraft_limit": limit, "status": status}
