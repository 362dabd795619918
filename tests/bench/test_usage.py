"""Processor time of processes that have ended is not lost."""

from __future__ import annotations

import subprocess
import sys

from bench.usage import OTHERS, family_cpu_seconds, sampling

#: A parent that outlives twenty children, each at work for a twentieth of a second: none lives for a whole sample.
_PARENT = """
import subprocess, sys, time
spin = "import time\\nwhile time.process_time() < 0.05: pass"
for _ in range(20):
    subprocess.run([sys.executable, "-S", "-c", spin], check=True)
print("done", flush=True)
sys.stdin.read()
"""


def test_short_lived_children_count_with_their_parent() -> None:
    command = [sys.executable, "-S", "-c", _PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        with sampling({"parent": parent.pid}) as usage:
            assert parent.stdout.readline() == "done\n"
        assert usage["parent"].cpu_seconds >= 20 * 0.05 * 0.9
        assert OTHERS in usage
        parent.communicate()


def test_who_is_not_looked_at_counts_with_the_others() -> None:
    with sampling({}) as usage:
        subprocess.run(
            [sys.executable, "-S", "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True
        )
    # The kernel counts the machine's time in ticks.
    assert usage[OTHERS].cpu_seconds >= 0.4


def test_what_was_spent_before_does_not_count() -> None:
    command = [sys.executable, "-S", "-c", _PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "done\n"
        assert family_cpu_seconds(parent.pid) >= 20 * 0.05 * 0.9
        with sampling({"parent": parent.pid}) as usage:
            pass
        assert usage["parent"].cpu_seconds < 0.5
        parent.communicate()
