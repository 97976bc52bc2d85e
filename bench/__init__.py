# SPDX-License-Identifier: GPL-3.0-or-later
"""Timings of ocirt beside runc and crun, in one interleaved run: `make bench`."""
