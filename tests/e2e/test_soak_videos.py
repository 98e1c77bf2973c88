"""A few dozen damaged videos through the command; the long form, with 2,000, is tools/bench/soak_videos.py itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from vqa_train.core.hashing import sha256_file
from vqa_train.store.store import FeatureStore

ROOT = Path(__file__).resolve().parents[2]


def test_every_damaged_video_has_a_row_or_a_reason(tmp_path: Path) -> None:
    script = ROOT / "tools" / "bench" / "soak_videos.py"
    arguments = ["--videos", "30", "--keep", str(tmp_path / "soak"), "--output", str(tmp_path)]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "soak_videos.json").read_text(encoding="utf-8"))
    # Counted again here, from the files and the store.
    files = [path for path in (tmp_path / "soak" / "data").iterdir() if path.suffix != ".csv"]
    keys = {sha256_file(path) for path in files}
    features = FeatureStore.open(tmp_path / "soak" / "store").find("nss")
    rows, failed = set(features.known_keys()), {failure.key for failure in features.failures()}
    assert len(keys) == len(files) == 30 + result["controls"]
    assert (rows | failed, rows & failed) == (keys, set())
    assert (result["rows"], result["failures"]) == (len(rows), len(failed))
    assert failed
    assert "| hevc |" in (tmp_path / "soak_videos.md").read_text(encoding="utf-8")
