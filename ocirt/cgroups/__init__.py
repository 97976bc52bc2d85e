# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups: where a container's are, what is written into them, how they are taken down.

manager is the interface the rest of the package uses.
"""

from __future__ import annotations
