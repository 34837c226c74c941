"""The Job Runner: runs job chains and reports their results to a Request Manager."""
