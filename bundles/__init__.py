# SPDX-License-Identifier: GPL-3.0-or-later
"""Ready bundles, and the program that makes their root filesystems."""

from __future__ import annotations
