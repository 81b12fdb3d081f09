"""The one door for commands: how each is asked for, read, recorded and answered."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct
from msgspec.structs import replace

from command_service.ledger.commands import (
    Capture,
    Close,
    Command,
    CreateAccount,
    Deposit,
    Freeze,
    PlaceHold,
    Release,
    SetOverdraftLimit,
    Transfer,
    Unfreeze,
    Withdraw,
)
from command_service.ledger.outcomes import NewAccount, Outcome, Rejection
from command_service.ledger_writer import LedgerWriter, WriteRequest, fingerprint
from shared.errors import InvalidRequest
from shared.events import ACCOUNT_ID_RULE, TIME_RULE, Asset, as_written, is_account_id
from shared.platform.api import parameters
from shared.platform.gate import Answer, Headers, Post, Request

BODY_BYTES_MAX = 64 * 1024
BATCH_BYTES_MAX = 16 * 1024 * 1024
BATCH_COMMANDS_MAX = 10_000
FAULT_CHARS_MAX = 200
"""Of what a client is told about its field, and of the field's name: it may be quoted."""

PATHS: Mapping[str, type[Command]] = {
    "/account/": CreateAccount,
    "/account/deposit/": Deposit,
    "/account/withdraw/": Withdraw,
    "/account/transfer/": Transfer,
    "/account/hold/": PlaceHold,
    "/account/capture/": Capture,
    "/account/release/": Release,
    "/account/overdraft/": SetOverdraftLimit,
    "/account/freeze/": Freeze,
    "/account/unfreeze/": Unfreeze,
    "/account/close/": Close,
}
"""The account's id follows. `/account` alone takes it in the body, and `/commands` takes a list of all of them."""

Batch = Annotated[list[Command], Meta(max_length=BATCH_COMMANDS_MAX)]

ESCAPED_NUL = b"\\u0000"
TRUNCATED, MARGIN = "Input data was truncated", b" " * 6
"""msgspec says so too of half a surrogate pair, unless so many bytes follow."""
# https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ has it quoted; most clients send it bare.
IDEMPOTENCY_KEY_PATTERN = r'^("[\x20-\x21\x23-\x5b\x5d-\x7e]{1,255}"|[\x21\x23-\x7e]{1,255})$'
# https://www.w3.org/TR/trace-context/#traceparent-header
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

FIELD_NAMED = re.compile(r"(?s)Object (missing required|contains unknown) field `(.*)`")

T = TypeVar("T")
ReadOne = Callable[[str, bytes], Command]
"""The command in a path's last part and a body. Raises `InvalidRequest`."""

_is_key = re.compile(IDEMPOTENCY_KEY_PATTERN.encode()).fullmatch
_encode = msgspec.json.Encoder().encode


def command_endpoints(writer: LedgerWriter, query_url: str, default_asset: Asset) -> dict[str, Post]:
    """`query_url` is where accounts are read: the base of `Location`. `default_asset` is that of accounts for which
    none is asked."""

    def to_write(headers: Headers, commands: Sequence[Command], asked: object, atomic: bool = False) -> WriteRequest:
        key, trace = headers.get(b"idempotency-key"), headers.get(b"traceparent")
        if key is not None and not _is_key(key):
            raise InvalidRequest([("Idempotency-Key", "must be 1 to 255 visible ASCII characters, quoted or bare")])
        if CreateAccount in set(map(type, commands)):
            # From here on nothing hangs on the setting, nor does a retry's fingerprint.
            commands = [_in_asset(command, default_asset) for command in commands]
        return WriteRequest(
            commands,
            key.decode().strip('"') if key else None,
            fingerprint(asked) if key else b"",
            trace.decode() if trace and TRACEPARENT.fullmatch(trace) else UNSET,
            atomic,
        )

    def one(request: Request, body: bytes, read: ReadOne) -> "asyncio.Future[list[Outcome]]":
        if request.query:
            parameters(request.query, {})
        command = read(request.name, body)
        return writer.write(to_write(request.headers, [command], command))

    def tell_one(outcomes: list[Outcome]) -> Answer:
        (outcome,) = outcomes
        body, position = _encode(outcome), (b"ledger-position", b"%d" % outcome.position)
        if type(outcome) is Rejection:
            return Answer(400, b"application/problem+json", body, (position,))
        if type(outcome) is NewAccount:
            location = (b"location", f"{query_url}/account/{outcome.id}".encode())
            return Answer(201, b"application/json", body, (position, location))
        return Answer(200, b"application/json", body, (position,))

    def batch(request: Request, body: bytes) -> "asyncio.Future[list[Outcome]]":
        commands = _read_batch(body)
        atomic = _is_atomic(request.query)
        asked = {"atomic": commands} if atomic else commands
        return writer.write(to_write(request.headers, commands, asked, atomic))

    def tell_batch(outcomes: list[Outcome]) -> Answer:
        return Answer(200, b"application/json", _encode(outcomes))

    def single(read: ReadOne) -> Post:
        return Post(BODY_BYTES_MAX, partial(one, read=read), tell_one)

    return {
        "/account": single(_reader(CreateAccount, with_id=True)),
        "/commands": Post(BATCH_BYTES_MAX, batch, tell_batch),
        **{path: single(_reader(command)) for path, command in PATHS.items()},
    }


def _in_asset(command: Command, default_asset: Asset) -> Command:
    if isinstance(command, CreateAccount) and command.asset is None:
        return replace(command, asset=default_asset)
    return command


def body_of(command: type[Command], with_id: bool = False) -> type[Struct]:
    """The body that asks for `command`: without the account, which the path names, or with it as `id`."""
    fields = [field for field in msgspec.structs.fields(command) if with_id or field.name != "account_id"]
    return msgspec.defstruct(
        f"{command.__name__}WithId" if with_id else f"{command.__name__}Body",
        [(field.name, field.type) if field.required else (field.name, field.type, field.default) for field in fields],
        rename={"account_id": "id"},
        forbid_unknown_fields=True,
        gc=False,
    )


def _reader(command: type[Command], with_id: bool = False) -> ReadOne:
    decode = msgspec.json.Decoder(body_of(command, with_id)).decode
    make: Callable[..., Command] = command
    id_at = command.__struct_fields__.index("account_id")
    ids = [name for name in ("account_id", "to", "hold_id") if name in command.__struct_fields__]

    def read(name: str, body: bytes) -> Command:
        *fields, if_version, metadata = msgspec.structs.astuple(_read(decode, body))
        if not with_id:
            fields.insert(id_at, name)
        asked = make(*fields, if_version=if_version, metadata=metadata)
        for field in ids:
            named = getattr(asked, field)
            if named is not None and not is_account_id(named):
                raise InvalidRequest([("id" if with_id else field, f"must be {ACCOUNT_ID_RULE}")])
        return _with_written_expiry(asked, "expires_at") if isinstance(asked, PlaceHold) else asked

    return read


_decode_batch = msgspec.json.Decoder(Batch).decode


def _read_batch(body: bytes) -> list[Command]:
    commands = _read(_decode_batch, body)
    kinds = set(map(type, commands))
    for field in ("account_id", "to", "hold_id"):
        if all(getattr(kind, field) is None for kind in kinds):  # none of them has such a field
            continue
        named = list(map(attrgetter(field), commands))
        if not all(map(is_account_id, filter(None, named))):
            wrong = next(number for number, one in enumerate(named) if one is not None and not is_account_id(one))
            raise InvalidRequest([(f"{wrong}.{field}", f"must be {ACCOUNT_ID_RULE}")])
    for number, command in enumerate(commands if PlaceHold in kinds else ()):
        if type(command) is PlaceHold:
            commands[number] = _with_written_expiry(command, f"{number}.expires_at")
    return commands


def _is_atomic(query: bytes) -> bool:
    """Raises `InvalidRequest`."""
    asked = [value for _, value in parameters(query, {"atomic": str})]
    if asked not in ([], ["true"], ["false"]):
        raise InvalidRequest([("atomic", "must be true or false")])
    return asked == ["true"]


def _with_written_expiry(command: PlaceHold, field: str) -> PlaceHold:
    """With `expires_at` as an event's time is written, to the nearest microsecond. Raises `InvalidRequest`."""
    if command.expires_at is None:
        return command
    try:
        expires_at = as_written(command.expires_at)
    except ValueError:
        raise InvalidRequest([(field, f"must be {TIME_RULE}")]) from None
    return replace(command, expires_at=expires_at)


def _read(decode: Callable[[bytes], T], body: bytes) -> T:
    """Raises `InvalidRequest`, whatever the bytes are."""
    try:
        asked = decode(body)
    except (ValueError, RecursionError) as error:
        if str(error) == TRUNCATED and not body.endswith(MARGIN):
            return _read(decode, body + MARGIN)
        raise InvalidRequest([_fault(error)]) from None
    if ESCAPED_NUL in body:
        _refuse_nul(msgspec.to_builtins(asked), "")
    return asked


def _fault(error: Exception) -> tuple[str, str]:
    """The field that is at fault, as `0.amount`, and what is wrong with it."""
    if not isinstance(error, msgspec.ValidationError):
        return "body", f"is no JSON: {error}"
    detail, in_key, place = str(error).partition(" - at `key` in `$")
    if in_key:
        detail += " as key"
    else:
        detail, _, place = detail.partition(" - at `$")
    field = place.rstrip("`").removesuffix("[...]").replace("[", ".").replace("]", "").lstrip(".")
    if named := FIELD_NAMED.fullmatch(detail):
        detail, field = f"{named[1]} field", f"{field}.{named[2]}".lstrip(".")
    return field[:FAULT_CHARS_MAX] or "body", detail[:FAULT_CHARS_MAX]


def _refuse_nul(asked: Any, field: str) -> None:
    """U+0000 is the one character that PostgreSQL's text cannot hold.

    https://www.postgresql.org/docs/current/datatype-character.html
    """
    match asked:
        case str() if "\0" in asked:
            raise InvalidRequest([(field.lstrip("."), "has the character U+0000")])
        case list():
            for number, item in enumerate(asked):
                _refuse_nul(item, f"{field}.{number}")
        case dict():
            for name, value in asked.items():
                _refuse_nul(name, field)
                _refuse_nul(value, f"{field}.{name}")
