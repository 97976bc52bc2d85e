# SPDX-License-Identifier: GPL-3.0-or-later
"""From a validated config and a host to the ordered list of steps; no side effects."""

from __future__ import annotations
