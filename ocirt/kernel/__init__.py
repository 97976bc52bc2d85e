# SPDX-License-Identifier: GPL-3.0-or-later
"""The Linux ABI: one function is one system call, named as in its manual page. No policy."""

from __future__ import annotations
