"""How a good value becomes a bad one, and bytes become other bytes. All of it comes out of the `Random` given."""

import json
from collections.abc import Callable, Sequence
from random import Random

import msgspec

MARKER = "s3cret-of-the-fuzz"
"""In bodies and headers, so that a log that repeats them is found out."""

Json = object
"""What `json` knows, with `Raw` and `Pairs` among it."""


class Raw(bytes):
    """Written as it is, whatever it is."""


class Pairs(list[tuple[str, Json]]):
    """An object whose names may come twice."""


NUMBERS: Sequence[Json] = (
    *(0, -1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**30, 10**400, 1.0, 1.5, -0.0, 1e300),
    *map(Raw, (b"1e2", b"1E400", b"1e-400", b"-0", b"01", b"+1", b".5", b"5.", b"0x10", b"1_000", b"NaN", b"Infinity")),
    *map(Raw, (b"-", b"--1", b"1" * 5000, b"1e999999999", b"1.0e0", b"9" * 19, b"1\x00", "\uff11".encode())),
)
TEXTS: Sequence[Json] = (
    *("", " ", "\0", "a\0b", "x" * 201, "x" * 1001, "Zoë 🏦", "\u202e", "\ufeff", "\U0010ffff", "é", "null", "5"),
    *("' OR 1=1 --", "../../etc", "%s%n", "{0}", "a\nb", "\x7f", "x" * 70_000, "alice", MARKER),
    *map(Raw, (b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83c\\udfe6"', b'"\\u0000"', b'"\\u00"', b'"\\x41"', b'"\\"')),
    *map(
        Raw, (b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"a\nb"', b'"\x00"', b"'a'", b'"a')
    ),
)
OTHERS: Sequence[Json] = (None, True, False, [], {}, [[]], [5], {"a": 1}, Raw(b""), Raw(b"undefined"), Raw(b"// no\n1"))
DEPTHS = (20, 200, 1_000, 5_000, 20_000)
MANY_FIELDS = 100_000
LOOSE = (
    b"\xff",
    b"\x00",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\xef\xbb\xbf",
)


def odd_value(random: Random) -> Json:
    choice = random.random()
    if choice < 0.06:
        return deep(random)
    return random.choice(NUMBERS if choice < 0.4 else TEXTS if choice < 0.8 else OTHERS)


def deep(random: Random) -> Raw:
    """Nested deeper than anybody means it, closed again or not."""
    depth = random.choice(DEPTHS)
    start, end = random.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
    return Raw(start * depth + random.choice([b"1", b""]) + random.choice([end * depth, b""]))


def mutate(value: Json, random: Random) -> Json:
    """One change somewhere in `value`."""
    match value:
        case _ if random.random() < 0.1:
            return odd_value(random)
        case dict() | Pairs() if value:
            return _mutate_object(Pairs(value.items() if isinstance(value, dict) else value), random)
        case list() if value:
            return _mutate_list(list(value), random)
    return odd_value(random)


def _mutate_object(fields: Pairs, random: Random) -> Json:
    place = random.randrange(len(fields))
    name, value = fields[place]
    match random.randrange(9):
        case 0:
            del fields[place]
        case 1:
            fields.insert(random.randint(0, len(fields)), (name, random.choice([value, odd_value(random)])))
        case 2:
            fields.insert(
                random.randint(0, len(fields)), (str(random.choice(["extra", "", "a\0", MARKER])), deep(random))
            )
        case 3:
            fields[place] = (random.choice([name.upper(), name + " ", "__proto__", "x" * 10_000]), value)
        case 4:
            random.shuffle(fields)
        case 5 if random.random() < 0.01:
            extra = [(f"f{number}", 0) for number in range(MANY_FIELDS)]
            return Pairs([*extra, *fields] if random.random() < 0.5 else [*fields, *extra])
        case 6:
            # What a decoder skips to find the field that tells it what this is.
            fields.insert(0, (random.choice(["a", "data", name]), odd_value(random)))
        case _:
            fields[place] = (name, mutate(value, random))
    return fields


def _mutate_list(items: list[Json], random: Random) -> Json:
    place = random.randrange(len(items))
    match random.randrange(6):
        case 0:
            del items[place]
        case 1:
            items.insert(place, odd_value(random))
        case 2:
            items *= 200 if random.random() < 0.05 else 2
        case 3:
            return items[place]
        case _:
            items[place] = mutate(items[place], random)
    return items


def encode(value: Json, random: Random) -> bytes:
    """By Python's encoder, msgspec's, or by hand: there, now and then, as no encoder should."""
    try:
        match random.randrange(4):
            case 0:
                return json.dumps(_plain(value), ensure_ascii=random.random() < 0.5).encode()
            case 1:
                return msgspec.json.encode(_plain(value))
    except (TypeError, ValueError, OverflowError):
        pass  # nothing that they would write
    return by_hand(value, random, random.choice([None] * 5 + list(FAULTS)))


def _plain(value: Json) -> Json:
    """Without what only `by_hand` can write. Raises `TypeError` when that is a part of it."""
    match value:
        case Raw():
            raise TypeError
        case Pairs() | dict():
            return {name: _plain(item) for name, item in (value.items() if isinstance(value, dict) else value)}
        case list():
            return [_plain(item) for item in value]
    return value


FAULTS = ("comma", "quotes", "colon", "comment", "space", "bom", "utf-16", "latin-1", "cut", "twice", "unquoted")


def by_hand(value: Json, random: Random, fault: str | None) -> bytes:
    comma, colon = b",", b":"
    match fault:
        case "comma":
            comma = random.choice([b",,", b"", b";", b", ,"])
        case "colon":
            colon = random.choice([b"=", b"", b"::"])
        case "comment":
            comma = b",/* */"
        case "space":
            comma = random.choice([b",\x0b", ",\u00a0".encode(), b",\n\r\t ", b",\x00"])
    text = _write(value, comma, colon)
    match fault:
        case "quotes":
            return text.replace(b'"', b"'")
        case "unquoted":
            return text.replace(b'"', b"", 2)
        case "bom":
            return b"\xef\xbb\xbf" + text
        case "utf-16" | "latin-1":
            return text.decode("utf-8", "replace").encode(fault, "replace")
        case "cut":
            return text[: random.randint(0, len(text))]
        case "twice":
            return text + text
    return text


def _write(value: Json, comma: bytes, colon: bytes) -> bytes:
    match value:
        case Raw():
            return bytes(value)
        case Pairs() | dict():
            fields = value.items() if isinstance(value, dict) else value
            return (
                b"{"
                + comma.join(_write(name, comma, colon) + colon + _write(item, comma, colon) for name, item in fields)
                + b"}"
            )
        case list():
            return b"[" + comma.join(_write(item, comma, colon) for item in value) + b"]"
        case _:
            return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def mutate_bytes(text: bytes, random: Random) -> bytes:
    """One change somewhere in `text`."""
    place, size = random.randint(0, len(text)), min(random.choice([1, 1, 2, 4, 16, 64]), len(text))
    changes: Sequence[Callable[[], bytes]] = (
        lambda: text[:place] + bytes([random.randrange(256)]) + text[place + 1 :],
        lambda: text[:place] + text[place + size :],
        lambda: text[:place],
        lambda: text[:place] + random.choice(LOOSE) + text[place:],
        lambda: text[: place + size] + text[place:],
        lambda: (
            text[:place]
            + bytes(byte ^ (1 << random.randrange(8)) for byte in text[place : place + 1])
            + text[place + 1 :]
        ),
    )
    return random.choice(changes)()
