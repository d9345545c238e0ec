#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# From a fresh Debian 12 to bytes moved and verified between two processes, or two virtual hosts.
set -u -o pipefail
cd "$(dirname "$0")" || exit 1
. tools/machine.sh

usage() {
	cat <<-END
	usage: ./demo.sh [--rdma] [initiator flags]

	Installs the packages that Sluice needs, reserves hugepages, builds, starts sluice-target and
	runs a verified mixed workload against it with sluice-initiator. Packages and hugepages take
	root, or sudo without a password; without either it works with what is there.
	Flags are handed to sluice-initiator, for example: ./demo.sh --duration 20 --size 1M

	  --rdma   must come first: the two are in two virtual machines, which it boots, and RDMA goes
	           between them. It downloads Debian's kernel package (70 MB) once.
	END
}

SEGMENT_SIZE=256M
HUGEPAGES=512
SEGMENT=demo-$$
target=
scratch=

say() {
	printf '==> %s\n' "$*"
}

die() {
	printf 'demo.sh: %s\n' "$*" >&2
	exit 1
}

stop_target() {
	[ -n "$target" ] || return 0
	kill -TERM "$target" 2>/dev/null
	wait "$target"
	target=
}

# shellcheck disable=SC2317 # called by trap
cleanup() {
	trap '' INT TERM
	stop_target
	hugepages_restore
	[ -z "$scratch" ] || rm -rf "$scratch"
}

build() {
	[ -f build/build.ninja ] || meson setup build -Dtests=false -Dperf=false || return 1
	ninja -C build apps/target/sluice-target apps/initiator/sluice-initiator
}

# The target says when it serves.
wait_until_serving() {
	for _ in $(seq 300); do
		grep -q "^ready:" "$scratch/target" && return 0
		kill -0 "$target" 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}

# QEMU's processors and network are emulated, and so is RDMA (Soft-RoCE); the kernel's verbs, the
# library and both programs are what they are elsewhere.
demo_rdma() {
	say "packages"
	packages_install build/apt.log "${BUILD_PACKAGES[@]}" "${LAB_PACKAGES[@]}" ||
		die "cannot go on without these packages"
	say "build (log: build/demo-build.log)"
	build >build/demo-build.log 2>&1 || { tail -n 30 build/demo-build.log; die "the build failed"; }
	say "two virtual machines: processors, memory, network cards and the cable are emulated by QEMU," \
		"the RDMA devices by the kernel (Soft-RoCE); speeds mean nothing"
	set -- tests/lab/demo ${1+"flags=$*"}
	say "tests/lab/run $*"
	exec tests/lab/run "$@"
}

case ${1-} in
-h | --help)
	usage
	exit 0
	;;
--rdma)
	shift
	mkdir -p build || die "cannot write to build/"
	demo_rdma "$@"
	;;
esac

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
scratch=$(mktemp -d) || die "no room for temporary files"

mkdir -p build || die "cannot write to build/"
say "packages"
packages_install build/apt.log "${BUILD_PACKAGES[@]}" || die "cannot go on without these packages"

say "hugepages"
hugepages_reserve $HUGEPAGES

say "build (log: build/demo-build.log)"
build >build/demo-build.log 2>&1 || { tail -n 30 build/demo-build.log; die "the build failed"; }

say "build/apps/target/sluice-target --segment $SEGMENT=$SEGMENT_SIZE"
# In a session of its own: Ctrl-C would reach it too, and end it before the initiator is done.
setsid build/apps/target/sluice-target --segment "$SEGMENT=$SEGMENT_SIZE" >"$scratch/target" 2>&1 &
target=$!
wait_until_serving || { cat "$scratch/target"; die "the target did not start"; }
cat "$scratch/target"

set -- --remote_segment "$SEGMENT" --workload mix --integrity_check --duration 5 "$@"
say "build/apps/initiator/sluice-initiator $*"
build/apps/initiator/sluice-initiator "$@"
result=$?

say "stopping the target"
shown=$(wc -l <"$scratch/target")
stop_target
tail -n +$((shown + 1)) "$scratch/target"
exit $result
