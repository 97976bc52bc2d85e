# SPDX-License-Identifier: GPL-3.0-or-later
"""The runtime specification as tests, for any OCI runtime given by path.

Nothing here imports ocirt: every runtime is measured alike.
"""
