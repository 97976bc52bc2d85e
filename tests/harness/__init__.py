# SPDX-License-Identifier: GPL-3.0-or-later
"""What integration tests share: any OCI runtime given by path, bundles, and the search for leaks.

What judges a runtime imports nothing of ocirt: every runtime is measured alike.
"""

from __future__ import annotations

from tests.harness.bundle import Bundle
from tests.harness.container import Container
from tests.harness.runtime import Result, Runtime

__all__ = ["Bundle", "Container", "Result", "Runtime"]
