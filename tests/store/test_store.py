"""A store makes and finds its feature sets; what is not a store or not the set it says is refused."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from vqa_train.core.errors import StoreError
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.store.seal import sealed
from vqa_train.store.store import FeatureStore


def test_a_set_is_created_once_and_opened_after_that(root, spec):
    first = FeatureStore(root).create_set(spec, license="MIT")
    data = (first.folder / "spec.json").read_bytes()
    again = FeatureStore(root).create_set(spec, license="MIT")
    assert (again.folder, again.spec, again.license) == (first.folder, spec, "MIT")
    assert (first.folder / "spec.json").read_bytes() == data
    assert first.folder == root / f"nss@{spec.fingerprint[:12]}"


def test_the_spec_file_holds_the_whole_spec(root, spec):
    folder = FeatureStore(root).create_set(spec, license="MIT").folder
    record = json.loads((folder / "spec.json").read_text())
    assert record.pop("seal")
    assert record == {
        "schema": "vqa-train/feature-set/1",
        "fingerprint": spec.fingerprint,
        "license": "MIT",
        "spec": spec.to_json(),
    }


def test_a_set_has_one_licence(root, spec):
    FeatureStore(root).create_set(spec, license="MIT")
    with pytest.raises(StoreError, match="under licence 'MIT', not 'CC-BY-NC-4.0'"):
        FeatureStore(root).create_set(spec, license="CC-BY-NC-4.0")


def test_many_may_create_one_set_at_once(root, spec):
    start = threading.Barrier(8)
    made, errors = [], []

    def create():
        start.wait()
        try:
            made.append(FeatureStore(root).create_set(spec, license="MIT").name)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, made) == ([], [spec.set_name] * 8)
    assert [found.name for found in FeatureStore.open(root).sets()] == [spec.set_name]


def test_an_edited_spec_is_not_its_fingerprints(root, spec):
    path = FeatureStore(root).create_set(spec, license="MIT").folder / "spec.json"
    record = json.loads(path.read_text())
    record["spec"]["definition"] = 9
    path.write_bytes(sealed(record))
    for use in (FeatureStore.open(root).sets, lambda: FeatureStore(root).create_set(spec, license="MIT")):
        with pytest.raises(StoreError, match="fingerprint"):
            use()


def test_a_file_with_another_fingerprint_than_its_spec_is_refused(root, spec):
    path = FeatureStore(root).create_set(spec, license="MIT").folder / "spec.json"
    path.write_bytes(sealed({**json.loads(path.read_text()), "fingerprint": spec.fingerprint[:12] + "0" * 52}))
    with pytest.raises(StoreError, match="fingerprint"):
        FeatureStore.open(root).sets()


def test_a_spec_of_a_later_version_says_so(root, spec):
    path = FeatureStore(root).create_set(spec, license="MIT").folder / "spec.json"
    record = json.loads(path.read_text())
    record["spec"]["schema"] = "vqa-train/feature-spec/9"
    path.write_bytes(sealed(record))
    with pytest.raises(StoreError, match=r"spec.json.*feature-spec/9.*install the version"):
        FeatureStore.open(root).sets()


@pytest.mark.parametrize("backbone", ["", "../x", "a/b", "a@b", ".x", "a b"])
def test_a_backbone_name_must_name_a_folder(root, spec, backbone):
    with pytest.raises(StoreError, match="cannot name a folder"):
        FeatureStore(root).create_set(replace(spec, backbone=backbone), license="MIT")
    assert not root.exists()


def test_a_folder_of_something_else_is_not_made_a_store(root, spec):
    root.mkdir()
    (root / "holiday.mp4").touch()
    with pytest.raises(StoreError, match="not empty and not a feature store"):
        FeatureStore(root).create_set(spec, license="MIT")
    assert [path.name for path in root.iterdir()] == ["holiday.mp4"]


def test_a_file_is_not_made_a_store(root, spec):
    root.touch()
    with pytest.raises(StoreError, match="is a file"):
        FeatureStore(root).create_set(spec, license="MIT")


def test_an_empty_folder_becomes_a_store(root, spec):
    root.mkdir()
    FeatureStore(root).create_set(spec, license="MIT")
    record = json.loads((root / "store.json").read_text())
    assert (record["schema"], len(record["seal"])) == ("vqa-train/store/1", 64)


@pytest.mark.parametrize("what", ["absent", "folder", "file"])
def test_opening_what_is_no_store_is_an_error(tmp_path, what):
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    if what == "file":
        path.touch()
    with pytest.raises(StoreError, match="is not a feature store: it .* - vqa-train extract-features makes one"):
        FeatureStore.open(path)


def test_a_store_of_another_version_is_refused(root, spec):
    FeatureStore(root).create_set(spec, license="MIT")
    (root / "store.json").write_bytes(sealed({"schema": "vqa-train/store/2"}))
    with pytest.raises(StoreError, match="vqa-train/store/1"):
        FeatureStore.open(root)


def test_a_set_is_found_by_name_prefix_or_fingerprint(root, spec, text_spec):
    store = FeatureStore(root)
    made = store.create_set(spec, license="MIT")
    store.create_set(text_spec, license="MIT")
    for selector in ("nss", f"nss@{spec.fingerprint[:4]}", made.name, f"nss@{spec.fingerprint}", spec.fingerprint):
        assert store.find(selector).name == made.name


def test_an_unknown_selector_lists_what_there_is(root, spec):
    store = FeatureStore(root)
    made = store.create_set(spec, license="MIT")
    for selector in ("dover", "nss@ffff", "f" * 64, "ns", ""):
        with pytest.raises(StoreError, match=f"no feature set '{selector}'; it has: {made.name}"):
            store.find(selector)


def test_an_ambiguous_selector_lists_the_candidates(root, spec):
    store = FeatureStore(root)
    names = [store.create_set(replace(spec, definition=d), license="MIT").name for d in (1, 2)]
    with pytest.raises(StoreError, match="ambiguous.*" + ", ".join(sorted(names))):
        store.find("nss")
    assert store.find(names[0]).name == names[0]


def test_sets_are_sorted_and_other_folders_left_alone(root, spec, text_spec):
    store = FeatureStore(root)
    store.create_set(spec, license="MIT")
    store.create_set(text_spec, license="MIT")
    (root / "notes").mkdir()
    (root / "nss@0123456789ab").mkdir()  # a crash before its spec.json
    assert [found.name for found in store.sets()] == [text_spec.set_name, spec.set_name]


def test_a_set_that_lost_its_spec_is_an_error(root, spec, make_row):
    features = FeatureStore(root).create_set(spec, license="MIT")
    features.append([make_row(spec, 1)], profile={}, run_id="r")
    (features.folder / "spec.json").unlink()
    with pytest.raises(StoreError, match=r"spec.json' is missing"):
        FeatureStore.open(root).sets()


def test_a_set_with_impossible_columns_is_refused(root):
    spec = FeatureSpec(backbone="x", definition=1, modality="text", outputs=(OutputSpec(name="view", shape=(1,)),))
    with pytest.raises(StoreError, match="'view' cannot be an output's name"):
        FeatureStore(root).create_set(spec, license="MIT")


def test_paths_with_spaces_and_unicode_work(tmp_path, spec, make_row):
    features = FeatureStore(tmp_path / "a=b ünï %20").create_set(spec, license="MIT")
    features.append([make_row(spec, 1, view) for view in (0, 1)], profile={}, run_id="r")
    assert len(features.read()) == 2
