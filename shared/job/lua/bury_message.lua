-- Keep a broker message that no job can come of, among the dead letters.
-- ARGV: letter_id text error dead_ttl dead_max_jobs dead_max_bytes
bury(ARGV[1], #ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]),
  'task_id', ARGV[1], 'owner', '', 'params', '{}', 'content_type', 'application/json',
  'history', '[]', 'error', ARGV[3], 'message', ARGV[2])
return 1
