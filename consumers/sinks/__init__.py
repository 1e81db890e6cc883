"""The former place of `passport.sink`, kept for one release.

Destinations outside this project still load with it.
"""

import warnings

from passport.sink import KeyRange, Outcome, Progress, Scope, Sink

__all__ = ["KeyRange", "Outcome", "Progress", "Scope", "Sink"]

warnings.warn("consumers.sinks is passport.sink now", DeprecationWarning, stacklevel=2)
