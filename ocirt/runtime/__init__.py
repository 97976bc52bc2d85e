# SPDX-License-Identifier: GPL-3.0-or-later
"""The lifecycle: create, start, kill, delete, and what is kept between them."""

from __future__ import annotations
