# SPDX-License-Identifier: Apache-2.0
"""Virtual machines with real RDMA, several NUMA nodes and a network of their own."""


class Lacking(Exception):
    """This machine lacks what a run needs; the text says what, and how to get it."""


class Wrong(Exception):
    """A wrong command line or scenario; the text says what is wrong."""
