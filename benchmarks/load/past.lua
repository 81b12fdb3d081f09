-- The one account at a position, at random among so many.
local positions = tonumber(os.getenv("ACCOUNTS"))

function request()
    return wrk.format("GET", "/account/account-0?at_position=" .. math.random(1, positions))
end
