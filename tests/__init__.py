# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests. A package, so that they can share the harness."""

from __future__ import annotations
