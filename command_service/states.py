"""What an account's events have come to, as the event log keeps it: bytes that nobody reads but the domain."""

import msgspec

from command_service.account import Account, evolve
from shared.errors import CorruptStore
from shared.events import RecordedEvent, Value, Version

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Account).decode


class State(Value, frozen=True):
    """`account` begins with the number of its format; it is empty while all commands to the account were rejected."""

    version: Version
    account: bytes


NO_STATE = State(Version(0), b"")


def encode_account(account: Account | None) -> bytes:
    return b"" if account is None else _encode(account)


def decode_account(encoded: bytes) -> Account | None:
    """Raises `CorruptStore`."""
    try:
        return _decode(encoded) if encoded else None
    except (ValueError, RecursionError) as error:
        raise CorruptStore(
            f"an account's state can't be read: {error}. Put a good copy of the log in its place."
        ) from error


def state_after(state: State, recorded: RecordedEvent) -> State:
    """Raises `CorruptStore` when `state` can't be read."""
    return State(recorded.version, encode_account(evolve(decode_account(state.account), recorded.event)))
