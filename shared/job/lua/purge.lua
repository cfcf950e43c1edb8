-- Delete dead letters and their images. arg: ids. Returns how many there were.
local purged = 0
for _, id in ipairs(arg.ids) do
  if drop_dead_letter(id) then purged = purged + 1 end
end
return purged
