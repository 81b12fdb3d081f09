"""Malformed input: 422 or 413 with the field that is wrong, and nothing recorded."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.bank import Bank
from tests.http.test_commands import head
from tests.integration.broker import LIMIT_SECONDS

JSON = {"Content-Type": "application/json"}
BODY_BYTES_MAX = 64 * 1024
BATCH_BYTES_MAX = 16 * 1024 * 1024
BODIES_BYTES_MAX = 128 * 1024 * 1024
NOT_AMOUNTS = ["5", "", 1.0, 1.5, True, False, None, [], {}, [5], 2**63, -(2**63) - 1, 10**30]
NOT_NAMES = ["", "x" * 201, "a\0b", 5, True, None, ["Alice"], {"first": "Alice"}]
NOT_IDS = ["", "a" * 65, "a b", "ä", "a/b", "a%b", "a\n", 5, True, []]


@pytest.fixture(autouse=True)
async def nothing_is_recorded(bank: Bank) -> AsyncIterator[None]:
    before = await head(bank)
    yield
    assert await head(bank) == before


async def post(bank: Bank, path: str, body: object, headers: dict[str, str] = JSON) -> tuple[int, dict[str, Any]]:
    """Post JSON, or bytes as they are; asserts that the answer is a problem document of its status."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with bank.http.post(bank.command.url + path, data=io.BytesIO(data), headers=headers) as response:
        answer = await response.json(content_type="application/problem+json")
    assert answer["status"] == response.status
    assert {"type", "title", "detail"} <= answer.keys()
    return response.status, answer


def assert_names(answer: tuple[int, dict[str, Any]], field: str) -> None:
    status, problem = answer
    assert (status, problem["type"]) == (422, "urn:counting-house:problem:invalid-request")
    assert field in [error["field"] for error in problem["errors"]]
    assert field in problem["detail"]


@pytest.mark.parametrize("amount", NOT_AMOUNTS, ids=repr)
@pytest.mark.parametrize("command", ["deposit", "withdraw", "transfer", "hold"])
async def test_an_amount_is_an_integer_of_64_bits(bank: Bank, command: str, amount: object) -> None:
    to = {"to": "other"} if command == "transfer" else {}
    assert_names(await post(bank, f"/account/{command}/malformed", {"amount": amount, **to}), "amount")


@pytest.mark.parametrize("amount", [b"1e2", b"NaN", b"Infinity", b"-0.0", b"01", b"0x10", b"9" * 5000])
async def test_an_amount_that_json_or_python_would_take_is_no_integer_either(bank: Bank, amount: bytes) -> None:
    status, _ = await post(bank, "/account/deposit/malformed", b'{"amount": ' + amount + b"}")
    assert status == 422


@pytest.mark.parametrize("name", NOT_NAMES, ids=lambda name: repr(name)[:20])
@pytest.mark.parametrize("path", ["/account", "/account/malformed"])
async def test_a_name_is_text_of_1_to_200_characters(bank: Bank, path: str, name: object) -> None:
    assert_names(await post(bank, path, {"name": name}), "name")


@pytest.mark.parametrize("description", [5, None, True, [], "x" * 1001, "a\0b"], ids=lambda text: repr(text)[:20])
async def test_a_description_is_text_of_at_most_1000_characters(bank: Bank, description: object) -> None:
    body = {"amount": 1, "description": description}
    assert_names(await post(bank, "/account/deposit/malformed", body), "description")


NOT_METADATA = [
    *(None, [], "x", 5, True, [["a", "b"]], {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": {"b": "c"}}),
    *({"k" * 65: "v"}, {"k": "v" * 201}, {"a": "b", "c": "v" * 201}, {"\0": "v"}, {str(n): "v" for n in range(21)}),
]
NOT_VERSIONS = [-1, 2**63, 10**30, 1.0, 1.5, "1", "", None, True, [], {}]
COMMANDS: list[tuple[str, str, dict[str, object]]] = [
    ("create-account", "/account/malformed", {"name": "Alice"}),
    ("create-account", "/account", {"name": "Alice"}),
    ("deposit", "/account/deposit/malformed", {"amount": 1}),
    ("withdraw", "/account/withdraw/malformed", {"amount": 1}),
    ("transfer", "/account/transfer/malformed", {"amount": 1, "to": "other"}),
    ("set-overdraft-limit", "/account/overdraft/malformed", {"limit": 1}),
    ("freeze", "/account/freeze/malformed", {}),
    ("unfreeze", "/account/unfreeze/malformed", {}),
    ("close", "/account/close/malformed", {}),
]


@pytest.mark.parametrize("metadata", NOT_METADATA, ids=lambda metadata: repr(metadata)[:20])
async def test_metadata_are_up_to_20_short_texts_by_short_keys(bank: Bank, metadata: object) -> None:
    for command, path, body in COMMANDS:
        asked = {**body, "metadata": metadata}
        assert_names(await post(bank, path, asked), "metadata")
        items = [{"type": command, "account_id": "malformed", **one} for one in (body, asked)]
        assert_names(await post(bank, "/commands", items), "1.metadata")


async def test_metadata_with_the_character_u_0000_are_named_by_their_key(bank: Bank) -> None:
    body = {"amount": 1, "metadata": {"a": "b", "c": "\0"}}
    assert_names(await post(bank, "/account/deposit/malformed", body), "metadata.c")


@pytest.mark.parametrize(
    "pair", [b'"\\ud800": "v"', b'"k": "\\ud800"', b'"k": "\\udc00x"', b'"k\xff": "v"', b'1: "v"', b'"k"']
)
async def test_metadata_that_are_no_text_are_refused(bank: Bank, pair: bytes) -> None:
    body = b'{"amount": 1, "metadata": {%s}}' % pair
    assert_names(await post(bank, "/account/deposit/malformed", body), "body")


@pytest.mark.parametrize("version", NOT_VERSIONS, ids=repr)
async def test_a_version_is_an_integer_of_0_or_more(bank: Bank, version: object) -> None:
    for command, path, body in COMMANDS:
        asked = {**body, "if_version": version}
        assert_names(await post(bank, path, asked), "if_version")
        items = [{"type": command, "account_id": "malformed", **one} for one in (body, asked)]
        assert_names(await post(bank, "/commands", items), "1.if_version")


@pytest.mark.parametrize(
    "query",
    [
        *(
            "atomic",
            "atomic=",
            "atomic=maybe",
            "atomic=True",
            "atomic=1",
            "atomic=true%00",
            "atomic=null",
            "%61tomic=yes",
        ),
        *("atomic=true&atomic=true", "atomic=true&atomic=false", "atomic=false&atomic", "atomic=truefalse"),
    ],
)
async def test_atomic_is_true_or_false_and_there_once(bank: Bank, query: str) -> None:
    assert_names(await post(bank, f"/commands?{query}", [{"type": "create-account", "name": "Alice"}]), "atomic")


@pytest.mark.parametrize("name", ["Atomic", "atomics", "x" * 4000])
async def test_a_parameter_that_a_batch_does_not_know_is_named(bank: Bank, name: str) -> None:
    batch = [{"type": "create-account", "name": "Alice"}]
    assert_names(await post(bank, f"/commands?atomic=true&{name}=true", batch), name[:200])


@pytest.mark.parametrize("name", ["atomic", "amount", "dry_run"])
async def test_a_command_alone_takes_no_parameters(bank: Bank, name: str) -> None:
    assert_names(await post(bank, f"/account?{name}=true", {"name": "Alice"}), name)
    assert_names(await post(bank, f"/account/deposit/malformed?{name}=true", {"amount": 1}), name)


@pytest.mark.parametrize("account_id", NOT_IDS, ids=repr)
async def test_an_id_in_a_body_is_of_the_contracts_alphabet(bank: Bank, account_id: object) -> None:
    assert_names(await post(bank, "/account", {"name": "Alice", "id": account_id}), "id")
    status, problem = await post(bank, "/commands", [{"type": "deposit", "account_id": account_id, "amount": 1}])
    assert (status, problem["errors"][0]["field"]) == (422, "0.account_id")
    assert_names(await post(bank, "/account/transfer/malformed", {"to": account_id, "amount": 1}), "to")
    good = {"type": "transfer", "account_id": "malformed", "to": "other", "amount": 1}
    assert_names(await post(bank, "/commands", [good, {**good, "to": account_id}]), "1.to")
    assert_names(await post(bank, "/account/capture/malformed", {"hold_id": "h", "to": account_id}), "to")
    good = {"type": "capture", "account_id": "malformed", "hold_id": "h", "to": "other"}
    assert_names(await post(bank, "/commands", [good, {**good, "to": account_id}]), "1.to")


@pytest.mark.parametrize("hold_id", NOT_IDS, ids=repr)
async def test_a_holds_id_is_of_the_same_alphabet(bank: Bank, hold_id: object) -> None:
    for command, more in ("hold", {"amount": 1}), ("capture", {}), ("release", {}):
        assert_names(await post(bank, f"/account/{command}/malformed", {"hold_id": hold_id, **more}), "hold_id")
        good = {"type": command, "account_id": "malformed", "hold_id": "h", **more}
        assert_names(await post(bank, "/commands", [good, {**good, "hold_id": hold_id}]), "1.hold_id")


@pytest.mark.parametrize(
    "expires_at",
    [
        "",
        "tomorrow",
        "2999-01-01",
        "2999-01-01T00:00:00",
        "2999-01-01T00:00Z",
        "2999-01-01T00:00:00.Z",
        "2999-02-30T00:00:00Z",
        "2999-01-01T24:00:00Z",
        "2999-01-01T00:00:00+24:00",
        "29990101T000000Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "10000-01-01T00:00:00Z",
        "2999-01-01T00:00:00" + "." + "0" * 30 + "Z",
        "2999-01-01T00:00:00Z\0",
        "२९९९-01-01T00:00:00Z",
        32472144000,
        True,
        [],
    ],
    ids=repr,
)
async def test_an_expiry_is_a_time_with_its_offset(bank: Bank, expires_at: object) -> None:
    body = {"amount": 1, "expires_at": expires_at}
    assert_names(await post(bank, "/account/hold/malformed", body), "expires_at")
    good = {"type": "hold", "account_id": "malformed", "amount": 1}
    assert_names(await post(bank, "/commands", [good, {**good, "expires_at": expires_at}]), "1.expires_at")


@pytest.mark.parametrize("account_id", ["a" * 65, "a b", "ä", "a%25b", "a%00", "a%0A", "a,b", "*"])
@pytest.mark.parametrize(
    "path",
    [
        "/account/{}",
        "/account/deposit/{}",
        "/account/withdraw/{}",
        "/account/transfer/{}",
        "/account/hold/{}",
        "/account/capture/{}",
        "/account/release/{}",
    ],
)
async def test_an_id_in_a_path_is_of_the_contracts_alphabet(bank: Bank, path: str, account_id: str) -> None:
    body = (
        {"name": "Alice"}
        if path == "/account/{}"
        else {"amount": 1, "to": "bob"}
        if "transfer" in path
        else {"hold_id": "h"}
        if "capture" in path or "release" in path
        else {"amount": 1}
    )
    assert_names(await post(bank, path.format(account_id), body), "account_id")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/account", {}, "name"),
        ("/account/malformed", {}, "name"),
        ("/account/deposit/malformed", {"description": "x"}, "amount"),
        ("/account/withdraw/malformed", {}, "amount"),
        ("/account/transfer/malformed", {"amount": 1}, "to"),
        ("/account/transfer/malformed", {"to": "bob"}, "amount"),
        ("/account/deposit/malformed", {"amount": 1, "to": "bob"}, "to"),
        ("/account/hold/malformed", {}, "amount"),
        ("/account/hold/malformed", {"amount": 1, "to": "bob"}, "to"),
        ("/account/hold/malformed", {"amount": 1, "description": 5}, "description"),
        ("/account/capture/malformed", {}, "hold_id"),
        ("/account/capture/malformed", {"hold_id": "h", "amount": "1"}, "amount"),
        ("/account/capture/malformed", {"hold_id": "h", "amount": 2**63}, "amount"),
        ("/account/capture/malformed", {"hold_id": "h", "description": "x"}, "description"),
        ("/account/capture/malformed", {"hold_id": "h", "to": 5}, "to"),
        ("/account/release/malformed", {}, "hold_id"),
        ("/account/release/malformed", {"hold_id": "h", "amount": 1}, "amount"),
        ("/account/overdraft/malformed", {}, "limit"),
        ("/account/overdraft/malformed", {"limit": -1}, "limit"),
        ("/account/overdraft/malformed", {"limit": 2**63}, "limit"),
        ("/account/overdraft/malformed", {"limit": "5"}, "limit"),
        ("/account/freeze/malformed", {"description": 5}, "description"),
        ("/account/unfreeze/malformed", {"reason": "x"}, "reason"),
        ("/account/close/malformed", {"to": "bob"}, "to"),
        ("/account/malformed", {"name": "Alice", "id": "bob"}, "id"),
        ("/account/malformed", {"name": "Alice", "asset": "eur/2"}, "asset"),
        ("/account", {"name": "Alice", "asset": "EUR"}, "asset"),
        ("/account", {"name": "Alice", "asset": "EUR/2\n"}, "asset"),
        ("/account", {"name": "Alice", "asset": ""}, "asset"),
        ("/account", {"name": "Alice", "asset": 2}, "asset"),
        ("/account/deposit/malformed", {"amount": 1, "asset": "EUR/2"}, "asset"),
        ("/commands", [{"type": "create-account", "name": "x", "asset": "EUR/200"}], "0.asset"),
        ("/commands", [{"type": "create-account", "name": "x", "asset": "EUR/02"}], "0.asset"),
        ("/account/deposit/malformed", {"amount": 1, "currency": "EUR"}, "currency"),
        ("/account/deposit/malformed", {"amount": 1, "Description": "x"}, "Description"),
        ("/commands", [{"account_id": "a", "amount": 1}], "0.type"),
        ("/commands", [{"type": "reverse", "account_id": "a", "amount": 1}], "0.type"),
        ("/commands", [{"type": "transfer", "account_id": "a", "amount": 1}], "0.to"),
        ("/commands", [{"type": "deposit", "amount": 1}], "0.account_id"),
        ("/commands", [{"type": "hold", "account_id": "a"}], "0.amount"),
        ("/commands", [{"type": "capture", "account_id": "a"}], "0.hold_id"),
        ("/commands", [{"type": "release", "account_id": "a"}], "0.hold_id"),
        ("/commands", [{"type": "ExpireHold", "account_id": "a", "hold_id": "h"}], "0.type"),
        ("/commands", [{"type": "expire-hold", "account_id": "a", "hold_id": "h"}], "0.type"),
        ("/commands", [{"type": "deposit", "account_id": "a", "amount": 1}, 5], "1"),
        (
            "/commands",
            [{"type": "create-account", "name": "x"}, {"type": "withdraw", "account_id": "a", "amount": "1"}],
            "1.amount",
        ),
        ("/commands", {"type": "deposit", "account_id": "a", "amount": 1}, "body"),
        ("/commands", [{"type": "deposit", "account_id": "a", "amount": 1}] * 10_001, "body"),
    ],
)
async def test_a_missing_unknown_or_misplaced_field_is_named(bank: Bank, path: str, body: object, field: str) -> None:
    assert_names(await post(bank, path, body), field)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"name=Alice", b"null", b"5", b'"Alice"', b"[]", b'{"name": "al\xffce"}', b'{"name": "\\ud800"}'],
)
async def test_a_body_that_is_no_json_object_is_refused(bank: Bank, body: bytes) -> None:
    assert (await post(bank, "/account", body))[0] == 422


@pytest.mark.parametrize("text", [b"\\ud800", b"\\uDBFF", b"\\udc00", b"\\ud800\\u0041", b"\\ud800x", b"\\ud800" * 2])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/account", b'{"name": "%b"}'),
        ("/account", b'{"name": "%b", "id": "longer-than-a-pair"}'),
        ("/account/deposit/malformed", b'{"amount": 1, "description": "%b"}'),
        ("/commands", b'[{"type": "create-account", "name": "%b"}]'),
        ("/commands", b'[{"type": "create-account", "name": "%b"}, {"type": "create-account", "name": "x"}]'),
    ],
)
async def test_half_a_surrogate_pair_is_called_so(bank: Bank, path: str, body: bytes, text: bytes) -> None:
    answer = await post(bank, path, body % text)
    assert_names(answer, "body")
    assert "surrogate pair" in answer[1]["detail"]


@pytest.mark.parametrize(
    "body", [b"", b'{"name": "x', b'{"name": "\\\\ud800"', b'{"name": "\\ud800\\udc00"', b'{"name":' + b" " * 9]
)
async def test_a_body_that_is_cut_off_is_called_so(bank: Bank, body: bytes) -> None:
    answer = await post(bank, "/account", body)
    assert_names(answer, "body")
    assert "truncated" in answer[1]["detail"]


DEEP = b"[" * 5_000 + b"]" * 5_000
NOT_UTF_8 = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\x80"]


@pytest.mark.parametrize("body", [b"[" * 60_000, b'{"a":' * 10_000, DEEP, b'{"name": %s}' % DEEP, b'{"x": %s}' % DEEP])
@pytest.mark.parametrize("path", ["/account", "/account/malformed", "/account/deposit/malformed", "/commands"])
async def test_deeply_nested_json_is_refused(bank: Bank, path: str, body: bytes) -> None:
    assert (await post(bank, path, body))[0] == 422


@pytest.mark.parametrize("value", [DEEP, b'{"x": %s}' % DEEP])
async def test_deep_nesting_before_the_type_of_a_command_is_refused(bank: Bank, value: bytes) -> None:
    assert (await post(bank, "/commands", b'[{"x": %s, "type": "deposit"}]' % value))[0] == 422


@pytest.mark.parametrize("text", NOT_UTF_8)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/account", b'{"name": "%s"}'),
        ("/account", b'{"name": "x", "%s": 1}'),
        ("/account/deposit/malformed", b'{"amount": 1, "description": "%s"}'),
        ("/account/withdraw/malformed", b'{"amount": 1, "description": "\xc3\xa4%s"}'),
        ("/commands", b'[{"type": "deposit", "account_id": "%s", "amount": 1}]'),
        ("/commands", b'[{"type": "%s", "account_id": "a", "amount": 1}]'),
    ],
)
async def test_text_that_is_no_utf_8_is_refused(bank: Bank, path: str, body: bytes, text: bytes) -> None:
    status, problem = await post(bank, path, body % text)
    assert (status, [error["field"] for error in problem["errors"]]) == (422, ["body"])


async def test_a_great_many_faults_are_answered_with_the_first(bank: Bank) -> None:
    """Whatever a client sends too much of, it is told so in a few words."""
    for body in [
        b'[{"type":"deposit","account_id":"a","amount":1,%s}]' % b",".join(b'"%d":1' % n for n in range(1_000_000)),
        b"[%s]" % b",".join([b'{"x":1}'] * 1_000_000),
        b'[{"%s":1}]' % (b"x" * 10_000_000),
        b'[{"type":"%s"}]' % (b"x" * 10_000_000),
        b'[{"type":"create-account","name":"%s"}]' % (b"x" * 10_000_000),
        b'[{"type":"deposit","account_id":"a","amount":%s}]' % (b"9" * 10_000_000),
        b'[{"type":"deposit","account_id":"a","amount":0.%s}]' % (b"9" * 10_000_000),
    ]:
        status, problem = await post(bank, "/commands", body)
        assert (status, len(problem["errors"])) == (422, 1)
        assert len(problem["detail"]) < 1_000


@pytest.mark.parametrize(
    "content_type",
    [
        *(None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/x+json"),
        *(
            "application/+json",
            "application/ +json",
            "application/-+json",
            "application/a b+json",
            "application/json/+json",
        ),
    ],
)
@pytest.mark.parametrize("path", ["/account", "/account/malformed", "/account/deposit/malformed", "/commands"])
async def test_a_content_type_that_any_web_page_may_send_is_refused(
    bank: Bank, path: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    data = io.BytesIO(b'{"name": "A"}')
    url = bank.command.url + path
    async with bank.http.post(url, data=data, headers=headers, skip_auto_headers=["Content-Type"]) as response:
        answer = await response.json(content_type="application/problem+json")
    assert (response.status, answer["type"]) == (415, "urn:counting-house:problem:unsupported-media-type")
    assert "Content-Type" in answer["detail"]


@pytest.mark.parametrize(("path", "bytes_max"), [("/account", BODY_BYTES_MAX), ("/commands", BATCH_BYTES_MAX)])
async def test_a_body_over_its_limit_is_413(bank: Bank, path: str, bytes_max: int) -> None:
    status, problem = await post(bank, path, b" " * (bytes_max + 1))
    assert (status, problem["type"]) == (413, "urn:counting-house:problem:body-too-large")
    assert str(bytes_max) in problem["detail"]
    assert (await post(bank, path, b" " * bytes_max))[0] == 422


async def test_a_chunked_body_over_its_limit_is_413_too(bank: Bank) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * (BODY_BYTES_MAX // 2)

    async with bank.http.post(f"{bank.command.url}/account", data=chunks(), headers=JSON) as response:
        assert response.status == 413


@pytest.mark.parametrize("key", ["a b", '"', '""', '"unclosed', "k" * 256, "ä", '"a"b"'])
async def test_an_idempotency_key_is_1_to_255_visible_characters(bank: Bank, key: str) -> None:
    headers = {**JSON, "Idempotency-Key": key}
    assert_names(await post(bank, "/account/deposit/malformed", {"amount": 1}, headers), "Idempotency-Key")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=-1", "after"),
        ("after=x", "after"),
        (f"after={2**63}", "after"),
        ("limit=-1", "limit"),
        ("limit=10001", "limit"),
        ("wait=-1", "wait"),
        ("wait=61", "wait"),
        ("wait=nan", "wait"),
    ],
)
async def test_a_parameter_of_the_feed_outside_its_limits_is_named(bank: Bank, query: str, field: str) -> None:
    async with bank.http.get(f"{bank.command.url}/events?{query}") as response:
        assert_names((response.status, await response.json(content_type="application/problem+json")), field)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/account/a/b/c", 404),
        ("GET", "/nothing", 404),
        ("POST", "/account/deposit/a/b", 404),
        ("GET", "/account", 405),
        ("DELETE", "/account/alice", 405),
        ("PUT", "/commands", 405),
        ("POST", "/events", 405),
    ],
)
async def test_an_unknown_path_or_method_is_a_problem_too(bank: Bank, method: str, path: str, status: int) -> None:
    async with bank.http.request(method, bank.command.url + path) as response:
        answer = await response.json(content_type="application/problem+json")
    assert (response.status, answer["status"]) == (status, status)
    if status == 405:
        assert response.headers["Allow"]


async def test_one_malformed_command_keeps_its_whole_batch_out(bank: Bank, account_id: str) -> None:
    batch = [{"type": "create-account", "account_id": account_id, "name": "Alice"}, {"type": "deposit"}]
    assert (await post(bank, "/commands", batch))[0] == 422


async def test_a_client_that_goes_away_in_the_middle_of_its_request_leaves_nothing(bank: Bank) -> None:
    host, port = "127.0.0.1", bank.command.port
    timeout = aiohttp.ClientTimeout(total=10)
    head = b"POST /account/gone HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for sent in [
        head + b"Content-Length: 16\r\n\r\n{",
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"POST /account/gone HTTP",
        b"\x16\x03\x01 no HTTP at all\r\n\r\n",
    ]:
        _, writer = await asyncio.open_connection(host, port)
        writer.write(sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with bank.http.get(f"{bank.command.url}/livez", timeout=timeout) as response:
            assert response.status == 200


async def test_clients_that_send_large_bodies_slowly_do_not_fill_the_memory(bank: Bank) -> None:
    """Those that began first make room for the others: whoever comes to an end is heard."""
    async with AsyncExitStack() as stack:
        answers = []
        for number in range(BODIES_BYTES_MAX // BATCH_BYTES_MAX + 3):
            path = "/commands" + "/" * (number % 2)
            reader, writer = await begin_a_large_batch(bank, stack, path)
            answers.append(asyncio.create_task(reader.readline()))
            stack.callback(answers[-1].cancel)
            await writer.drain()
            assert (await post(bank, "/commands", b" " * BATCH_BYTES_MAX))[0] == 422
        done, waiting = await asyncio.wait(answers, timeout=LIMIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        assert [answer.result().split()[1] for answer in done] == [b"503"] * len(done)
        assert answers[0] in done
        assert waiting


async def begin_a_large_batch(
    bank: Bank, stack: AsyncExitStack, path: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """All but its last byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", bank.command.port)
    stack.callback(writer.close)
    headers = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {BATCH_BYTES_MAX}\r\n\r\n"
    writer.write(f"POST {path} HTTP/1.1\r\n{headers}".encode() + b" " * (BATCH_BYTES_MAX - 1))
    return reader, writer


@pytest.mark.parametrize("service", ["command", "projection"])
async def test_a_parameter_that_comes_twice_is_refused_wherever_it_may_come_once(bank: Bank, service: str) -> None:
    """Of each query that the service documents: no reader of it should believe the first one, and another the last."""
    url = getattr(bank, service).url
    asked = []
    for place, parameters in await documented(bank, url):
        for parameter in parameters:
            name = parameter["name"]
            asked.append(f"{place} {name}")
            for values in ("{0}=1&{0}=1", "{0}=&{0}=2", "{0}=1&{0}=1&x=1&{0}=1"):
                async with bank.http.get(f"{url}{place}?{values.format(name)}") as response:
                    problem = await response.json(content_type="application/problem+json")
                assert_names((response.status, problem), name)
                assert "sent twice" in problem["detail"]
    assert {"command": "/events limit", "projection": "/stream after"}[service] in asked
    assert len(asked) > 2


@pytest.mark.parametrize("service", ["command", "projection"])
async def test_a_parameter_that_a_query_does_not_know_is_named(bank: Bank, service: str) -> None:
    """Who has misspelt `at_position` would take the present for the past."""
    url = getattr(bank, service).url
    refused = 0
    for place, _ in await documented(bank, url):
        async with bank.http.get(f"{url}{place}?at_positions=1") as response:
            problem = await response.json(content_type="application/problem+json")
        assert_names((response.status, problem), "at_positions")
        refused += 1
    assert refused > {"command": 0, "projection": 8}[service]
    many = "&".join(f"{number:x}" for number in range(10_000))
    async with bank.http.get(f"{url}/{'events' if service == 'command' else 'accounts'}?{many}") as response:
        assert (response.status, len((await response.json(content_type=None))["errors"])) == (422, 10)


@pytest.mark.parametrize("service", ["command", "projection"])
@pytest.mark.parametrize("value", ["1_0", "%2B1", "+1", "1+", "%D9%A3", "1e1", "0x1", "NaN", "01", "1.", ""])
async def test_a_number_in_a_query_is_written_in_digits(bank: Bank, service: str, value: str) -> None:
    """pydantic reads `1_0` as 10, as Python does."""
    url = getattr(bank, service).url
    numbers = [
        (place, parameter["name"])
        for place, parameters in await documented(bank, url)
        for parameter in parameters
        if {"integer", "number"} & {one.get("type") for one in parameter["schema"].get("anyOf", [parameter["schema"]])}
    ]
    for place, name in numbers:
        async with bank.http.get(f"{url}{place}?{name}={value}") as response:
            problem = await response.json(content_type="application/problem+json")
        assert_names((response.status, problem), name)
    assert len(numbers) > {"command": 2, "projection": 20}[service]


@pytest.mark.parametrize("value", ["1_0", "+5", "05", "5.0", "-0"])
async def test_a_position_in_a_path_or_a_header_is_written_in_digits_too(bank: Bank, value: str) -> None:
    url = bank.projection.url
    async with bank.http.get(URL(f"{url}/events/{value}", encoded=True)) as response:
        assert_names((response.status, await response.json(content_type=None)), "position")
    async with bank.http.get(f"{url}/stream", headers={"Last-Event-ID": value}) as response:
        assert_names((response.status, await response.json(content_type=None)), "last-event-id")


async def documented(bank: Bank, url: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """Each query that a service documents parameters of, with them."""
    async with bank.http.get(f"{url}/openapi.json") as response:
        paths = (await response.json())["paths"]
    queries = []
    for path, operations in paths.items():
        parameters = [one for one in operations.get("get", {}).get("parameters", []) if one["in"] == "query"]
        if parameters:
            queries.append((path.format(account_id="alice", position=1), parameters))
    return queries
