"""When Python looks for reference cycles: never during the start, and seldom while a server runs.

Loading modules creates some hundred thousand objects and hardly any garbage. Looking for garbage among them
again and again took a fifth of the CPU time of a start.
"""

from __future__ import annotations

import gc

WITHOUT_RUNNER = 20_000
"""By how many the objects grow until a process without a Job Runner looks for garbage.

Each HTTP connection that has ended leaves a cycle of about twenty objects.
"""

WITH_RUNNER = 100_000
"""By how many the objects grow until a process with a Job Runner looks for garbage.

A small chain is some hundred objects while it runs, and leaves no cycle. So a burst of a few hundred chains
is above 20,000. Looking at all of these again and again took a tenth of the CPU time of a Job Runner.
"""


def collect_not_yet() -> None:
    """Looks for no garbage until `collect_again` or `collect_seldom` is called."""
    gc.disable()


def collect_again() -> None:
    """Looks for garbage from now on, but never among the objects that exist now.

    Has no effect if the process looks for garbage already, as tests do that run a command in their process.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def collect_seldom(growth: int) -> None:
    """As `collect_again`, with higher thresholds, for servers.

    Reference counting frees nearly all objects. With the default thresholds, a tenth of the CPU time went
    into looking for reference cycles.

    Args:
        growth: By how many the objects have grown when Python looks at the new ones.
    """
    gc.set_threshold(growth, 20, 20)
    collect_again()
