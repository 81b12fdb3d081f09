"""What clients and caches may keep of an answer, and how they ask whether it still holds."""

import pytest

from tests.bank import Bank
from tests.http.test_commands import head, stream
from tests.wire import Answer, Connection, request

PATHS = [
    *("/account/{}", "/account/{}/holds", "/account/{}/statement", "/reserve", "/reserves"),
    "/accounts?sort=last_updated&order=desc&limit=1",
]


async def ask(bank: Bank, path: str, *headers: tuple[str, str]) -> Answer:
    connection = Connection(bank.projection.port)
    try:
        return await connection.ask(request("GET", path, b"", *headers))
    finally:
        connection.close()


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_that_the_client_has_already_is_not_sent_again(bank: Bank, account: str, path: str) -> None:
    """Until there is another one."""
    path = path.format(account)
    position = await head(bank)
    await bank.query("/reserve", min_position=position)
    first = await ask(bank, path)
    etag = first.headers["etag"]
    assert (first.status, first.headers["cache-control"]) == (200, "no-cache")
    for known in (
        [etag],
        [f"W/{etag}"],
        ["*"],
        [f'"other", {etag} , "a,b"'],
        [f'{etag}, "unclosed'],
        ['"other"', f'"more", {etag}'],
    ):
        again = await ask(bank, path, *(("If-None-Match", one) for one in known))
        assert (again.status, again.body) == (304, b"")
        assert {name: again.headers[name] for name in ("etag", "cache-control")} == {
            "etag": etag,
            "cache-control": "no-cache",
        }
        assert int(again.headers["ledger-position"]) >= position
        assert not again.headers.keys() & {"content-length", "content-type", "transfer-encoding"}
    for other in ('"other"', "", ",", etag.strip('"'), f"x{etag[1:]}", f"{etag[:-1]}x", "é", "W/*"):
        answer = await ask(bank, path, ("If-None-Match", other))
        assert (answer.status, answer.headers["etag"], answer.body) == (200, etag, first.body)
    await bank.post(f"/account/hold/{account}", {"amount": 1})
    _, receipt = await bank.deposit(account, 1)
    more = "&" if "?" in path else "?"
    changed = await ask(bank, f"{path}{more}min_position={receipt['position']}&wait=30", ("If-None-Match", etag))
    assert changed.status == 200
    assert changed.headers["etag"] != etag
    assert changed.body != first.body


@pytest.mark.parametrize("path", ["/account/{}", "/account/{}/holds", "/reserve", "/reserves", "/accounts?limit=1"])
async def test_what_is_told_of_a_position_is_asked_about_too(bank: Bank, account: str, path: str) -> None:
    """Another ledger may be there by then."""
    path, event = path.format(account), (await stream(bank, account))[-1]
    more, position = "&" if "?" in path else "?", int(event["sequence"])
    told = await ask(bank, f"{path}{more}at_position={position}&wait=30")
    assert (told.status, told.headers["cache-control"]) == (200, "no-cache")
    again = await ask(bank, f"{path}{more}at_position={position}", ("If-None-Match", told.headers["etag"]))
    assert (again.status, again.headers["cache-control"]) == (304, told.headers["cache-control"])
    then = await ask(bank, f"{path}{more}as_of={event['time']}")
    assert (then.status, then.headers["cache-control"]) == (200, "no-cache")
    assert then.body == told.body


@pytest.mark.parametrize("path", ["/account/nobody", "/account/nobody?at_position=1", "/reserve?asset=x", "/nothing"])
async def test_a_problem_is_kept_by_nobody(bank: Bank, path: str) -> None:
    answer = await ask(bank, path, ("If-None-Match", "*"))
    assert answer.status in (404, 422)
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


async def test_a_page_of_events_is_asked_for_each_time(bank: Bank, account: str) -> None:
    answer = await ask(bank, f"/account/{account}/events", ("If-None-Match", "*"))
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-cache")
    assert "etag" not in answer.headers
