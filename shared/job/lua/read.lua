-- A job's record with its position. A job that has waited too long expires first. arg: id
expire_if_overdue(arg.id)
return view(arg.id)
