"""Peers that do nothing but parse a request and answer it: the least that a framework costs."""

import msgspec
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class Deposit(BaseModel):
    amount: int
    description: str = ""


async def echo_deposit(request: Request) -> Response:
    body = Deposit.model_validate_json(await request.body())
    answer = {"account_id": request.path_params["account_id"], "amount": body.amount}
    return Response(msgspec.json.encode(answer), media_type="application/json")


async def echo_account(request: Request) -> Response:
    answer = {"id": request.path_params["account_id"], "name": "Alice", "balance": 0, "version": 1}
    return Response(msgspec.json.encode(answer), media_type="application/json")


starlette = Starlette(
    routes=[
        Route("/account/deposit/{account_id}", echo_deposit, methods=["POST"]),
        Route("/account/{account_id}", echo_account, methods=["GET"]),
    ]
)

fastapi = FastAPI()


@fastapi.post("/account/deposit/{account_id}")
async def deposit(account_id: str, body: Deposit) -> dict[str, object]:
    return {"account_id": account_id, "amount": body.amount}
