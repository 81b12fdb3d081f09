"""One bank without a broker for all tests of the HTTP contract: each test uses accounts of its own."""

import uuid
from collections.abc import AsyncIterator

import pytest

from tests.bank import Bank, open_bank


@pytest.fixture(scope="session")
async def bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    async with open_bank(tmp_path_factory.mktemp("bank")) as bank:
        yield bank


@pytest.fixture
def account_id() -> str:
    """An id that no other test uses."""
    return f"account-{uuid.uuid4()}"


@pytest.fixture
async def account(bank: Bank, account_id: str) -> str:
    """An account with 100 cents, at version 2."""
    await bank.create(account_id)
    await bank.deposit(account_id, 100)
    return account_id
