# SPDX-License-Identifier: GPL-3.0-or-later
"""An image for the tests of images: it runs the Python code in its first argument.

All else is the real one's: the same program is saved and restored by the same C.
"""

from __future__ import annotations

import sys


def _run_argument() -> int:
    exec(sys.argv[1], {"__name__": "probe"})
    try:
        sys.stdout.flush()
    except OSError:  # closed, or a full device: that is the test's intention
        pass
    return 0


sys.modules["ocirt.image.entry"].main = _run_argument  # type: ignore[attr-defined]
