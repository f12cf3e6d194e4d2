"""The log in Redis: appending to it, reading it, following it."""
