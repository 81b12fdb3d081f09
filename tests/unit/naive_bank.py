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
    holds: dict[str, dict[str, tuple[int, str | None]]] = field(default_factory=dict)
    """Of each account: of each open hold, how much it is and when it expires."""
    frozen: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)

    def create(self, account: str, name: str, asset: str) -> str | None:
        if account in self.balance:
            return "account-already-exists"
        self.name[account] = name
        self.asset[account] = asset
        self.balance[account] = 0
        self.limit[account] = 0
        self.holds[account] = {}
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
        if reason := self.cannot_take(to, account, amount):
            return reason
        self.balance[account] -= amount
        self.balance[to] += amount
        return None

    def hold(self, account: str, hold: str, amount: int, expires_at: str | None, now: str) -> str | None:
        if reason := self.not_open(account):
            return reason
        if hold in self.holds[account]:
            return "hold-already-exists"
        if expires_at is not None and expires_at <= now:
            return "expiry-not-in-the-future"
        if reason := self.cannot_give(account, amount):
            return reason
        if self.held(account) + amount > MOST:
            return "balance-limit-exceeded"
        self.holds[account][hold] = amount, expires_at
        return None

    def capture(self, account: str, hold: str, amount: int | None, to: str | None, now: str) -> str | None:
        if reason := self.not_open(account) or self.no_hold(account, hold, now):
            return reason
        held, _ = self.holds[account][hold]
        taken = held if amount is None else amount
        if taken <= 0:
            return "amount-not-positive"
        if taken > held:
            return "amount-over-hold"
        if to == account:
            return "same-account"
        if to is not None:
            if reason := self.cannot_take(to, account, taken):
                return reason
            self.balance[to] += taken
        self.balance[account] -= taken
        del self.holds[account][hold]
        return None

    def release(self, account: str, hold: str, now: str) -> str | None:
        reason = self.not_open(account)
        if reason and reason != "account-frozen":
            return reason
        if reason := self.no_hold(account, hold, now):
            return reason
        del self.holds[account][hold]
        return None

    def expire(self, account: str, hold: str, now: str) -> bool:
        """Was there anything to expire?"""
        _, expires_at = self.holds.get(account, {}).get(hold, (0, None))
        if expires_at is None or expires_at > now:
            return False
        del self.holds[account][hold]
        return True

    def set_limit(self, account: str, limit: int) -> str | None:
        if account not in self.balance:
            return "account-not-found"
        if account in self.closed:
            return "account-closed"
        if self.held(account) - self.balance[account] > limit:
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
        if self.holds[account]:
            return "holds-open"
        self.closed.add(account)
        return None

    def no_hold(self, account: str, hold: str, now: str) -> str | None:
        if hold not in self.holds[account]:
            return "hold-not-found"
        _, expires_at = self.holds[account][hold]
        return "hold-expired" if expires_at is not None and expires_at <= now else None

    def held(self, account: str) -> int:
        return sum(amount for amount, _ in self.holds[account].values())

    def cannot_take(self, account: str, payer: str, amount: int) -> str | None:
        if reason := self.not_open(account):
            return reason.replace("account", "counterpart")
        if self.asset[payer] != self.asset[account]:
            return "asset-mismatch"
        return "balance-limit-exceeded" if self.balance[account] + amount > MOST else None

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
        if amount > self.balance[account] - self.held(account) + self.limit[account]:
            return "insufficient-funds"
        return None

    def shown(self, account: str) -> dict[str, object]:
        """What everybody is to say of an account that exists."""
        status = "closed" if account in self.closed else "frozen" if account in self.frozen else "open"
        limit, balance, held = self.limit[account], self.balance[account], self.held(account)
        shown = {"name": self.name[account], "balance": balance, "held": held, "overdraft_limit": limit}
        return {**shown, "status": status, "available": balance - held + limit}
