"""Adapter `qualivision`: folders train|val|test, each with labels/*.csv and videos/, five targets on a 1-5 scale."""

from __future__ import annotations

from pathlib import Path

from vqa_train.core.errors import ManifestError
from vqa_train.datasets.adapters.base import DatasetAdapter, Layout
from vqa_train.datasets.manifest import SPLITS, LabelTable, MosRange

TARGETS = {
    "technical": "Traditional_MOS",
    "alignment": "Alignment_MOS",
    "aesthetic": "Aesthetic_MOS",
    "temporal": "Temporal_MOS",
    "overall": "Overall_MOS",
}


class QualivisionAdapter(DatasetAdapter):
    """Text-to-video challenge data: `<split>/labels/*.csv` (video_name, Prompt, MOS) and `<split>/videos/`."""

    def discover(self, root: Path) -> Layout:
        """The label tables of each split folder that is there."""
        labels = tuple(
            LabelTable(path=table.relative_to(root).as_posix(), split=split)
            for split in SPLITS
            for table in sorted((root / split / "labels").glob("*.csv"))
            if not table.name.startswith(".")
        )
        if not labels:
            raise ManifestError(
                f"folder {str(root)!r} has no train|val|test/labels/*.csv",
                hint="scan the folder that holds train, val and test, or use --adapter csv",
            )
        return Layout(
            labels=labels,
            columns={"id": "video_name", "prompt": "Prompt"},
            targets=TARGETS,
            mos=MosRange(min=1, max=5),
        )

    def file_hint(self, table: LabelTable, value: str) -> str:
        """Files lie in `videos/` beside the `labels/` folder of the table that names them."""
        return f"{Path(table.path).parents[1].as_posix()}/videos/{value}"
