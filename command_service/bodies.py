"""What a client may send: request bodies, parsed into commands that need no further check."""

from typing import Annotated, Any, Literal, TypeVar

import uuid_utils
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from command_service.account import (
    DESCRIPTION_CHARS_MAX,
    NAME_CHARS_MAX,
    Command,
    CreateAccount,
    Deposit,
    Withdraw,
)
from shared.api import ACCOUNT_ID_PATTERN, ACCOUNT_ID_RULE
from shared.events import AccountId
from shared.problems import BodyTooLarge, InvalidRequest

BODY_BYTES_MAX = 64 * 1024
BATCH_BYTES_MAX = 16 * 1024 * 1024
BATCH_COMMANDS_MAX = 10_000
ERRORS_MAX = 100

# U+0000 is the one character that PostgreSQL's text cannot hold:
# https://www.postgresql.org/docs/current/datatype-character.html
NO_NUL = r"^[^\x00]*$"

AccountIdText = Annotated[str, Field(pattern=ACCOUNT_ID_PATTERN, description=ACCOUNT_ID_RULE, examples=["alice"])]
NewAccountId = Annotated[AccountIdText | None, Field(description="A UUIDv7 when absent.")]
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX, pattern=NO_NUL, examples=["Alice Liddell"])]
Amount = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, description="In cents.", examples=[1250])]
Description = Annotated[str, Field(max_length=DESCRIPTION_CHARS_MAX, pattern=NO_NUL, examples=["Salary"])]


class Body(BaseModel):
    """Strict: no value is converted, and a misspelt field is an error instead of a silent loss."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NamedAccount(Body):
    name: Name


class NewAccount(NamedAccount):
    id: NewAccountId = None


class Money(Body):
    amount: Amount
    description: Description = ""


class CreateAccountItem(NamedAccount):
    type: Literal["create-account"]
    account_id: NewAccountId = None


class DepositItem(Money):
    type: Literal["deposit"]
    account_id: AccountIdText


class WithdrawItem(Money):
    type: Literal["withdraw"]
    account_id: AccountIdText


Item = Annotated[CreateAccountItem | DepositItem | WithdrawItem, Field(discriminator="type")]

B = TypeVar("B")
NEW_ACCOUNT = TypeAdapter(NewAccount)
NAMED_ACCOUNT = TypeAdapter(NamedAccount)
MONEY = TypeAdapter(Money)
ITEMS = TypeAdapter(Annotated[list[Item], Field(max_length=BATCH_COMMANDS_MAX)])


async def parse(request: Request, body: TypeAdapter[B], bytes_max: int = BODY_BYTES_MAX) -> B:
    """Read and validate the body. Raises `InvalidRequest` or `BodyTooLarge`: nothing has been recorded then."""
    media_type = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        # A page elsewhere can make a browser post the other types without asking first:
        # https://fetch.spec.whatwg.org/#cors-safelisted-request-header
        raise InvalidRequest([("Content-Type", f"is {media_type!r}; send application/json")])
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > bytes_max:
            raise BodyTooLarge(f"the body is over {bytes_max} bytes.")
    try:
        return body.validate_json(received)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[:ERRORS_MAX]
        raise InvalidRequest([(".".join(map(str, e["loc"])) or "body", e["msg"]) for e in found]) from None


def new_account(account_id: str | None, name: str) -> CreateAccount:
    return CreateAccount(AccountId(account_id or str(uuid_utils.uuid7())), name)


def command(item: CreateAccountItem | DepositItem | WithdrawItem) -> Command:
    match item:
        case CreateAccountItem():
            return new_account(item.account_id, item.name)
        case DepositItem():
            return Deposit(AccountId(item.account_id), item.amount, item.description)
        case WithdrawItem():
            return Withdraw(AccountId(item.account_id), item.amount, item.description)


def openapi_body(body: TypeAdapter[Any]) -> dict[str, Any]:
    """The OpenAPI request body for what `parse` accepts."""
    schema = body.json_schema()
    definitions = schema.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return inline(definitions[node["$ref"].rsplit("/", 1)[1]])
            # The mapping of a discriminator points to the definitions, which are written out here.
            return {key: inline(value) for key, value in node.items() if key != "discriminator"}
        return [inline(value) for value in node] if isinstance(node, list) else node

    return {"required": True, "content": {"application/json": {"schema": inline(schema)}}}
