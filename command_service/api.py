"""The command service's HTTP face: parse, ask the ledger writer, answer."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from msgspec import UNSET
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, TypeAdapter

from command_service.account import Command, Deposit, Withdraw
from command_service.bodies import (
    BATCH_BYTES_MAX,
    ITEMS,
    MONEY,
    NAMED_ACCOUNT,
    NEW_ACCOUNT,
    command,
    new_account,
    openapi_body,
    parse,
)
from command_service.event_store import EventStore
from command_service.ledger_writer import LedgerWriter, Outcome, fingerprint
from command_service.ledger_writer import Request as LedgerRequest
from shared.api import AccountIdPath, E, route
from shared.events import AccountId, Position, Value, Version
from shared.messaging import BATCH_CONTENT_TYPE
from shared.problems import NotFound, install_problem_handlers, problem, problem_responses
from shared.telemetry import install_operator_routes
from shared.watermark import Watermark

POSITION_MAX = 2**63 - 1
PAGE_EVENTS_MAX = 10_000
PAGE_BYTES_MAX = 1024 * 1024
PIECE_BYTES_MAX = 128 * 1024
"""A page is sent in pieces, so that a thousand clients that read slowly do not hold a thousand pages."""
WAIT_SECONDS_MAX = 60

Responses = dict[int | str, dict[str, Any]]

IDEMPOTENCY_KEY_PATTERN = r'^("[\x20-\x21\x23-\x5b\x5d-\x7e]{1,255}"|[\x21\x23-\x7e]{1,255})$'
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=IDEMPOTENCY_KEY_PATTERN,
        description="The same key with the same request gets the same answer, and is recorded once. "
        "Quoted (as in the IETF draft) or bare, 1 to 255 visible ASCII characters.",
    ),
]
# https://www.w3.org/TR/trace-context/#traceparent-header
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Receipt(BaseModel):
    """Documentation of the answer to an accepted deposit or withdrawal."""

    type: Literal["amount-deposited", "amount-withdrawn"]
    event_id: str
    account_id: str
    amount: int
    balance: int
    version: int
    position: int


class AccountAnswer(BaseModel):
    """Documentation of the answer to an accepted create-account."""

    id: str
    name: str
    balance: int
    version: int
    position: int


def create_api(
    store: EventStore,
    writer: LedgerWriter,
    head: Watermark,
    registry: CollectorRegistry,
    query_url: str,
    relay_status: Callable[[], str],
) -> FastAPI:
    """`query_url` is where accounts are read: the base of `Location`."""
    app = FastAPI(
        title="Counting House: command service",
        summary="Records commands in the event log.",
        redirect_slashes=False,
    )
    install_problem_handlers(app)

    def post(path: str, summary: str, body: TypeAdapter[Any], responses: Responses) -> Callable[[E], E]:
        return route(
            app,
            path,
            "POST",
            summary=summary,
            tags=["commands"],
            status_code=next(iter(responses)),
            responses={**responses, **problem_responses(413, 422, 500, 503)},
            openapi_extra={"requestBody": openapi_body(body)},
        )

    def get(path: str, summary: str, *problems: int) -> Callable[[E], E]:
        batch = {"description": "CloudEvents, oldest first.", "content": {BATCH_CONTENT_TYPE: {}}}
        return route(
            app,
            path,
            "GET",
            summary=summary,
            tags=["events"],
            responses={200: batch, **problem_responses(*problems)},
        )

    created: Responses = {
        201: {"model": AccountAnswer, "description": "Created; `Location` is where to read it."},
        **problem_responses(400),
    }
    recorded: Responses = {200: {"model": Receipt, "description": "Recorded."}, **problem_responses(400)}
    results: Responses = {
        200: {"description": "A result for each command, in order, with the status it would have had alone."}
    }

    async def ask(request: Request, asked_command: Command, key: str | None, asked: object) -> Response:
        traceparent = request.headers.get("traceparent", "")
        (outcome,) = await writer.write(ledger_request([asked_command], key, asked, traceparent))
        status, answer = render(outcome)
        headers = {"Ledger-Position": str(outcome.position)}
        if status == 201:
            headers["Location"] = f"{query_url}/account/{outcome.account_id}"
        media_type = "application/problem+json" if status >= 400 else "application/json"
        return Response(msgspec.json.encode(answer), status, headers, media_type)

    @post("/account", "Create an account", NEW_ACCOUNT, created)
    async def create_account(request: Request, idempotency_key: IdempotencyKey = None) -> Response:
        body = await parse(request, NEW_ACCOUNT)
        asked = ("create-account", body.id, body.name)
        return await ask(request, new_account(body.id, body.name), idempotency_key, asked)

    @post("/account/{account_id}", "Create an account with this id", NAMED_ACCOUNT, created)
    async def create_named_account(
        request: Request, account_id: AccountIdPath, idempotency_key: IdempotencyKey = None
    ) -> Response:
        body = await parse(request, NAMED_ACCOUNT)
        asked = ("create-account", account_id, body.name)
        return await ask(request, new_account(account_id, body.name), idempotency_key, asked)

    @post("/account/deposit/{account_id}", "Deposit", MONEY, recorded)
    async def deposit(request: Request, account_id: AccountIdPath, idempotency_key: IdempotencyKey = None) -> Response:
        body = await parse(request, MONEY)
        asked = Deposit(AccountId(account_id), body.amount, body.description)
        return await ask(request, asked, idempotency_key, [asked])

    @post("/account/withdraw/{account_id}", "Withdraw", MONEY, recorded)
    async def withdraw(request: Request, account_id: AccountIdPath, idempotency_key: IdempotencyKey = None) -> Response:
        body = await parse(request, MONEY)
        asked = Withdraw(AccountId(account_id), body.amount, body.description)
        return await ask(request, asked, idempotency_key, [asked])

    @post("/commands", "Record many commands in one transaction", ITEMS, results)
    async def commands(request: Request, idempotency_key: IdempotencyKey = None) -> Response:
        items = await parse(request, ITEMS, BATCH_BYTES_MAX)
        asked_commands = [command(item) for item in items]
        # An account without an id was asked for as such, whatever id it has got here.
        asked = idempotency_key and [
            asked_command if item.account_id else item.model_dump()
            for item, asked_command in zip(items, asked_commands, strict=True)
        ]
        traceparent = request.headers.get("traceparent", "")
        outcomes = await writer.write(ledger_request(asked_commands, idempotency_key, asked, traceparent))
        return Response(render_batch(outcomes), media_type="application/json")

    @get("/events", "The feed: every event from a position on", 422, 503)
    async def events(
        after: Annotated[int, Query(ge=0, le=POSITION_MAX, description="Position; events after it.")] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE_EVENTS_MAX)] = 1000,
        wait: Annotated[
            float,
            Query(ge=0, le=WAIT_SECONDS_MAX, description="Seconds to wait for an event if there is none."),
        ] = 0,
    ) -> Response:
        await head.reach(Position(after + 1), wait)
        first = await store.read(Position(after), limit, PIECE_BYTES_MAX)
        # Read after the first piece, and the last word on the others: a consumer must never be told of a head
        # before what it holds.
        last = await store.head()

        async def read(count: int, events_max: int, bytes_max: int) -> list[bytes]:
            return await store.read(Position(after + count), events_max, bytes_max)

        headers = {"Ledger-Position": str(last), "Ledger-Source": store.source}
        return StreamingResponse(
            batch(first, min(limit, last - after), read), headers=headers, media_type=BATCH_CONTENT_TYPE
        )

    @get("/account/{account_id}/events", "One account's events, rejections included", 404, 422, 503)
    async def account_events(
        account_id: AccountIdPath,
        after: Annotated[int, Query(ge=0, le=POSITION_MAX, description="Version; events after it.")] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE_EVENTS_MAX)] = 1000,
    ) -> Response:
        async def read(count: int, events_max: int, bytes_max: int) -> list[bytes]:
            return await store.read_stream(AccountId(account_id), Version(after + count), events_max, bytes_max)

        first = await read(0, limit, PIECE_BYTES_MAX)
        if not first and not await store.read_stream(AccountId(account_id), Version(0), 1, PIECE_BYTES_MAX):
            raise NotFound(f"no command has ever named the account {account_id!r}.")
        return StreamingResponse(batch(first, limit, read), media_type=BATCH_CONTENT_TYPE)

    @app.get("/readyz", tags=["operations"], summary="Can commands be recorded?", responses=problem_responses(503))
    async def readyz() -> dict[str, str]:
        await store.head()
        return {"status": "ready", "relay": relay_status()}

    install_operator_routes(app, registry)
    return app


async def batch(
    first: list[bytes], events_max: int, read: Callable[[int, int, int], Awaitable[list[bytes]]]
) -> AsyncIterator[bytes]:
    """A page of encoded events in the CloudEvents JSON batch format, in pieces.

    After `first`, `read` is asked for those that follow so many events: how many and how many bytes at most.
    """
    yield b"[" + b",".join(first)
    count, size = len(first), sum(map(len, first))
    while 0 < count < events_max and size < PAGE_BYTES_MAX:
        more = await read(count, events_max - count, min(PIECE_BYTES_MAX, PAGE_BYTES_MAX - size))
        if not more:
            break
        count, size = count + len(more), size + sum(map(len, more))
        yield b"," + b",".join(more)
    yield b"]"


def render(outcome: Outcome) -> tuple[int, dict[str, object]]:
    """Status and body of the answer to one command."""
    if outcome.reason is not None:
        answer = problem(
            400,
            outcome.reason,
            outcome.reason.replace("-", " ").capitalize(),
            f"The command was recorded as {outcome.type} at position {outcome.position}.",
            {
                "reason": outcome.reason,
                "event_id": outcome.event_id,
                "account_id": outcome.account_id,
                "position": outcome.position,
            },
        )
        return 400, answer
    if outcome.type == "account-created":
        return 201, {
            "id": outcome.account_id,
            "name": outcome.name,
            "balance": outcome.balance,
            "version": outcome.version,
            "position": outcome.position,
        }
    return 200, {
        "type": outcome.type,
        "event_id": outcome.event_id,
        "account_id": outcome.account_id,
        "amount": outcome.amount,
        "balance": outcome.balance,
        "version": outcome.version,
        "position": outcome.position,
    }


class _Accepted(Value, frozen=True, tag_field="status", tag=200):
    type: str
    event_id: str
    account_id: AccountId
    amount: int
    balance: int | None
    version: Version
    position: Position


def render_batch(outcomes: Sequence[Outcome]) -> bytes:
    """The answer to a batch: a result for each command, in order."""
    results: list[_Accepted | dict[str, object]] = []
    for o in outcomes:
        if o.reason is None and o.amount is not None:
            # As `render` has it with the status. Most results of most batches are of this kind, and dictionaries of
            # them are a tenth of a batch's time.
            results.append(_Accepted(o.type, o.event_id, o.account_id, o.amount, o.balance, o.version, o.position))
        else:
            status, answer = render(o)
            results.append({"status": status, **answer})
    return msgspec.json.encode(results)


def ledger_request(commands: Sequence[Command], key: str | None, asked: object, traceparent: str) -> LedgerRequest:
    """`asked` is what the client sent, in a form that does not depend on spacing or on ids made here."""
    return LedgerRequest(
        commands,
        key and key.strip('"'),
        fingerprint(asked) if key else b"",
        traceparent if TRACEPARENT.fullmatch(traceparent) else UNSET,
    )
