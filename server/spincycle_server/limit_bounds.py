"""The bounds of limits: specs follow them, and what runners report is checked against them."""

MAX_LIMITS = 10
"""The maximum number of limits of a request or a sequence."""

MAX_KEY = 200
"""The maximum length of a key, in characters: as written, and with the values of its args."""

MAX_HOLDERS = 1000
"""The largest `max` of a limit."""
