#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# From a fresh Debian 12 to bytes moved and verified between two processes.
set -u -o pipefail
cd "$(dirname "$0")" || exit 1
. tools/machine.sh

usage() {
	cat <<-END
	usage: ./demo.sh [initiator flags]

	Installs the packages that Sluice needs, reserves hugepages, builds, starts sluice-target and
	runs a verified mixed workload against it with sluice-initiator. Packages and hugepages take
	root, or sudo without a password; without either it works with what is there.
	Flags are handed to sluice-initiator, for example: ./demo.sh --duration 20 --size 1M
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

case ${1-} in
-h | --help)
	usage
	exit 0
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
build/apps/target/sluice-target --segment "$SEGMENT=$SEGMENT_SIZE" >"$scratch/target" 2>&1 &
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
