-- Keep a broker message that cannot become a job, among the dead letters.
-- arg: id (of the dead letter), text, error (JSON text)
keep_dead_letter(arg.id, #arg.text, 'task_id', arg.id, 'owner', '', 'model', '', 'params', '{}',
  'content_type', 'application/json', 'history', '[]', 'error', arg.error, 'message', arg.text)
return 1
