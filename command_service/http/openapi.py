"""What the OpenAPI document says of commands, from the definitions that read and answer them."""

from typing import Any

import msgspec
from msgspec import Struct

from command_service.http.commands import IDEMPOTENCY_KEY_PATTERN, PATHS, Batch, body_of
from command_service.ledger.commands import Command, CreateAccount
from command_service.ledger.outcomes import NewAccount, Outcome, Receipt, Rejection
from shared.events import ACCOUNT_ID_PATTERN, ACCOUNT_ID_RULE
from shared.platform.problems import problem_responses

Document = dict[str, Any]

IDEMPOTENCY_KEY: Document = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY_PATTERN},
    "description": "The same key with the same request gets the same answer, and is recorded once. "
    "Quoted (as in the IETF draft) or bare, 1 to 255 visible ASCII characters.",
}
ACCOUNT_ID: Document = {
    "name": "account_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": ACCOUNT_ID_PATTERN},
    "description": ACCOUNT_ID_RULE,
}
ATOMIC: Document = {
    "name": "atomic",
    "in": "query",
    "schema": {"type": "boolean", "default": False},
    "description": "All or nothing: when one command is rejected, all others are too, as `linked-command-rejected`.",
}


def describe_commands(document: Document) -> None:
    """Add the commands to `document`, the application's own."""
    asked: dict[str, tuple[type[Command], type[Struct]]] = {
        "/account": (CreateAccount, body_of(CreateAccount, with_id=True))
    }
    asked |= {f"{path}{{account_id}}": (command, body_of(command)) for path, command in PATHS.items()}
    types = [NewAccount, Receipt, Rejection, list[Outcome], Batch, *(body for _, body in asked.values())]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    created, receipt, rejection, results, items, *bodies = schemas
    document.setdefault("components", {}).setdefault("schemas", {}).update(components)
    rejected = _response("Rejected by the ledger, and recorded as such.", rejection, "application/problem+json")
    for (path, (command, _)), body in zip(asked.items(), bodies, strict=True):
        if command is CreateAccount:
            accepted = {"201": _response("Created; `Location` is where to read it.", created)}
        else:
            accepted = {"200": _response("Recorded.", receipt)}
        parameters = [IDEMPOTENCY_KEY, ACCOUNT_ID] if "{" in path else [IDEMPOTENCY_KEY]
        summary = (command.__doc__ or "").partition(".")[0]
        operation = _operation(summary, parameters, body, {**accepted, "400": rejected})
        document["paths"].setdefault(path, {})["post"] = operation
    done = {"200": _response("An answer for each command, in order, as it would have had alone.", results)}
    operation = _operation("Record many commands in one transaction", [IDEMPOTENCY_KEY, ATOMIC], items, done)
    document["paths"]["/commands"] = {"post": operation}


def _operation(summary: str, parameters: list[Document], body: Document, responses: Document) -> Document:
    problems = {
        str(status): response for status, response in problem_responses(403, 413, 415, 421, 422, 500, 503).items()
    }
    return {
        "tags": ["commands"],
        "summary": summary,
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": responses | {str(status): response for status, response in problems.items()},
    }


def _response(description: str, schema: Document, media_type: str = "application/json") -> Document:
    return {"description": description, "content": {media_type: {"schema": schema}}}
