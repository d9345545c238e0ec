# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# What demo.sh and check.sh ask of the machine: Debian packages and hugepages. Sourced, not run.

# To build the library and both programs. Without dpkg-dev meson installs in lib64, where neither
# pkg-config nor the loader looks.
BUILD_PACKAGES=(gcc libc6-dev dpkg-dev meson ninja-build pkg-config libdpdk-dev libhwloc-dev
	libnuma-dev libjansson-dev libssl-dev libinih-dev libevent-dev libibverbs-dev librdmacm-dev)
# To run every test besides.
TEST_PACKAGES=(libcmocka-dev g++ clang libclang-rt-14-dev shellcheck procps python3 iproute2 mount
	openssl liburing-dev systemd)

# To boot virtual machines (tests/lab), and what scenarios there and perf/run verbs need besides.
LAB_PACKAGES=(qemu-system-x86 kmod busybox-static cpio iproute2 util-linux)
SCENARIO_PACKAGES=(perftest ibverbs-utils rdma-core numactl hwloc-nox jq)

# Run a command as root, by sudo where it asks for no password. Fails where neither can be had.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		sudo -n "$@" 2>/dev/null
	fi
}

may_be_root() {
	[ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null
}

# Print those of the packages named that are not installed.
packages_missing() {
	local package
	for package in "$@"; do
		dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
			echo "$package"
	done
}

# packages_install LOG PACKAGE...: install what is missing, or say what that is and how to get it.
packages_install() {
	local log=$1 missing
	shift
	if ! command -v dpkg-query >/dev/null; then
		echo "no dpkg here: taking the equivalents of these Debian packages for given: $*"
		return 0
	fi
	mapfile -t missing < <(packages_missing "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	if ! may_be_root; then
		echo "missing packages: ${missing[*]}"
		echo "install them with: sudo apt-get update && sudo apt-get install ${missing[*]}"
		return 1
	fi
	echo "installing ${missing[*]} (log: $log)"
	as_root apt-get -q update >"$log" 2>&1 &&
		as_root env DEBIAN_FRONTEND=noninteractive \
			apt-get -q -y --no-install-recommends install "${missing[@]}" >>"$log" 2>&1 &&
		return 0
	tail -n 20 "$log"
	return 1
}

hugepages_added=0
HUGEPAGES_FILE=/proc/sys/vm/nr_hugepages

hugepages_free() {
	awk '$1 == "HugePages_Free:" { free = $2 } $1 == "HugePages_Rsvd:" { reserved = $2 }
		END { print free - reserved }' /proc/meminfo
}

hugepages_resize() {
	as_root sh -c "echo $1 > $HUGEPAGES_FILE" 2>/dev/null
}

# A quarter of the available memory, in pages of 2 MiB: more would be missed elsewhere.
hugepages_affordable() {
	awk '$1 == "MemAvailable:" { print int($2 / 2048 / 4) }' /proc/meminfo
}

# Have that many free 2 MiB pages, reserving what lacks. Without the right to, it says so: everything
# works on ordinary pages too, only slower. hugepages_restore gives back what was added.
hugepages_reserve() {
	local wanted=$1 total free lacking affordable
	if ! grep -q '^Hugepagesize: *2048 kB' /proc/meminfo; then
		echo "no 2 MiB hugepages in this kernel: going on with ordinary pages"
		return 0
	fi
	free=$(hugepages_free)
	[ "$free" -lt "$wanted" ] || { echo "hugepages: $free of 2 MiB are free"; return 0; }
	affordable=$(hugepages_affordable)
	lacking=$((wanted - free < affordable ? wanted - free : affordable))
	total=$(cat $HUGEPAGES_FILE)
	if ! hugepages_resize $((total + lacking)); then
		echo "hugepages: $free are free, and this user or container may not reserve more:" \
			"what finds none runs on ordinary pages; to reserve them:" \
			"echo $((total + lacking)) | sudo tee $HUGEPAGES_FILE"
		return 0
	fi
	hugepages_added=$(($(cat $HUGEPAGES_FILE) - total))
	echo "hugepages: $hugepages_added of 2 MiB reserved, $(hugepages_free) are free"
}

hugepages_restore() {
	[ "$hugepages_added" -gt 0 ] || return 0
	hugepages_resize $(($(cat $HUGEPAGES_FILE) - hugepages_added))
	hugepages_added=0
}
