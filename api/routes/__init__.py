"""One module a path of the HTTP contract."""
