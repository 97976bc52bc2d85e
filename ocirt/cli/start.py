# SPDX-License-Identifier: GPL-3.0-or-later
"""How this process was started: as the pre-initialised executable, or by plain Python."""

from __future__ import annotations

try:
    # Only the image has this module (ocirt/image/seed.c).
    import _image  # type: ignore[import-not-found]
except ImportError:
    #: The launcher of plain Python, which the image leaves for; None: this is plain Python.
    PLAIN_LAUNCHER: str | None = None
else:
    PLAIN_LAUNCHER = _image.plain
