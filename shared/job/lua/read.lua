-- A job's record with its position. arg: id
expire_if_overdue(arg.id)
return view(arg.id)
