# SPDX-License-Identifier: GPL-3.0-or-later
"""ocirt: an OCI container runtime."""

from __future__ import annotations

__version__ = "0.1.0"
