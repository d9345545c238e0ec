#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Every test, from a fresh Debian 12. Ends in "N passed, N failed, N skipped".
set -u -o pipefail
cd "$(dirname "$0")" || exit 1
. tools/machine.sh

usage() {
	cat <<-END
	usage: ./check.sh [--fast]

	Installs the packages that the tests need, reserves hugepages, builds in build/ (gcc),
	build-asan/ (AddressSanitizer and UBSan), build-tsan/ (ThreadSanitizer), build-clang/ and
	build-fuzz/, and runs every test.
	Packages and hugepages take root, or sudo without a password; without either it works with
	what is there. The whole takes less than an hour on two cores.

	  --fast   the gcc build with its tests and the checks on headers and symbols: some minutes

	Logs: build/check-logs/. Exit code: 0 all passed or skipped, 1 something failed, 2 usage.
	END
}

HUGEPAGES=512
LOGS=build/check-logs
# An abort that leaves a report is a failure of the test that ran into it.
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:strict_string_checks=1
export LSAN_OPTIONS=suppressions=$PWD/tests/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
# Tests fork with threads running, and go on in the child.
export TSAN_OPTIONS=suppressions=$PWD/tests/tsan.supp:halt_on_error=1:die_after_fork=0

passed=0
failed=0
skipped=0
steps=0
scratch=

elapsed() {
	printf '%3d:%02d' $((SECONDS / 60)) $((SECONDS % 60))
}

# run NAME COMMAND...: run it, in a shell of its own, with its output in a log of its own.
run() {
	local name=$1
	shift
	steps=$((steps + 1))
	log=$LOGS/$(printf '%02d' $steps)-${name//[^A-Za-z0-9_-]/-}.log
	printf '%s  %s\n' "$(elapsed)" "$name"
	("$@") >"$log" 2>&1 </dev/null
}

# A check of our own: one pass or one failure.
check() {
	if run "$@"; then
		passed=$((passed + 1))
		return 0
	fi
	say_failed "$1"
}

say_failed() {
	failed=$((failed + 1))
	tail -n 40 "$log" | sed 's/^/        /'
	printf '%s  FAILED: %s (whole log: %s)\n' "$(elapsed)" "$1" "$log"
	return 1
}

# A check that may end with 77 and say in its last line why it cannot be made here.
check_where_possible() {
	local status=0
	run "$@" || status=$?
	if [ $status -eq 77 ]; then
		skipped=$((skipped + 1))
		printf '        skipped: %s\n' "$(tail -n 1 "$log")"
		return 0
	fi
	[ $status -eq 0 ] || say_failed "$1" || return
	passed=$((passed + 1))
}

# suite BUILD SUITE [PROGRAM...]: run one suite of a build, or some of it, and add up its cases.
suite() {
	local build=$1 suite=$2 base counts
	shift 2
	base=$build/meson-logs/$suite
	rm -f "$base".*
	run "$suite tests in $build" \
		meson test -C "$build" --no-rebuild --suite "$suite" --logbase "$suite" "$@"
	if ! counts=$(tools/count_tests.py "$base" 2>>"$log"); then
		failed=$((failed + 1))
		tail -n 10 "$log" | sed 's/^/        /'
		printf '%s  FAILED: %s left no results (log: %s)\n' "$(elapsed)" "$suite" "$log"
		return
	fi
	add_up "$counts"
}

add_up() {
	local p f s
	read -r p f s <<<"$1"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	printf '        %d passed, %d failed, %d skipped\n' "$p" "$f" "$s"
	tail -n +2 <<<"$1" | sed '/^$/d; s/^/        /'
}

# configure DIR OPTIONS...: set a build up, or change the options of one that is there.
configure() {
	local dir=$1
	shift
	if [ -f "$dir/build.ninja" ]; then
		meson configure "$dir" "$@"
	else
		meson setup "$dir" "$@"
	fi
}

build() {
	configure "$@" && ninja -C "$1"
}

headers_compile_alone() {
	local header
	for header in include/sluice/*.h; do
		header=${header#include/}
		echo "$header"
		printf '#include <%s>\nextern int nothing_else;\n' "$header" >"$scratch/alone"
		gcc -std=c11 -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only \
			-x c "$scratch/alone" || return 1
		g++ -std=c++17 -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only \
			-x c++ "$scratch/alone" || return 1
	done
}

# The dynamic symbols are exactly those that the headers declare.
symbols_are_public() {
	grep -rhoE 'slu_[a-z0-9_]+\(' include/sluice | tr -d '(' | sort -u >"$scratch/named"
	nm -D --defined-only build/lib/libsluice.so | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' |
		sort -u >"$scratch/exported"
	echo "exported but not in a header:"
	comm -13 "$scratch/named" "$scratch/exported" | tee "$scratch/extra"
	echo "declared SLU_API but not exported:"
	for name in $(cat include/sluice/*.h | tr '\n' ' ' |
		grep -oE 'SLU_API [^;(]*slu_[a-z0-9_]+\(' | grep -oE 'slu_[a-z0-9_]+\(' | tr -d '('); do
		grep -qx "$name" "$scratch/exported" || echo "$name"
	done | tee "$scratch/lacking"
	[ ! -s "$scratch/extra" ] && [ ! -s "$scratch/lacking" ]
}

# In a program that is linked statically a name of its own would take the place of the library's.
programs_override_nothing() {
	nm --defined-only --extern-only build/lib/libsluice.a | awk 'NF == 3 { print $3 }' |
		sort -u >"$scratch/library"
	find build/apps build/perf build/tests -name '*.o' -not -path '*/libsluice.so*' -exec nm --defined-only --extern-only {} + |
		awk 'NF == 3 { print $3 }' | sort -u >"$scratch/programs"
	[ -s "$scratch/library" ] && [ -s "$scratch/programs" ] || return 1
	comm -12 "$scratch/library" "$scratch/programs" | tee "$scratch/overridden"
	[ ! -s "$scratch/overridden" ]
}

# What a user of the installed library does: pkg-config, compile, run.
installed_library_works() {
	local root=$scratch/root program=tests/install/copy.c pc lib flags
	DESTDIR=$root meson install -C build --no-rebuild || return 1
	pc=$(find "$root" -name sluice.pc)
	lib=$(dirname "$(find "$root" -name libsluice.so)")
	sed -i "s|^prefix=|prefix=$root|" "$pc" # installed elsewhere than configured
	flags=$(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --cflags --libs sluice) || return 1
	echo "pkg-config: $flags"
	# shellcheck disable=SC2086 # flags are words
	gcc -Wall -Wextra -Werror -o "$scratch/copy" $program $flags || return 1
	export LD_LIBRARY_PATH=$lib
	"$scratch/copy" && "$root/usr/local/bin/sluice-target" --version &&
		"$root/usr/local/bin/sluice-initiator" --version
}

readme_example_compiles() {
	awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md >"$scratch/readme.c"
	[ -s "$scratch/readme.c" ] &&
		gcc -std=c17 -Wall -Wextra -Werror -Iinclude -fsyntax-only "$scratch/readme.c"
}

every_file_has_a_licence() {
	local file bad=0
	while read -r file; do
		[ -s "$file" ] || continue
		head -n 3 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' ||
			{ echo "no SPDX line: $file" && bad=1; }
	done < <(find include lib numa gpu apps tests perf tools .ci ./*.sh \
		-name '*.[ch]' -o -name '*.py' -o -name '*.sh' | sort)
	return $bad
}

shell_is_clean() {
	shellcheck -x ./*.sh .ci/run tools/*.sh
}

demo_works() {
	./demo.sh --duration 1
}

demo_rdma_works() {
	./demo.sh --rdma --duration 1
}

# Virtual machines. What they need and cannot be had here skips their tests, each with its reason.
lab_checks() {
	printf '%s  packages of the lab\n' "$(elapsed)"
	packages_install $LOGS/apt-lab.log "${LAB_PACKAGES[@]}" "${SCENARIO_PACKAGES[@]}" ||
		echo "        going on without these packages: what needs them is skipped"
	suite build lab
	check_where_possible "demo.sh --rdma" demo_rdma_works
}

fuzz() {
	local target=$1 name corpus
	name=$(basename "$target")
	corpus=tests/fuzz/corpus/${name#fuzz_}
	mkdir -p "$scratch/$name"
	"$target" -runs=200000 -max_total_time=30 -timeout=100 -rss_limit_mb=2048 -seed=1 \
		-artifact_prefix="$LOGS/$name-" "$scratch/$name" "$corpus"
}

# Not libFuzzer's: a given number of messages or frames from a seed.
storm() {
	"build-fuzz/tests/fuzz/storm_$1" "$2" 1
}

cleanup() {
	trap '' INT TERM
	hugepages_restore
	[ -z "$scratch" ] || rm -rf "$scratch"
}

prepare() {
	printf '%s  packages\n' "$(elapsed)"
	packages_install $LOGS/apt.log "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" || return 1
	printf '%s  hugepages\n' "$(elapsed)"
	hugepages_reserve $HUGEPAGES
}

fast_checks() {
	local name
	check "build with gcc" build build -Dwerror=true -Dtests=true -Dperf=true || return
	for name in unit growth conformance fault; do
		suite build $name
	done
	check "public headers compile alone in C and C++" headers_compile_alone
	check "exported symbols are the public ones" symbols_are_public
	check "programs override nothing of the library" programs_override_nothing
	check "installed library works" installed_library_works
	check "the example of the README compiles" readme_example_compiles
	check "every file has its licence line" every_file_has_a_licence
	check "shell scripts are clean" shell_is_clean
}

sanitizer_checks() {
	local name
	check "build with AddressSanitizer and UBSan" build build-asan -Dwerror=true -Dperf=false \
		-Db_sanitize=address,undefined -Db_lundef=false || return
	for name in unit conformance fault mlx5 integration attack; do
		suite build-asan $name
	done
}

# Not each column and fault: that takes twice as long (CONTRIBUTING.md has the command).
thread_checks() {
	check "build with ThreadSanitizer" build build-tsan -Dwerror=true -Dperf=false \
		-Db_sanitize=thread -Db_lundef=false || return
	suite build-tsan unit
	suite build-tsan conformance conformance_shm-adaptive conformance_tcp-adaptive \
		conformance_tcp-tls conformance_fake-adaptive conformance_failures \
		conformance_several conformance_fork simulation_engines
	suite build-tsan fault kill mend
}

clang_checks() {
	export CC=clang
	check "build with clang, without GPU and benchmarks" build build-clang -Dwerror=true \
		-Dgpu=false -Dperf=false || return
	suite build-clang unit
}

fuzz_checks() {
	local target
	export CC=clang
	check "build the fuzz targets" build build-fuzz -Dwerror=true -Dfuzz=true -Dtests=true \
		-Dperf=false || return
	for target in build-fuzz/tests/fuzz/fuzz_*; do
		[ -f "$target" ] && check "fuzz: ${target##*/fuzz_}" fuzz "$target"
	done
	check "storm of data frames" storm data 500000
	check "storm of control messages at a target" storm control 100000
	check "storm of control messages at a client" storm client 100000
	check "storm of work requests on the model of an mlx5 device" storm mlx5 500000
	check "storm of RDMA at a target" storm verbs 120000
	check "storm of RDMA at a client" storm verbs_client 40000
}

slow_checks() {
	suite build mlx5
	suite build integration
	suite build attack
	sanitizer_checks
	thread_checks
	clang_checks
	fuzz_checks
	unset CC
	check "demo.sh" demo_works
	lab_checks
}

fast=
case ${1-} in
'') ;;
--fast) fast=1 ;;
-h | --help)
	usage
	exit 0
	;;
*)
	usage >&2
	exit 2
	;;
esac

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p $LOGS && rm -f $LOGS/* && scratch=$(mktemp -d) || exit 1

if prepare; then
	fast_checks
	[ -n "$fast" ] || slow_checks
else
	failed=1
	echo "cannot go on without these packages"
fi

printf '%s  done; logs are in %s\n' "$(elapsed)" $LOGS
printf '%d passed, %d failed, %d skipped\n' $passed $failed $skipped
[ $failed -eq 0 ]
