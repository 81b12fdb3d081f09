-- 1000 transfers a request, between accounts at random.
local accounts = tonumber(os.getenv("ACCOUNTS"))
local commands = {}
wrk.method = "POST"
wrk.path = "/commands"
wrk.headers["Content-Type"] = "application/json"

function request()
    for number = 1, 1000 do
        local payer = math.random(0, accounts - 1)
        local payee = (payer + math.random(accounts - 1)) % accounts
        commands[number] = '{"type": "transfer", "account_id": "account-' .. payer .. '", "to": "account-' .. payee
            .. '", "amount": 1, "description": "Found sunken treasure"}'
    end
    return wrk.format(nil, nil, nil, "[" .. table.concat(commands, ",") .. "]")
end
