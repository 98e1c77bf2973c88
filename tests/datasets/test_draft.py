"""Drafting: what was given wins over the older manifest, that over the adapter; what nobody knows is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vqa_train.core.errors import ConfigError, LabelError, Reason, UsageError
from vqa_train.datasets.draft import ScanConfig, draft_manifest
from vqa_train.datasets.manifest import DatasetManifest


@pytest.fixture
def config(tmp_path: Path, write_csv: Callable[..., Path]) -> ScanConfig:
    write_csv(tmp_path / "data/labels.csv", ("video", "mos", "dmos"), [("a", 2, 50)])
    return ScanConfig(
        root=tmp_path / "data",
        output=tmp_path / "manifests/mine.v2.yaml",
        labels=(("labels.csv", None),),
        columns={"id": "video"},
        targets={"overall": "mos"},
        mos_min=1,
        mos_max=5,
    )


def draft(config: ScanConfig, existing: DatasetManifest | None = None) -> DatasetManifest:
    return draft_manifest(config, existing)[0]


def test_a_draft_from_nothing(config: ScanConfig) -> None:
    manifest = draft(config)
    assert (manifest.name, manifest.license, manifest.adapter, manifest.root) == ("mine", "unknown", "csv", "../data")
    assert manifest.columns.targets == {"overall": "mos"}
    assert manifest.labels[0].bytes == len("video,mos,dmos\na,2,50\n")


def test_what_an_older_manifest_says_is_kept_unless_given(config: ScanConfig) -> None:
    older = draft(
        replace(
            config,
            license="CC-BY-4.0",
            citation="Someone, 2020",
            std={"overall": "dmos"},
            attributes=("dmos",),
            fractions={"train": 0.8, "test": 0.2},
            salt="s",
        )
    )
    open_config = ScanConfig(root=config.root, output=config.output, license="MIT")
    manifest = draft(open_config, older)
    assert manifest == older.model_copy(update={"license": "MIT"})


def test_new_targets_replace_old_ones_and_keep_their_own_scales(config: ScanConfig) -> None:
    older = draft(replace(config, targets={"overall": "mos", "damage": "dmos"}, mos_max=100.0))
    scaled = older.to_yaml().replace(
        "- damage", "- {name: damage, mos: {min: 0, max: 100, direction: lower_is_better}}"
    )
    import yaml

    older = DatasetManifest.model_validate(yaml.safe_load(scaled))
    manifest = draft(replace(config, targets={"damage": "dmos"}), older)
    assert manifest.target_names == ("damage",)
    assert manifest.range_of("damage").direction == "lower_is_better"
    assert manifest.columns.targets == {"damage": "dmos"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {}}, r"no id column.*--id-column.*labels\.csv has the columns video, mos, dmos"),
        ({"targets": {}}, r"no target.*--target NAME=COLUMN.*labels\.csv has the columns video, mos, dmos"),
        ({"mos_min": None}, "--mos-min and --mos-max"),
        ({"labels": ()}, "--labels FILE"),
        ({"labels": (("labels.csv", "tset"),)}, r"unknown split 'tset'.*did you mean 'test'"),
        ({"adapter": "qualvision"}, r"unknown dataset_adapter 'qualvision'.*did you mean 'qualivision'"),
        ({"salt": "x"}, "salt was given without split fractions"),
    ],
)
def test_what_nobody_said_is_asked_for(config: ScanConfig, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draft(replace(config, **changes))


def test_what_breaks_the_schema_is_refused(config: ScanConfig) -> None:
    with pytest.raises(ConfigError, match=r"fractions must sum to 1"):
        draft(replace(config, fractions={"train": 0.5}))
    with pytest.raises(ConfigError, match="must be below max"):
        draft(replace(config, mos_min=9))


def test_label_tables_are_found_from_here_or_from_the_root_and_must_lie_in_it(
    config: ScanConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("labels.csv", "data/labels.csv", str(config.root / "labels.csv")):
        assert draft(replace(config, labels=((given, None),))).labels[0].path == "labels.csv"
    (tmp_path / "outside.csv").write_text("video,mos\n")
    with pytest.raises(LabelError, match="outside the data root") as outside:
        draft(replace(config, labels=(("outside.csv", None),)))
    assert outside.value.reason == Reason.PATH_ESCAPE
    with pytest.raises(LabelError, match=r"gone\.csv' cannot be read: No such file") as gone:
        draft(replace(config, labels=(("gone.csv", None),)))
    assert gone.value.reason == Reason.MISSING_FILE
