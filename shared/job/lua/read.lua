-- A job's record with its position. ARGV: id result_ttl max_queue_ms
expire_if_overdue(ARGV[1], ARGV[2], tonumber(ARGV[3]))
return view(ARGV[1])
