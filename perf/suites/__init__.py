# SPDX-License-Identifier: Apache-2.0
"""The suites by name. A suite has HUGEPAGES and rows(bench), which yields report.Row."""
from . import instructions, limits, shm, tcp, verbs

SUITES = {"instructions": instructions, "limits": limits, "shm": shm, "tcp": tcp, "verbs": verbs}
