# SPDX-License-Identifier: Apache-2.0
"""The benchmark programs: build them when they are missing, run them, read their lines."""
import json
import os
import platform
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = ("limits", "shm", "sockets", "tcp", "verbs")
APPS = ("apps/target/sluice-target", "apps/initiator/sluice-initiator")
PROGRAM_TIMEOUT_S = 1800
SLICE_MS = 20
SLICE_MS_QUICK = 5
PAIRS = 3  # of programs that run in turn, in one round
PAIRS_QUICK = 1


class Failure(Exception):
    """A program that did not do what it was to do."""


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


class Bench:
    """Options of a run, and the programs run with them."""

    def __init__(self, arguments):
        build = arguments.build or os.path.join(ROOT, "build")
        self.folder = os.path.join(os.path.abspath(build), "perf")
        self.only = arguments.only
        self.rounds = arguments.rounds
        self.slice_ms = SLICE_MS_QUICK if arguments.quick else SLICE_MS
        self.pairs = PAIRS_QUICK if arguments.quick else PAIRS
        self.cores = self._cores(arguments.cores)

    @staticmethod
    def _cores(text):
        cores = text.split(",") if text else [str(c) for c in sorted(os.sched_getaffinity(0))[:2]]
        if len(cores) != 2 or not all(core.isdecimal() for core in cores):
            raise Failure(f"two CPUs are needed, not {','.join(cores)}")
        return cores

    def has(self, program):
        return os.access(os.path.join(self.folder, program), os.X_OK)

    def build(self):
        """Call meson and ninja if the programs are not there."""
        build = os.path.dirname(self.folder)
        if all(self.has(program) for program in PROGRAMS):
            return
        if os.path.exists(os.path.join(build, "build.ninja")):
            self._call(["meson", "configure", build, "-Dperf=true"])  # ./demo.sh leaves it out
        else:
            self._call(["meson", "setup", build, ROOT, "-Dtests=false"])
        self._call(["ninja", "-C", build, "benchmarks"])

    def build_apps(self):
        """Build target and initiator if they are not there; build() has set the folder up."""
        build = os.path.dirname(self.folder)
        if not all(os.access(os.path.join(build, app), os.X_OK) for app in APPS):
            self._call(["ninja", "-C", build, *APPS])

    def build_program(self, program, option):
        """Build one that needs an option of meson; build() has set the folder up."""
        build = os.path.dirname(self.folder)
        if not self.has(program):
            self._call(["meson", "configure", build, option])
        self._call(["ninja", "-C", build, f"perf/{program}"])

    @staticmethod
    def _call(command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr}")

    def lines(self, program, group, only=None, rounds=None, slice_ms=None, environment=None):
        """Run a program; yield each of its lines of JSON as soon as it is there."""
        command = [os.path.join(self.folder, program), "--cores", ",".join(self.cores),
                   "--rounds", str(rounds or self.rounds),
                   "--slice-ms", str(slice_ms or self.slice_ms)]
        only = only or self.only
        command += ["--only", only] if only else []
        command += group if isinstance(group, list) else [group]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                              env={**os.environ, **(environment or {})}) as process:
            try:
                for line in process.stdout:
                    yield json.loads(line)
                status = process.wait(PROGRAM_TIMEOUT_S)
            except BaseException:
                process.kill()
                raise
        if status != 0:
            raise Failure(f"{' '.join(command)}: status {status}")

    def value(self, program, group, **options):
        """The one figure that a program prints."""
        found = [line["value"] for line in self.lines(program, group, **options)]
        if len(found) != 1:
            raise Failure(f"{program} {group} {options.get('only')}: {len(found)} figures, not one")
        return found[0]

    def core_to_core_ns(self):
        """Where the two cores stand to each other at this moment."""
        line, = self.lines("limits", "cores", only="core to core", rounds=1)
        return line["reference"][0]

    def machine(self):
        """Lines about what everything runs on."""
        return [f"{cpu_model()}, {os.cpu_count()} CPUs, Linux {platform.release()}",
                f"on CPUs {' and '.join(self.cores)}, {self.rounds} rounds, slices of "
                f"{self.slice_ms} ms, load average {os.getloadavg()[0]:.2f}"]
