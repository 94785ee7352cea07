"""`scripts/bench mesh` measures what it says, with slices too short to mean anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SIZES = (128, 64 << 10, (1 << 20) - 64)
CONTENDERS = ("raw TCP", "swarmd", "swarmd call", "swarmd relayed")


@pytest.mark.e2e
def test_bench_mesh_measures_every_contender_at_every_size() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench.py", "mesh", "--seconds", "0.1", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    rows: dict[tuple[str, int, bool], dict[str, Any]] = {
        (row["contender"], row["size"], row["beside_bulk"]): row for row in table["echo"]
    }
    alone = {(name, size, False) for name in CONTENDERS for size in SIZES}
    bulk = {(name, 128, True) for name in CONTENDERS[1:]}
    assert rows.keys() == alone | bulk
    for row in rows.values():
        assert row["round_trips"] >= 8  # one in each slice at least
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["per_s"] > 0
    # An echo of a MiB cannot be as quick as one of 128 bytes, nor a relayed one as a direct one.
    assert rows["raw TCP", SIZES[2], False]["p50_ms"] > rows["raw TCP", SIZES[0], False]["p50_ms"]
    assert (
        rows["swarmd relayed", SIZES[0], False]["p50_ms"]
        > rows["swarmd", SIZES[0], False]["p50_ms"]
    )
    ratios = {(row["contender"], row["size"]): row["swarmd_is"] for row in table["ratios"]}
    assert ratios.keys() == {
        (name, size) for name in CONTENDERS if name != "swarmd" for size in SIZES
    }
    for (name, size), ratio in ratios.items():
        own, other = rows["swarmd", size, False], rows[name, size, False]
        assert ratio == pytest.approx(own["per_s"] / other["per_s"])


def test_a_contender_that_fails_is_quoted(tmp_path: Path) -> None:
    program = """
import sys
sys.path.insert(0, "scripts")
import bench_mesh
from pathlib import Path
failing = (sys.executable, "-c", "raise SystemExit('no such thing')")
try:
    with bench_mesh.Contender("failing", failing).running(Path(sys.argv[1])):
        pass
except bench_mesh.ContenderError as error:
    print(error.user_text())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "no such thing" in done.stdout, done.stderr
