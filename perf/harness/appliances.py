# SPDX-License-Identifier: Apache-2.0
"""sluice-target and sluice-initiator, as a user would start them on one host."""
import contextlib
import json
import os
import subprocess
import tempfile

from . import programs
from .programs import Failure

TIMEOUT_S = 120


def path_of(bench, app):
    return os.path.join(os.path.dirname(bench.folder), app)


@contextlib.contextmanager
def target(bench, size):
    """A target that is ready inside the with block; gives back the name of its segment."""
    name = f"perf.{os.getpid()}"
    with subprocess.Popen([path_of(bench, programs.APPS[0]), "--segment", f"{name}={size}"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            if not any(line.startswith("ready: ") for line in process.stdout):
                raise Failure("sluice-target did not start")
            yield name
        finally:
            process.terminate()


def report_of(bench, segment, *flags):
    """Run an initiator with one thread on the first core; give back its report."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
        command = [path_of(bench, programs.APPS[1]), "--remote_segment", segment, "--no-use_vram",
                   "--no-progress", "--threads", "1", "--cores", bench.cores[0], "--json", file.name,
                   *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S,
                              check=False)
        if done.returncode != 0:
            raise Failure(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return json.load(file)
