"""What an account's events have come to, as the event log keeps it: bytes that nobody reads but the domain."""

from collections.abc import Mapping

import msgspec

from command_service.ledger.account import FORMAT, Account, evolve
from command_service.ledger.commands import Command, ExpireHold
from shared.errors import CorruptStore
from shared.events import AccountId, HoldId, RecordedEvent, Value, Version, entries

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Account).decode


class State(Value, frozen=True):
    """`account` begins with the number of its format; it is empty while all commands to the account were rejected."""

    version: Version
    account: bytes


HoldKey = tuple[AccountId, HoldId]
"""Of all open holds, this one alone has it."""

NO_STATE = State(Version(0), b"")

Stream = tuple[Version, Account | None]
"""Where an account's stream stands: its last version, and the account if it has been created."""
NO_STREAM: Stream = NO_STATE.version, None


def hold_key_of(command: Command | ExpireHold) -> HoldKey:
    """Of the hold that it names: see `names_hold`."""
    assert command.account_id is not None
    assert command.hold_id is not None
    return command.account_id, command.hold_id


def encode_account(account: Account | None) -> bytes:
    """What follows the balance is left out where it is what most have: of a million accounts that is half of what is
    read and written."""
    if account is None:
        return b""
    return _encode((FORMAT, account.balance) if account == Account(account.balance) else account)


def decode_account(encoded: bytes) -> Account | None:
    """Raises `CorruptStore`."""
    try:
        return _decode(encoded) if encoded else None
    except (ValueError, RecursionError) as error:
        raise CorruptStore(
            f"an account's state can't be read: {error}. Put a good copy of the log in its place."
        ) from error


def stream_of(state: State) -> Stream:
    """Raises `CorruptStore`."""
    return state.version, decode_account(state.account)


def states_after(states: Mapping[AccountId, State], recorded: RecordedEvent) -> dict[AccountId, State]:
    """Those that `recorded` changes of `states`. Raises `CorruptStore` when one can't be read."""
    changes = {account_id: change for account_id, *change in entries(recorded.account_id, recorded.event)}
    return {
        account_id: State(
            version,
            encode_account(
                evolve(
                    decode_account(states.get(account_id, NO_STATE).account),
                    recorded.event,
                    *changes.get(account_id, (0, 0)),
                )
            ),
        )
        for account_id, version in recorded.streams()
    }
