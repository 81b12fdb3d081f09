"""All or nothing: what is recorded of commands of which one is rejected. Pure."""

from collections.abc import Callable, Sequence

from command_service.ledger.account import Hold, decide, evolve, hold_after
from command_service.ledger.commands import Command, ExpireHold, rejected
from command_service.ledger.states import NO_STREAM, HoldKey, Stream, hold_key_of
from shared.events import AccountId, Event, Rejected, Version, entries


def rejected_together(
    commands: Sequence[Command | ExpireHold],
    time: str,
    stream: Callable[[AccountId], Stream],
    hold: Callable[[HoldKey], Hold | None],
) -> list[Event]:
    """The events of `commands` when one of them would be rejected, decided after those before it; else none.

    That one keeps its own reason, and all others are rejected for its sake. `stream` says where an account's stream
    stands before the first of them, `hold` what an open hold is; each that is placed has an id.
    """
    after: dict[AccountId, Stream] = {}
    holds_after: dict[HoldKey, Hold | None] = {}

    def stream_now(account_id: AccountId) -> Stream:
        return after.get(account_id) or stream(account_id)

    for number, command in enumerate(commands):
        account_id, to = command.account_id, command.to
        version, account = stream_now(account_id) if account_id else NO_STREAM
        key = hold_key_of(command) if command.names_hold else None
        held = None if key is None else holds_after[key] if key in holds_after else hold(key)
        event = decide(account, version, command, time, stream_now(to)[1] if to else None, held)
        assert event is not None  # the clerk asks for nothing together
        if isinstance(event, Rejected):
            return [
                event if other == number else rejected(linked, "linked-command-rejected")
                for other, linked in enumerate(commands)
            ]
        if account_id:  # no other command can name an account that has no id yet
            for changed, change, change_of_held in entries(account_id, event) or ((account_id, 0, 0),):
                version, account = stream_now(changed)
                after[changed] = Version(version + 1), evolve(account, event, change, change_of_held)
            if key is not None:
                holds_after[key] = hold_after(held, event)
    return []
