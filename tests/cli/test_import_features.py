"""`vqa-train import-features` prints what it did, exits as documented, and writes the same as JSON."""

from __future__ import annotations

import json

import pytest

from vqa_train.cli import common, main
from vqa_train.datasets.load import load_dataset


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """`run(*arguments)`: exit code, stdout, stderr of `import-features` in tmp_path."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["vqa-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            common.run(main.app)
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "features.csv"
    path.write_text("clip,MOS,SD,scene,f_0,f_1\na,1.5,0.5,s,1,2\nb,4,0.25,s,3,nan\nc,,,t,5,6\n")
    return path


OPTIONS = (
    *("--name", "brisque", "--output", "store", "--dataset", "mine", "--id-column", "clip", "--dim-columns", "f_*"),
    *("--label", "overall=MOS", "--std-column", "SD", "--group-column", "scene", "--mos-range", "1,5"),
)


def test_a_user_sees_what_was_read_and_what_comes_next(run, table, tmp_path):
    code, out, err = run("import-features", table, *OPTIONS)
    assert (code, err) == (0, "")
    for text in (
        "3: 3 added, 0 there already",
        "2 dimensions from f_0 ... f_1 (2 columns)",
        "mine, 3 videos, written: store/datasets/mine.yaml",
        "overall from MOS: 2 scores (1 rows without), range 1 to 5 (given), higher is better, deviation from SD",
        "scene: 2 groups",
        "note: 1 NaN or infinite values in 1 rows, kept as published",
        "next: vqa-train fit --config features --input features=brisque --dataset mine --features store --output RUN",
    ):
        assert text in out
    assert load_dataset("mine", stores=[tmp_path / "store"]).videos[1].label_std == {"overall": 0.25}


def test_a_second_time_says_that_nothing_is_new(run, table):
    run("import-features", table, *OPTIONS)
    code, out, _ = run("import-features", table, *OPTIONS)
    assert code == 0
    assert "(nothing new)" in out
    assert "3: 0 added, 3 there already" in out


def test_store_info_says_where_features_came_from(run, table):
    run("import-features", table, *OPTIONS)
    code, out, _ = run("store", "info", "store")
    assert code == 0
    assert "f_0 ... f_1 of a file with sha256" in out
    assert "1 rows of pooled hold NaN or infinity" in out
    assert "RANDOM" not in out


def test_the_same_as_json(run, table):
    code, out, _ = run("import-features", table, *OPTIONS, "--json", "-")
    report = json.loads(out)
    assert code == 0
    assert report["schema"] == "vqa-train/import-report/1"
    assert report["columns"]["labels"] == {"overall": "MOS"}
    assert report["dataset"]["targets"][0]["range"] == [1, 5]


def test_rows_without_features_end_with_4_and_are_named(run, tmp_path):
    import polars as pl

    path = tmp_path / "x.parquet"
    pl.DataFrame({"video_id": list("abcdefgh"), "features": [[1.0], *[None] * 7]}).write_parquet(path)
    code, _, err = run("import-features", path, "--name", "x", "--output", "store")
    assert code == 4
    assert "warning: 7 rows have no vector and were left out: b, c, d, e, f, and 2 more (--json has all)" in err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--mos-range", "5"), 2, "--mos-range '5' is not [NAME=]LOW,HIGH - as in --mos-range 1,5"),
        (("--mos-range", "x=1,b"), 2, "--mos-range 'x=1,b' is not [NAME=]LOW,HIGH"),
        (("--label", "MOS="), 2, "--label 'MOS=' is not a new [NAME=]COLUMN"),
        (("--label", "a=MOS", "--label", "a=SD"), 2, "--label 'a=SD' is not a new"),
        (("--label", "MOS", "--label", "SD", "--std-column", "SD"), 2, "does not say of which of the labels MOS, SD"),
        (("--label", "mos"), 1, "no column 'mos' - did you mean 'MOS'?"),
        (("--id-column", "MOS"), 1, "row 3 column 'MOS': the id is empty"),
        ((), 2, "no column 'video_id'; it has clip, MOS, SD, scene, f_0, f_1 - name the column"),
    ],
)
def test_an_error_is_one_line_that_says_how_to_mend_it(run, table, options, code, message):
    given = ("--name", "x", "--output", "store", "--dim-columns", "f_*", *options)
    ids = () if not options or "--id-column" in options else ("--id-column", "clip")
    found, out, err = run("import-features", table, *given, *ids)
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
