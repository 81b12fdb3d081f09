-- A page of 20 open accounts in dollars, in the order of their ids, from one at random on. They go on from a cursor as the
-- answers give it: base64 of a JSON array, which has no padding here.
local accounts = tonumber(os.getenv("ACCOUNTS"))
local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

local function base64(text)
    local out = {}
    for at = 1, #text, 3 do
        local a, b, c = text:byte(at, at + 2)
        local bits = a * 65536 + (b or 0) * 256 + (c or 0)
        for digit = 0, c and 3 or b and 2 or 1 do
            local value = math.floor(bits / 64 ^ (3 - digit)) % 64
            out[#out + 1] = letters:sub(value + 1, value + 1)
        end
    end
    return table.concat(out)
end

function request()
    local id = "account-" .. math.random(0, accounts - 1)
    local cursor = base64('["name","asc","Alice","' .. id .. '"]')
    return wrk.format("GET", "/accounts?prefix=Al&asset=USD/2&status=open&limit=20&cursor=" .. cursor)
end
