-- One transfer a request, between accounts at random.
local accounts = tonumber(os.getenv("ACCOUNTS"))
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function request()
    local payer = math.random(0, accounts - 1)
    local payee = (payer + math.random(accounts - 1)) % accounts
    return wrk.format(nil, "/account/transfer/account-" .. payer, nil,
        '{"to": "account-' .. payee .. '", "amount": 1, "description": "Found sunken treasure"}')
end
