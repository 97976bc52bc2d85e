# SPDX-License-Identifier: GPL-3.0-or-later
"""config.json as data: load, validate, typed model, defaults, features."""

from __future__ import annotations
