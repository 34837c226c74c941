"""How the interpreter that runs this program was built.

A CPython that was compiled without profile-guided optimization runs the servers 15 to 20 % slower. Nothing
else shows the difference, so the servers log it, and the Makefile and the benchmarks ask this module. It
imports only the standard library, because the Makefile runs it as a file with every interpreter that it could
use.
"""

from __future__ import annotations

import platform
import sys
import sysconfig

_DISTRIBUTIONS = "--with-wheel-pkg-dir=/usr/share/python-wheels"
"""An option of the builds of Debian and Ubuntu, which use profiles without the usual option."""


def is_profile_guided() -> bool:
    """Returns whether the interpreter was compiled with profile-guided optimization, as far as it says."""
    options = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    return "--enable-optimizations" in options or _DISTRIBUTIONS in options


def python_build() -> str:
    """Returns the version of the interpreter and its build, such as "3.11.9, profile-guided"."""
    kind = "profile-guided" if is_profile_guided() else "not profile-guided"
    return f"{platform.python_version()}, {kind}"


if __name__ == "__main__":
    sys.exit(0 if is_profile_guided() else 1)
