-- What has happened to a job since an event, and how it stands now. ARGV: id last_event_id
local after = ARGV[2] == '' and '-' or '(' .. ARGV[2]
return {redis.call('XRANGE', P .. ':events:' .. ARGV[1], after, '+'), view(ARGV[1])}
