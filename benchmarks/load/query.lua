-- One account a request, over 1000 accounts.
local number = 0

function request()
    number = number + 1
    return wrk.format("GET", "/account/account-" .. number % 1000)
end
