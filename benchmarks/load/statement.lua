-- The first page of the one account's statement.
function request()
    return wrk.format("GET", "/account/account-0/statement")
end
