# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container is made of, one module per chapter of config.md and config-linux.md."""

from __future__ import annotations
