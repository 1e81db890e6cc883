"""``python -m passport``: the same as the console script ``passport``.

The command line is a package of its own, `cli`, on top of all others. It is run by its name, as
``python -m cli`` would, because nothing of the contract imports what stands on it.
"""

import runpy

runpy.run_module("cli", run_name="__main__", alter_sys=True)
