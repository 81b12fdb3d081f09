-- One account a request, at random.
local accounts = tonumber(os.getenv("ACCOUNTS"))

function request()
    return wrk.format("GET", "/account/account-" .. math.random(0, accounts - 1))
end
