"""Whether rows that a model is measured on took no part in its fit, as far as its sidecar and the manifests show."""

from __future__ import annotations

from collections.abc import Mapping

from vqa_train.pipelines.evaluate.seen_rows import fitted_datasets, keeps_test_rows
from vqa_train.pipelines.gates.result import Check
from vqa_train.registry.sidecar import ModelSidecar


def unseen_check(name: str, sidecar: ModelSidecar, datasets: Mapping[str, str], split: str) -> Check:
    """Fails where the rows were fitted on, is `not_run` where nothing recorded tells.

    Args:
        name: of the check.
        sidecar: of the model.
        datasets: name -> sha256 of the manifest that it was measured with.
        split: the rows that it was measured on: "train", "val", "test" or "all".
    """
    own = sorted(set(datasets) & set(fitted_datasets(sidecar)))
    if not own:
        return Check.passed(name, f"not fitted on {', '.join(sorted(datasets))}")
    if split != "test":
        return Check.failed(name, f"split {split!r} of {', '.join(own)} holds rows that it was fitted on")
    kept = keeps_test_rows(sidecar)
    if kept is None:
        return Check.not_run(name, "its sidecar does not tell which rows it was fitted on")
    if not kept:
        own_numbers = f"; its {sidecar.protocol.folds} held-out folds are in its sidecar" if sidecar.protocol else ""
        return Check.failed(name, f"it was fitted on the test rows of {', '.join(own)} too{own_numbers}")
    changed = changed_manifests(sidecar, datasets)
    if changed:
        return Check.not_run(
            name,
            f"the manifest of {', '.join(changed)} has changed since the fit, so its test rows may be others",
        )
    return Check.passed(name, f"test rows of {', '.join(own)} took no part in its fit")


def changed_manifests(sidecar: ModelSidecar, datasets: Mapping[str, str]) -> list[str]:
    """Datasets of the fit whose manifest, and with it the labels, is another than it was; unknown ones are not named.

    Args:
        datasets: name -> sha256 of the manifest.
    """
    refs = sidecar.datasets or ([sidecar.dataset] if sidecar.dataset is not None else [])
    fitted = {ref.name: ref.manifest_sha256 for ref in refs if ref.manifest_sha256 is not None}
    return sorted(name for name, sha256 in datasets.items() if fitted.get(name, sha256) != sha256)
