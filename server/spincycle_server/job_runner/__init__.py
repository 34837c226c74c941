"""The Job Runner: runs job chains and reports to a Request Manager what came of them."""
