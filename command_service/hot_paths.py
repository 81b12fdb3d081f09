"""Deposits, withdrawals and batches, when they are plainly well-formed. The application answers all others."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from command_service.account import Amount, Command, CreateAccount, Deposit, Description, Withdraw
from command_service.api import IDEMPOTENCY_KEY_PATTERN, ledger_request, render, render_batch
from command_service.bodies import BATCH_COMMANDS_MAX, BODY_BYTES_MAX
from command_service.ledger_writer import LedgerWriter, Request
from shared.api import ACCOUNT_ID_PATTERN
from shared.events import AccountId
from shared.hot_paths import Handler, HotAnswer, HotRequest

ESCAPED_NUL = b"\\u0000"

_is_account_id = re.compile(ACCOUNT_ID_PATTERN.replace("$", r"\Z")).match
_is_key = re.compile(IDEMPOTENCY_KEY_PATTERN.encode()).fullmatch
_encode = msgspec.json.Encoder().encode


class _Money(Struct, forbid_unknown_fields=True):
    amount: Amount
    description: Description = ""


_decode_money = msgspec.json.Decoder(_Money).decode
_decode_commands = msgspec.json.Decoder(
    Annotated[list[Deposit | Withdraw | CreateAccount], Meta(max_length=BATCH_COMMANDS_MAX)]
).decode


def hot_paths(writer: LedgerWriter) -> Mapping[tuple[str, str], Handler]:
    async def money(request: HotRequest, command: type[Deposit] | type[Withdraw]) -> HotAnswer | None:
        if len(request.body) > BODY_BYTES_MAX or ESCAPED_NUL in request.body or not _is_account_id(request.name):
            return None
        try:
            body = _decode_money(request.body)
        except msgspec.MsgspecError:
            return None
        asked = command(AccountId(request.name), body.amount, body.description)
        to_record = _ledger_request(request.headers, [asked])
        if to_record is None:
            return None
        (outcome,) = await writer.write(to_record)
        status, answer = render(outcome)
        media_type = b"application/json" if status < 400 else b"application/problem+json"
        return HotAnswer(status, media_type, _encode(answer), outcome.position)

    async def deposit(request: HotRequest) -> HotAnswer | None:
        return await money(request, Deposit)

    async def withdraw(request: HotRequest) -> HotAnswer | None:
        return await money(request, Withdraw)

    async def commands(request: HotRequest) -> HotAnswer | None:
        if ESCAPED_NUL in request.body:
            return None
        try:
            asked = _decode_commands(request.body)
        except msgspec.MsgspecError:
            return None
        if not all(map(_is_account_id, [command.account_id for command in asked])):
            return None
        to_record = _ledger_request(request.headers, asked)
        if to_record is None:
            return None
        outcomes = await writer.write(to_record)
        return HotAnswer(200, b"application/json", render_batch(outcomes))

    return {
        ("POST", "/account/deposit/"): deposit,
        ("POST", "/account/withdraw/"): withdraw,
        ("POST", "/commands"): commands,
    }


def _ledger_request(headers: Sequence[tuple[bytes, bytes]], commands: Sequence[Command]) -> Request | None:
    key = traceparent = ""
    media_type = b""
    for name, value in headers:
        if name == b"content-type":
            media_type = value
        elif name == b"idempotency-key":
            if not _is_key(value):
                return None
            key = value.decode()
        elif name == b"traceparent":
            traceparent = value.decode("latin-1")
    if media_type != b"application/json":
        return None
    return ledger_request(commands, key or None, commands, traceparent)
