"""Who gets the places of chains that have ended: the Request Manager that gets the report, or others.

All Request Managers dispatch the same waiting requests, oldest first. So it does not matter to a request who
gets a place, if whoever gets it uses it. The receiver of the report knows of the place first: it keeps what
it needs, and leaves the rest to those that wait for places. If places were dealt in turn, two Request
Managers would often begin with the same request, and one of them would have to look again.
"""

from __future__ import annotations

from typing import NamedTuple


class FreedPlaces(NamedTuple):
    """How places are divided.

    Attributes:
        kept: Places that the receiver of the report uses at once. The runner offers them to nobody else.
        spare: Further places that it may use as long as nobody else wants them.
    """

    kept: int
    spare: int


def divide(ended: int, needed: int, wanted: int) -> FreedPlaces:
    """Divides the places of chains that have ended.

    Args:
        ended: How many chains have ended.
        needed: How many places the requests need that wait at the receiver of the report.
        wanted: How many places others want.
    """
    kept = min(ended, needed)
    return FreedPlaces(kept, max(0, ended - kept - wanted))
