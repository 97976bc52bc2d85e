# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests that need root and this machine's kernel."""

from __future__ import annotations
