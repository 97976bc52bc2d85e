# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the pre-initialised executable; docs/image.md explains it."""
