"""What has been written of each type of event, to the byte, and what it says: read for ever.

`TYPE.jsonl` has a line for each. Lines are added, and never changed or taken away.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct

from shared.events import EVENT_TYPES, RecordedEvent, decode_events, encode_event, entries, join_events
from tests.examples import DEPOSITED, EVENTS, MORE_EVENTS, TRACE, cloud_event

FOLDER = Path(__file__).parent
WRITTEN_TODAY = [
    *(cloud_event(7, event, version=3) for event in [*EVENTS, *MORE_EVENTS]),
    cloud_event(7, DEPOSITED, version=3, traceparent=TRACE),
]
"""Of each of them there is a line."""
ENTRY_MEMBERS = ("balance", "held")
"""What follows the account in an entry, as far as there is such a thing today."""
ADD = "let tests/examples.py have an example of it, and run `python -m tests.golden`"

Shape = dict[str, Any]


class Meaning(Struct):
    """What its reader makes of it, in the words of today."""

    streams: list[tuple[str, int]]
    event: str
    data: dict[str, Any]
    moves: dict[str, dict[str, int]]
    """What it changes of each account, in cents, by the name of what changes."""


class Golden(Struct):
    shape: Shape
    """Of the data of its type, when the line was added."""
    meaning: Meaning
    encoded: Raw

    @property
    def attributes(self) -> dict[str, Any]:
        """As it stands there."""
        return msgspec.json.decode(self.encoded, type=dict[str, Any])


def goldens() -> dict[str, list[Golden]]:
    """By the type that they were written as, the oldest first."""
    return {path.stem: list(read(path.stem)) for path in sorted(FOLDER.glob("*.jsonl"))}


def read(event_type: str) -> Iterator[Golden]:
    path = FOLDER / f"{event_type}.jsonl"
    for line in path.read_bytes().splitlines() if path.exists() else []:
        yield msgspec.json.decode(line, type=Golden)


def missing() -> Iterator[tuple[str, Golden]]:
    """What is written today, and of which there is no line; the lines to add, with their types."""
    shapes = {event_type: shape_of(event) for event_type, event in EVENT_TYPES.items()}
    known = {event_type: [*read(event_type)] for event_type in shapes}
    cloud_events = [(cloud_event.type, encode_event(cloud_event)) for cloud_event in WRITTEN_TODAY]
    unknown = [
        (name, encoded) for name, encoded in cloud_events if encoded not in [bytes(one.encoded) for one in known[name]]
    ]
    added = {name for name, _ in unknown}
    for event_type, lines in known.items():
        if event_type not in added and lines and lines[-1].shape != shapes[event_type]:
            unknown.append((event_type, bytes(lines[0].encoded)))
    for event_type, encoded in unknown:
        yield event_type, Golden(shapes[event_type], meaning_of(decode(encoded)), Raw(encoded))


def decode(encoded: bytes | Raw) -> RecordedEvent:
    (recorded,) = decode_events(join_events([bytes(encoded)]))
    return recorded


def meaning_of(recorded: RecordedEvent) -> Meaning:
    return Meaning(
        streams=[*recorded.streams()],
        event=recorded.event.type,
        data=msgspec.to_builtins(recorded.event),
        moves={
            account_id: {name: change for name, change in zip(ENTRY_MEMBERS, changes, strict=False) if change}
            for account_id, *changes in entries(recorded.account_id, recorded.event)
        },
    )


def shape_of(event: type[Struct]) -> Shape:
    """Its members, what each may be, and which of them may be missing. Words for readers are no part of it.

    Nor are the values of an enumeration: of each reason there is a line.
    """

    def bare(schema: Any) -> Any:
        if isinstance(schema, list):
            return [bare(part) for part in schema]
        if not isinstance(schema, dict):
            return schema
        return {
            name: {member: bare(part) for member, part in value.items()} if name == "properties" else bare(value)
            for name, value in schema.items()
            if name not in ("title", "description", "examples", "enum", "pattern")
        }

    _, components = msgspec.json.schema_components([event])
    shape: Shape = bare(components[event.__name__])
    return shape
