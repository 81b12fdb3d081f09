-- 1000 deposits a request, over 1000 accounts.
local commands = {}
for number = 0, 999 do
    commands[number + 1] = '{"type": "deposit", "account_id": "account-' .. number
        .. '", "amount": 100, "description": "Found sunken treasure"}'
end
wrk.method = "POST"
wrk.path = "/commands"
wrk.headers["Content-Type"] = "application/json"
wrk.body = "[" .. table.concat(commands, ",") .. "]"
