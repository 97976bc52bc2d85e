# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: argv in, one call, output out."""

from __future__ import annotations
