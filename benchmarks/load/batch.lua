-- 1000 deposits a request, to accounts at random.
local accounts = tonumber(os.getenv("ACCOUNTS"))
local commands = {}
wrk.method = "POST"
wrk.path = "/commands"
wrk.headers["Content-Type"] = "application/json"

function request()
    for number = 1, 1000 do
        commands[number] = '{"type": "deposit", "account_id": "account-' .. math.random(0, accounts - 1)
            .. '", "amount": 100, "description": "Found sunken treasure"}'
    end
    return wrk.format(nil, nil, nil, "[" .. table.concat(commands, ",") .. "]")
end
