-- One deposit a request, over 1000 accounts.
local number = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"amount": 100, "description": "Found sunken treasure"}'

function request()
    number = number + 1
    return wrk.format(nil, "/account/deposit/account-" .. number % 1000)
end
