"""All or nothing: what is recorded of commands of which one is rejected. Pure."""

from collections.abc import Callable, Sequence

from command_service.account import Command, decide, evolve, rejected
from command_service.states import NO_STREAM, Stream
from shared.events import AccountId, Event, Rejected, Version, entries


def rejected_together(commands: Sequence[Command], stream: Callable[[AccountId], Stream]) -> list[Event]:
    """The events of `commands` when one of them would be rejected, decided after those before it; else none.

    That one keeps its own reason, and all others are rejected for its sake. `stream` says where an account's stream
    stands before the first of them.
    """
    after: dict[AccountId, Stream] = {}

    def stream_now(account_id: AccountId) -> Stream:
        return after.get(account_id) or stream(account_id)

    for number, command in enumerate(commands):
        account_id, to = command.account_id, command.to
        version, account = stream_now(account_id) if account_id else NO_STREAM
        event = decide(account, version, command, stream_now(to)[1] if to else None)
        if isinstance(event, Rejected):
            return [
                event if other == number else rejected(linked, "linked-command-rejected")
                for other, linked in enumerate(commands)
            ]
        if account_id:  # no other command can name an account that has no id yet
            for changed, change in entries(account_id, event) or ((account_id, 0),):
                version, account = stream_now(changed)
                after[changed] = Version(version + 1), evolve(account, event, change)
    return []
