-- One deposit a request, to accounts at random; with DELAY_MS in the environment, each connection rests so long after it.
local accounts = tonumber(os.getenv("ACCOUNTS"))
local delay_ms = tonumber(os.getenv("DELAY_MS"))
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"amount": 100, "description": "Found sunken treasure"}'

function request()
    return wrk.format(nil, "/account/deposit/account-" .. math.random(0, accounts - 1))
end

if delay_ms then
    function delay()
        return delay_ms
    end
end
