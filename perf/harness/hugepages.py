# SPDX-License-Identifier: Apache-2.0
"""2 MiB pages: reserve what is missing, and give it back."""
import contextlib

NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages"


def counts():
    """Total and free 2 MiB pages, as the kernel counts them."""
    values = {}
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            key, _, value = line.partition(":")
            values[key] = value.split()[0]
    if values.get("Hugepagesize") != "2048":
        return 0, 0
    return int(values["HugePages_Total"]), int(values["HugePages_Free"])


def set_total(pages):
    with open(NR_HUGEPAGES, "w", encoding="ascii") as file:
        file.write(f"{pages}\n")


@contextlib.contextmanager
def reserved(pages, say):
    """Have that many free pages inside the with block, if we may; say so when not."""
    total, free = counts()
    if free >= pages:
        yield
        return
    try:
        set_total(total + pages - free)
    except PermissionError:
        say(f"{free} of {pages} hugepages are free and only root may reserve more: "
            f"sysctl vm.nr_hugepages={total + pages - free}")
        yield
        return
    try:
        free = counts()[1]
        say(f"{free} hugepages of 2 MiB are free, reserved for this run" if free >= pages else
            f"only {free} of {pages} hugepages could be reserved: memory is short or fragmented")
        yield
    finally:
        set_total(total)
