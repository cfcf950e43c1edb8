"""Commands that need the server's code: `up`, `dead`, `settings`. Not part of a wheel."""
