-- What has happened to a job since an event, and its state now. arg: id, after (id of the event, or '')
local after = arg.after == '' and '-' or '(' .. arg.after
return {redis.call('XRANGE', P .. ':events:' .. arg.id, after, '+'), view(arg.id)}
