"""The processes of one worker: the parent, its pool processes, and the memory they share."""
