"""Good requests for every endpoint of both services, and what becomes of them. Number and seed make a request."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

from tests.fuzz.mutation import LOOSE, MARKER, Json, encode, mutate, mutate_bytes

ACCOUNTS = [f"fuzz-{number}" for number in range(32)]
ASSETS = ["USD/2", "USD/2", "EUR/2", "A/0", "LONGESTCODE12345/99"]
TIMES = ["0001", "2020-02-29", "2026-10", "2026-11-01T12:00:00Z", "9999-12-31"]
WAIT_SECONDS_MAX = 0.05
"""What a good request asks for: the fuzz is not to wait for its own long polls."""

ServiceName = Literal["command", "projection"]
SERVICES: Sequence[ServiceName] = ("command", "projection")
Header = tuple[bytes, bytes]

JSON = (b"Content-Type", b"application/json")
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
METHODS = (
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"PATCH",
    b"OPTIONS",
    b"TRACE",
    b"QUERY",
    b"post",
    b"G\x00T",
    b"PRI",
)
VERSIONS = (b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.1 ", b"http/1.1", b"", b"HTTP/11", b"ICY/1.1")
CONTENT_TYPES = (
    *(b"application/json; charset=utf-8", b"Application/JSON", b"application/json;", b"application/problem+json"),
    *(b"application/json; charset=utf-16", b"text/plain", b"text/json", b"", b"application/x-www-form-urlencoded"),
    *(b"multipart/form-data; boundary=x", b"application/json, text/plain", b"text/plain, application/json", b"*/*"),
    *(
        b"text/plain+json",
        b"application/+json",
        b"application/xml;+json",
        b"application/json\x80",
        b"application/ json",
        b"application/jsonx",
    ),
)
HOSTS = (
    *(b"localhost", b"127.0.0.1:1", b"[::1]", b"LOCALHOST.", b"evil.example", b"", b"127.0.0.1.evil.example", b"a b"),
    *(b"127.0.0.1@evil.example", b"evil.example#127.0.0.1", b"127.0.0.1:x", b"[::1", b"\xff", b"x" * 300, b"0x7f.1"),
)
ORIGINS = (
    b"null",
    b"http://127.0.0.1",
    b"https://evil.example",
    b"",
    b"http://127.0.0.1.evil.example",
    b"\xff",
    b"http://[",
    b"127.0.0.1",
    b"file:///127.0.0.1",
    b"http://x//127.0.0.1",
)
SITES = (b"cross-site", b"same-origin", b"none", b"", b"Cross-Site", b"same-site, cross-site")
KEYS = (
    *(
        b"key",
        b'"quoted"',
        b"k" * 255,
        b"k" * 256,
        b"",
        b" ",
        b'"',
        b'""',
        b'"a"b"',
        b"a b",
        b"\xff",
        b"\xc3\xa4",
        b"a,b",
    ),
    *(b"\x01", b"a\tb", b'"a\\"', b"k" * 5000, b"'; DROP TABLE keys; --"),
)
TRACES = (TRACE, TRACE.upper(), b"00-0-0-0", b"", b"\xff", TRACE + b"-extra", b"ff" + TRACE[2:], b"0" * 5000)
LENGTHS = (b"0", b"1", b"-1", b"+5", b"5, 5", b"5 ", b"0x5", b"1e3", b"", b"9" * 40, b"18446744073709551617", b"00005")
CODINGS = (b"chunked, gzip", b"gzip", b"identity", b"chunked, chunked", b"Chunked", b"xchunked", b"", b"\x0bchunked")
EXPECTATIONS = (b"100-continue", b"100-Continue", b"200-ok", b"")
UPGRADES = (b"websocket", b"h2c", b"TLS/1.0", b"")
SAMPLES: Sequence[tuple[bytes, Sequence[bytes]]] = (
    (b"Content-Type", CONTENT_TYPES),
    (b"Host", HOSTS),
    (b"Origin", ORIGINS),
    (b"Sec-Fetch-Site", SITES),
    (b"Idempotency-Key", KEYS),
    (b"traceparent", TRACES),
    (b"Expect", EXPECTATIONS),
    (b"Upgrade", UPGRADES),
    (b"Connection", (b"close", b"keep-alive, Upgrade", b"close, keep-alive", b"Host", b"")),
    (b"Accept", (b"*/*", b"text/html", b"\xff", b"a" * 5000)),
    (b"Accept-Encoding", (b"gzip", b"identity;q=0", b"br, \xff")),
    (b"X-Forwarded-For", (b"203.0.113.9", b"\xff", b"a" * 5000)),
    (b"X-HTTP-Method-Override", (b"DELETE",)),
    (b"X" * 300, (b"long",)),
    (b"bad name", (b"1",)),
    (b"", (b"no name",)),
    (b"x\x00y", (b"a\x00b",)),
    (b"X-Long", (b"a" * 70_000, b"a" * 20_000)),
)
VALUES = (
    *("0", "1", "-1", "x", "", "%00", "%ff", "1.5", "1e2", "NaN", "inf", "-0", "+1", "1_0", "9" * 19, str(2**63 - 1)),
    *(str(2**63), "9" * 5000, "%EF%BC%91", " 1", "1%0A", "0x1", "true", "[]"),
)
SEGMENTS = (
    *(
        "%00",
        "%2F",
        "%2e%2e",
        "..",
        "%ff",
        "%",
        "%zz",
        "a%20b",
        "%C3%A4",
        "a" * 65,
        "a" * 5000,
        "%0d%0aX:1",
        "",
        "*",
        "a;b",
    ),
    *("%66uzz-1", "deposit", "events", "%E2%80%AE", "{id}", "<script>", "null", "\u00e4", "a\tb", MARKER),
)


@dataclass(frozen=True)
class Request:
    """`is_vague` when it may be no request, or several; `waits` when it asks the server to wait.

    `framing` says how the end of the body is told. `raw`, when it is there, is sent in place of all the rest.
    """

    service: ServiceName
    method: bytes
    target: bytes
    headers: tuple[Header, ...] = ((b"Host", b"127.0.0.1"),)
    body: bytes | None = None
    version: bytes = b"HTTP/1.1"
    framing: Literal["length", "chunked", "none"] = "length"
    raw: bytes | None = None
    is_vague: bool = False
    answers_likely: int = 1

    def encode(self) -> bytes:
        if self.raw is not None:
            return self.raw
        headers, body = list(self.headers), self.body or b""
        if self.framing == "chunked":
            headers.append((b"Transfer-Encoding", b"chunked"))
            body = _chunks(body)
        elif self.framing == "length" and self.body is not None:
            headers.append((b"Content-Length", b"%d" % len(body)))
        lines = [
            b" ".join([self.method, self.target, self.version]),
            *(name + b": " + value for name, value in headers),
        ]
        return b"\r\n".join([*lines, b"", b""]) + body

    @property
    def waits(self) -> bool:
        return any(word in self.encode()[:10_000] for word in (b"wait", b"_position"))

    @property
    def has_key(self) -> bool:
        return b"idempotency-key" in self.encode()[:500_000].lower()


@dataclass
class Draft:
    """A good request whose parts may still be changed."""

    service: ServiceName
    method: str
    path: list[str]
    body: Json = None
    query: dict[str, str] = field(default_factory=dict)


def _chunks(body: bytes) -> bytes:
    """In three parts, with an extension, and with a trailer after them."""
    third = len(body) // 3 + 1
    parts = [body[start : start + third] for start in range(0, len(body), third)]
    return b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nX-Trailer: 1\r\n\r\n"


def draft(random: Random) -> Draft:
    """A good request, to any endpoint."""
    account = random.choice(ACCOUNTS)
    if random.random() < 0.6:
        return _command(random, account)
    if random.random() < 0.4:
        query = {"after": str(random.randrange(2000)), "limit": str(random.randint(1, 20))}
        if random.random() < 0.3:
            query["wait"] = str(WAIT_SECONDS_MAX)
        path = ["events"]
        return Draft("command", "GET", path, query=query)
    service = random.choice(SERVICES)
    if random.random() < 0.4:
        of_both = [["readyz"], ["livez"], ["metrics"], ["docs"], ["openapi.json"], [""]]
        of_projections = [["pipeline"], ["dashboard", "app.js"]]
        path = random.choice([*of_both, *of_projections])
        return Draft("projection" if path in of_projections else service, "GET", path)
    query = (
        {"min_position": str(random.choice([0, 1, 10])), "wait": str(WAIT_SECONDS_MAX)} if random.random() < 0.5 else {}
    )
    parts: list[list[str]] = [[], ["events"], ["holds"], ["statement"], ["balances"]]
    account_paths = [["account", account, *rest] for rest in parts]
    reserve_paths = [["reserve"], ["reserves"], ["reserve", "history"]]
    event_path = ["events", str(random.randrange(1, 2000))]
    path = random.choice([*account_paths, *reserve_paths, ["accounts"], event_path])
    if path == ["accounts"]:
        query |= {"asset": random.choice(ASSETS), "limit": str(random.randint(1, 3))}
        query |= {"sort": random.choice(["name", "balance", "last_updated"]), "order": random.choice(["asc", "desc"])}
    if path[0] == "reserve" and random.random() < 0.7:
        query["asset"] = random.choice(ASSETS)
    if path in (account_paths[0], account_paths[2], ["reserve"], ["reserves"]) and random.random() < 0.3:
        query |= random.choice([{"at_position": str(random.randrange(2000))}, {"as_of": "2026-01-01T00:00:00Z"}])
    if path[-1] in ("statement", "balances", "history"):
        query |= {name: random.choice(TIMES) for name in ("from", "to") if random.random() < 0.3}
    if path[-1] == "statement":
        query |= {"order": random.choice(["newest", "oldest"]), "limit": str(random.randint(1, 20))}
        query |= {"rejections": "true"} if random.random() < 0.5 else {}
    if path == ["reserves"]:
        query |= {"after": random.choice(["", *ASSETS]), "limit": str(random.randint(1, 3))}
    return Draft("projection", "GET", path, query=query)


STATUS_PATHS = ["freeze", "unfreeze", "close"]
HOLD_PATHS = ["hold", "capture", "release"]


def _money(random: Random) -> dict[str, Json]:
    body: dict[str, Json] = {"amount": random.choice([1, 5, 100, 10_000, 0, -5, 2**62])}
    if random.random() < 0.7:
        body["description"] = random.choice(["Salary", "", "Zoë 🏦", MARKER, "a" * 1000])
    return body


def _beside(random: Random) -> dict[str, Json]:
    """What any command may carry; most carry nothing."""
    body: dict[str, Json] = {}
    if random.random() < 0.1:
        body["if_version"] = random.choice([0, 1, 5, 2**63 - 1])
    if random.random() < 0.2:
        key = random.choice(["invoice", "", "Zoë 🏦", MARKER, "k" * 64])
        body["metadata"] = {key: random.choice(["2026-117", "", MARKER, "🏦" * 200])}
    return body


def _of_a_hold(kind: str, random: Random) -> dict[str, Json]:
    body: dict[str, Json] = {"hold_id": random.choice(["h-1", "h-2", "h-3"])}
    if kind == "capture" and random.random() < 0.5:
        body |= {"amount": random.choice([1, 5, 100]), "to": random.choice(ACCOUNTS)}
    if kind == "hold":
        body |= _money(random)
        if random.random() < 0.5:
            body["expires_at"] = random.choice(["2020-01-01T00:00:00Z", "2999-12-31T23:59:59.999999+01:00"])
    return body


def _item(random: Random) -> dict[str, Json]:
    return {**_plain_item(random), **_beside(random)}


def _plain_item(random: Random) -> dict[str, Json]:
    kinds = ["deposit", "withdraw", "transfer", "create-account", *STATUS_PATHS, "set-overdraft-limit", *HOLD_PATHS]
    kind = random.choice(kinds)
    if kind in HOLD_PATHS:
        return {"type": kind, "account_id": random.choice(ACCOUNTS), **_of_a_hold(kind, random)}
    if kind == "set-overdraft-limit":
        return {"type": kind, "account_id": random.choice(ACCOUNTS), "limit": random.choice([0, 5, 2**63 - 1])}
    if kind in STATUS_PATHS:
        return {"type": kind, "account_id": random.choice(ACCOUNTS), "description": MARKER}
    if kind == "create-account":
        return {"type": kind, "account_id": random.choice(ACCOUNTS), "name": "Alice", "asset": random.choice(ASSETS)}
    if kind == "transfer":
        return {"type": kind, "account_id": random.choice(ACCOUNTS), "to": random.choice(ACCOUNTS), **_money(random)}
    return {"type": kind, "account_id": random.choice(ACCOUNTS), **_money(random)}


def _command(random: Random, account: str) -> Draft:
    match random.randrange(11):
        case 0:
            path: list[str] = ["account"]
            body: dict[str, Json] = {"name": "Alice", "id": account}
        case 1:
            path, body = ["account"], {"name": MARKER}
        case 2:
            path, body = ["account", account], {"name": "Zoë", "asset": random.choice(ASSETS)}
        case 3:
            query = random.choice([{}, {}, {"atomic": "true"}, {"atomic": "false"}])
            return Draft("command", "POST", ["commands"], [_item(random) for _ in range(random.randint(0, 5))], query)
        case 4:
            path, body = ["account", "transfer", account], {"to": random.choice(ACCOUNTS), **_money(random)}
        case 5:
            path, body = ["account", random.choice(STATUS_PATHS), account], {"description": "Zoë"}
        case 6 | 7:
            kind = random.choice(HOLD_PATHS)
            path, body = ["account", kind, account], _of_a_hold(kind, random)
        case 8:
            path, body = ["account", "overdraft", account], {"limit": random.choice([0, 5, 2**63 - 1])}
        case _:
            path, body = ["account", random.choice(["deposit", "withdraw"]), account], _money(random)
    return Draft("command", "POST", path, {**body, **_beside(random)})


def make(seed: int, number: int) -> Request:
    """The request of this number: the same for the same seed, whatever was asked before it."""
    random = Random(f"{seed}-{number}")
    good = draft(random)
    body = None if good.body is None else json.dumps(good.body).encode()
    kind = random.random()
    if kind < 0.2:
        pass
    elif kind < 0.55 and good.body is not None:
        changed = good.body
        for _ in range(random.choice([1, 1, 1, 2, 5])):
            changed = mutate(changed, random)
        body = encode(changed, random)
    elif kind < 0.7 and body is not None:
        for _ in range(random.choice([1, 1, 2, 8])):
            body = mutate_bytes(body, random)
    elif kind < 0.75:
        _mutate_target(good, random)
    path = "/" + "/".join(good.path) + ("/" if random.random() < 0.3 else "")
    query = "&".join(f"{name}={value}" for name, value in good.query.items())
    request = Request(
        good.service,
        good.method.encode(),
        (path + ("?" + query if query else "")).encode("utf-8"),
        _headers(random, body is not None),
        body,
        framing="chunked" if body is not None and random.random() < 0.1 else "length",
    )
    if kind < 0.75:
        # What is no token of a target is for the parser of HTTP to refuse, and may end the connection.
        return replace(
            request, is_vague=not request.target.isascii() or b" " in request.target or b"\t" in request.target
        )
    return _mutate_headers(request, random) if kind < 0.88 else _mutate_message(request, random)


def _headers(random: Random, has_body: bool) -> tuple[Header, ...]:
    headers: list[Header] = [(b"Host", b"127.0.0.1")]
    if has_body:
        headers.append(JSON)
    if random.random() < 0.1:
        headers.append((b"Authorization", b"Bearer " + MARKER.encode()))
        headers.append((b"Cookie", b"session=" + MARKER.encode()))
    if random.random() < 0.1:
        headers.append((b"Idempotency-Key", b"key-%d" % random.randrange(10_000)))
    if random.random() < 0.1:
        headers.append((b"traceparent", TRACE))
    return tuple(headers)


def _mutate_target(good: Draft, random: Random) -> None:
    choice = random.random()
    if good.query and choice < 0.5:
        # A wait is either as short as it was or none at all.
        name = random.choice(list(good.query))
        good.query[name] = random.choice(VALUES[2:] if name == "wait" else VALUES)
        if "min_position" in good.query and name != "wait":
            good.query["wait"] = "0"
    elif choice < 0.9:
        place = random.randrange(len(good.path))
        good.path[place] = random.choice(SEGMENTS)
    else:
        good.path.insert(random.randint(0, len(good.path)), random.choice(SEGMENTS))


def _mutate_headers(request: Request, random: Random) -> Request:
    """A header too much, too little, twice, or not as it should be."""
    headers = list(request.headers)
    place = random.randrange(len(headers))
    name, samples = random.choice(SAMPLES)
    match random.randrange(6):
        case 0:
            del headers[place]
        case 1:
            headers.insert(random.randint(0, len(headers)), headers[place])
        case 2:
            value = random.choice(samples)
            headers += [(name, value)] * (2 if len(name + value) > 100 else random.choice([2, 2, 50, 500]))
        case 3:
            headers[place] = (headers[place][0], mutate_bytes(headers[place][1], random))
        case 4:
            headers = [header for header in headers if header[0] != name] + [(name, random.choice(samples))]
        case _:
            headers.append((name, random.choice(samples)))
    is_vague = any(name in (b"Connection", b"Upgrade", b"Expect") for name, _ in headers) or not all(
        map(_is_whole, headers)
    )
    return replace(request, headers=tuple(headers), is_vague=is_vague)


def _is_whole(header: Header) -> bool:
    return b"\r" not in b"".join(header) and b"\n" not in b"".join(header)


def _mutate_message(request: Request, random: Random) -> Request:
    """What a parser of HTTP has to stumble over."""
    request = replace(request, is_vague=True)
    body = request.body or b""
    match random.randrange(11):
        case 0:
            return replace(request, raw=mutate_bytes(request.encode(), random))
        case 1:
            return replace(request, method=random.choice(METHODS))
        case 2:
            return replace(request, version=random.choice(VERSIONS))
        case 3:
            return replace(
                request, headers=(*request.headers, (b"Content-Length", random.choice(LENGTHS))), framing="none"
            )
        case 4:
            return replace(request, headers=(*request.headers, (b"Transfer-Encoding", random.choice(CODINGS))))
        case 5:
            size = b"%x" % max(0, len(body) + random.choice([-1, 1, 100, 2**40]))
            chunk = random.choice([size, b"-1", b"0x5", b"", b"G", b"f" * 20, b" 5", b"5 ;" + b"a" * 20_000])
            coded = (*request.headers, (b"Transfer-Encoding", b"chunked"))
            raw = replace(request, headers=coded, framing="none").encode()
            head = raw.split(b"\r\n\r\n")[0]
            return replace(request, raw=head + b"\r\n\r\n" + chunk + b"\r\n" + body + b"\r\n0\r\n\r\n")
        case 6:
            both = request.encode() + random.choice([b"\r\n", b""]) + request.encode()
            return replace(request, raw=both, answers_likely=2)
        case 7:
            line = random.choice(
                [b" folded", b"no colon", b"a : b", b"\xff: \xff", b"a:" + random.choice(LOOSE), b"\t"]
            )
            return replace(request, raw=request.encode().replace(b"\r\n", b"\r\n" + line + b"\r\n", 1))
        case _:
            targets = [
                b"*",
                b"http://evil.example/livez",
                b"//evil.example/livez",
                b"/livez#a",
                b"livez",
                b"/a b",
                b"",
                b"/" * 300,
            ]
            return replace(request, target=random.choice(targets))
