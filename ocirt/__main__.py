# SPDX-License-Identifier: GPL-3.0-or-later
"""`python3 -m ocirt`."""

from __future__ import annotations

import sys

from ocirt.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
