-- 500 holds a request, each of which is released at once, on accounts at random.
local accounts = tonumber(os.getenv("ACCOUNTS"))
local commands = {}
wrk.method = "POST"
wrk.path = "/commands"
wrk.headers["Content-Type"] = "application/json"

function request()
    for number = 1, 1000, 2 do
        local hold = '"account_id": "account-' .. math.random(0, accounts - 1) .. '", "hold_id": "hold-' .. number .. '"}'
        commands[number] = '{"type": "hold", "amount": 1, ' .. hold
        commands[number + 1] = '{"type": "release", ' .. hold
    end
    return wrk.format(nil, nil, nil, "[" .. table.concat(commands, ",") .. "]")
end
