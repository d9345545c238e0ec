# SPDX-License-Identifier: Apache-2.0
"""What every suite of perf/run shares."""
