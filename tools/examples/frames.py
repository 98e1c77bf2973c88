"""Scores and features as a data frame, with Polars or pandas, one line each.

    pip install vqa-train polars     # or pandas pyarrow; no torch
    vqa-score clips/ --model NAME --format csv --output scores.csv
    python frames.py scores.csv                          # the ten worst videos
    python frames.py scores.csv --features STORE/nss@0123456789ab --with pandas

Copy the line that you need. A shard is plain Parquet: one row per video and view, each output a list of float32.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def scores_polars(path: Path) -> Any:
    """scores.csv of vqa-score: a row per video, failures too (their scores are null)."""
    import polars as pl

    return pl.read_csv(path)


def scores_pandas(path: Path) -> Any:
    """The same in pandas."""
    import pandas as pd

    return pd.read_csv(path)


def json_polars(path: Path) -> Any:
    """scores.json of vqa-score --format json: scores, spreads and intervals are structs."""
    import json

    import polars as pl

    return pl.DataFrame(json.loads(path.read_text())["results"]).unnest("scores")


def json_pandas(path: Path) -> Any:
    """The same in pandas: `scores.overall`, `interval.overall`, ... are columns."""
    import json

    import pandas as pd

    return pd.json_normalize(json.loads(path.read_text())["results"])


def features_polars(feature_set: Path) -> Any:
    """All rows of a feature set; `frame["pooled"].to_numpy()` is float32 (rows, D)."""
    import polars as pl

    return pl.read_parquet(feature_set / "shards" / "*.parquet").unique(["video_sha256", "view"])


def features_pandas(feature_set: Path) -> Any:
    """The same in pandas; `numpy.stack(frame["pooled"])` is float32 (rows, D)."""
    import pandas as pd

    shards = map(pd.read_parquet, (feature_set / "shards").glob("*.parquet"))
    return pd.concat(shards).drop_duplicates(["video_sha256", "view"])


READERS: dict[str, dict[str, Callable[[Path], Any]]] = {
    "polars": {".csv": scores_polars, ".json": json_polars, "features": features_polars},
    "pandas": {".csv": scores_pandas, ".json": json_pandas, "features": features_pandas},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, help="scores.csv or scores.json")
    parser.add_argument("--target", default="overall")
    parser.add_argument("--features", type=Path, help="folder of a feature set")
    parser.add_argument("--with", dest="library", choices=sorted(READERS), default="polars")
    options = parser.parse_args()
    readers = READERS[options.library]
    frame = readers[options.scores.suffix](options.scores)
    polars = options.library == "polars"
    name = options.target if options.target in frame.columns else f"scores.{options.target}"
    worst = frame.sort(name, nulls_last=True) if polars else frame.sort_values(name)
    print(worst[["video", name]].head(10))
    if options.features:
        features = readers["features"](options.features)
        print(f"{len(features)} rows of features: {', '.join(features.columns)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
