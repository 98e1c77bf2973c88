"""The JSON sidecar of a model: one schema, written by `export` (unregistered) and completed by `register`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from vqa_train.core.config import StrictModel, load_json, parse
from vqa_train.core.errors import ModelError
from vqa_train.core.files import atomic_write_json
from vqa_train.core.types import FeatureSpec
from vqa_train.registry.facts import Calibration, MemberFacts, ProtocolSummary, TrainingStatistics
from vqa_train.registry.reference import NAME_PATTERN

SIDECAR_SCHEMA = "vqa-train/model/1"
HEAD_FILE, SIDECAR_FILE, CARD_FILE = "model.onnx", "model.json", "README.md"
"""Names inside the folder of a registered model."""
SCORES, SPREAD, LOW, HIGH = "scores", "spread", "low", "high"
OUTPUTS = ((SCORES,), (SCORES, SPREAD), (SCORES, LOW, HIGH), (SCORES, SPREAD, LOW, HIGH))
"""Outputs that a head's graph may have, each float32 (N, targets)."""
INTERVAL_KEY = "vqa_train.interval"
"""Key of the metadata that says which half widths a graph was built with, as `Calibration.in_graph` gives them."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ModelName = Annotated[str, StringConstraints(pattern=rf"^{NAME_PATTERN}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{7,40}|unknown)$")]
Direction = Literal["higher_is_better", "lower_is_better"]
Kind = Literal["nr", "fr"]
Range = tuple[float, float]


# Left out of the file where not set, so that a reader that does not know them reads every model without them.
_LATER = {
    "shape", "of", "outputs", "optional_inputs", "datasets", "members", "calibration", "protocol", "scales", "card",
    "training_statistics", "quantization",
}  # fmt: skip


class FileHash(StrictModel):
    """A file beside the sidecar: relative path, hash and size of its bytes."""

    file: str
    sha256: Sha256
    bytes: int


class OnnxFile(StrictModel):
    """An ONNX file beside the sidecar: relative path, hash and size of its bytes, default operator set."""

    file: str
    sha256: Sha256
    bytes: int
    opset: int


class BackboneOnnx(StrictModel):
    """The ONNX file of a frozen backbone.

    Attributes:
        file: path relative to the sidecar, None when `cached`.
        cached: too large for the model's folder; found by hash in the cache of ONNX files.
        inputs: name -> dimensions, a name where one may vary.
    """

    file: str | None
    sha256: Sha256
    bytes: int
    cached: bool
    inputs: dict[str, list[int | str]]

    @model_validator(mode="after")
    def _file_or_cache(self) -> BackboneOnnx:
        if (self.file is None) != self.cached:
            raise ValueError("a backbone's ONNX has a file or is cached, not both and not neither")
        return self


class TokenizerFile(StrictModel):
    """The `tokenizers` file of a text encoder; texts are cut after `max_tokens`, special tokens included."""

    file: str
    sha256: Sha256
    max_tokens: int


class ModelInput(StrictModel):
    """One named input of the head and the whole identity of the feature it takes.

    Attributes:
        name: of the graph's input.
        modality: "video" or "text".
        backbone: registry name.
        fingerprint: of the feature set that the head was fitted on.
        output: which output of the backbone.
        dim: length of the last axis.
        shape: of one row where it is no vector, (T, D).
        of: "reference" where it is the feature of the video's reference; None for the video itself.
        spec: the feature spec whole; its recomputed fingerprint must be `fingerprint`.
        license: of the backbone's weights.
        backbone_onnx, tokenizer: set by `register`; a tokenizer for text only.
    """

    name: str
    modality: Literal["video", "text"]
    backbone: str
    fingerprint: Sha256
    output: str
    dim: int = Field(gt=0)
    shape: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    of: Literal["reference"] | None = None
    spec: dict[str, Any]
    license: str
    backbone_onnx: BackboneOnnx | None = None
    tokenizer: TokenizerFile | None = None

    @model_validator(mode="after")
    def _shape_ends_in_dim(self) -> ModelInput:
        if self.shape is not None and self.shape[-1:] != (self.dim,):
            raise ValueError(f"input {self.name!r} has shape {list(self.shape)}, which does not end in dim {self.dim}")
        return self

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape of one row."""
        return (self.dim,) if self.shape is None else self.shape

    def feature_spec(self) -> FeatureSpec:
        """The spec, with what this record says of it checked against it.

        Raises:
            ModelError: another fingerprint, backbone, modality or dimension than the spec's.
            ConfigError: the spec itself is malformed.
        """
        spec = FeatureSpec.from_json(self.spec)
        claims = {
            "fingerprint": (self.fingerprint, spec.fingerprint),
            "backbone": (self.backbone, spec.backbone),
            "modality": (self.modality, spec.modality),
            "dim": (list(self.dims), list(spec.output(self.output).shape)),
        }
        for what, (claimed, found) in claims.items():
            if claimed != found:
                raise ModelError(f"model input {self.name!r} claims {what} {claimed!r}, its feature spec has {found!r}")
        return spec


class DatasetRef(StrictModel):
    """What the model was fitted on."""

    name: str
    version: str | None = None
    manifest_sha256: Sha256 | None = None


class GoldenRows(StrictModel):
    """A few rows as they occur in the store and what the graph gave for them.

    Attributes:
        inputs: input name -> rows of `prod(shape)` numbers, the last axis fastest; None for a missing value.
        scores: per row, one number per target.
        outputs: further outputs likewise; None for an end of an interval that is not bounded.
        tolerance: |difference| / max(1, |score|) that a replay may show.
    """

    inputs: dict[str, list[list[float | None]]]
    scores: list[list[float]]
    outputs: dict[str, list[list[float | None]]] | None = None
    tolerance: float = Field(default=1e-5, gt=0)


class ModelSidecar(StrictModel):
    """Everything that is known of a model; the fields that only `register` knows are None until then.

    Attributes:
        schema_version: of this schema; how it is bumped is in docs/formats/model.md.
        kind: "nr" (the video alone) or "fr" (the video against its reference).
        output_names: of the graph, one of `OUTPUTS`.
        optional_inputs: may be absent (NaN) when a video is scored: the heads were trained to do without them.
        input_normalization: where inputs are standardised, in words.
        expected_output_range: target -> range of scores to expect; one outside says that the video is unlike those
            it was fitted on.
        mos_range: target -> the dataset's scale.
        dataset: what it was fitted on; the first of `datasets` where it was several, whose scale the scores have.
        members: what is averaged.
        calibration: where the intervals `low` to `high` come from.
        protocol: how the recipe did on rows that it was not fitted on.
        scales: dataset -> target -> its map from the scale of the scores, where several datasets were joined.
        card: the model card; `register` sets it.
        training_statistics: of the rows that it was fitted on, which drift is measured against.
        quantization: how the graph was made from one in floating point, and what that cost.
        inherited_licenses: source (dataset or feature set) -> licence.
        metrics: what `eval` reported, as it reported it.
        parity: the report of the export's parity check.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_version: Literal["vqa-train/model/1"] = "vqa-train/model/1"
    name: ModelName
    version: ModelName = "1"
    registered: bool = False
    kind: Kind | None = None
    onnx: OnnxFile
    inputs: list[ModelInput] = Field(min_length=1)
    output_names: list[str] = Field(default=[SCORES], min_length=1)
    optional_inputs: list[str] | None = None
    targets: list[str] = Field(min_length=1)
    input_normalization: str
    expected_output_range: dict[str, Range]
    direction: Direction
    mos_range: dict[str, Range]
    dataset: DatasetRef | None = None
    datasets: list[DatasetRef] | None = None
    members: list[MemberFacts] | None = None
    calibration: Calibration | None = None
    protocol: ProtocolSummary | None = None
    scales: dict[str, dict[str, dict[str, Any]]] | None = None
    card: FileHash | None = None
    training_statistics: TrainingStatistics | None = None
    quantization: dict[str, Any] | None = None
    train_commit: Commit | None = None
    train_config_hash: Sha256
    license: str | None = None
    inherited_licenses: dict[str, str]
    descends_from_random_weights: bool
    metrics: dict[str, Any] | None = None
    parity: dict[str, Any]
    golden_rows: GoldenRows
    run_provenance: dict[str, Any]

    @model_validator(mode="after")
    def _consistent(self) -> ModelSidecar:
        for what, names in (("inputs", [i.name for i in self.inputs]), ("targets", self.targets)):
            if len(set(names)) != len(names):
                raise ValueError(f"{what} have duplicate names")
        for what, ranges in (("expected_output_range", self.expected_output_range), ("mos_range", self.mos_range)):
            if sorted(ranges) != sorted(self.targets):
                raise ValueError(f"{what} has {sorted(ranges)}, targets are {sorted(self.targets)}")
        unknown = sorted(set(self.optional_inputs or ()) - {item.name for item in self.inputs})
        if unknown:
            raise ValueError(f"optional_inputs has {unknown}, which are no inputs")
        self._check_outputs()
        if self.registered:
            self._refuse_incomplete()
        return self

    def _check_outputs(self) -> None:
        if tuple(self.output_names) not in OUTPUTS:
            raise ValueError(f"output_names must be one of {list(map(list, OUTPUTS))}")
        calibration = self.calibration
        bounded = calibration is not None and calibration.bounded
        if bounded != (LOW in self.output_names):
            raise ValueError(
                f"output_names are {self.output_names}, calibration has {'' if bounded else 'no '}intervals"
            )
        if calibration is None:
            return
        if sorted(calibration.targets) != sorted(self.targets):
            raise ValueError(f"calibration has {sorted(calibration.targets)}, targets are {sorted(self.targets)}")
        if calibration.normalised and bounded and SPREAD not in self.output_names:
            raise ValueError("calibration is in units of the spread, which is not in output_names")

    def _refuse_incomplete(self) -> None:
        lacking = [f for f in ("kind", "dataset", "train_commit", "license") if getattr(self, f) is None]
        for item in self.inputs:
            lacking += [] if item.backbone_onnx else [f"inputs.{item.name}.backbone_onnx"]
            lacking += [] if item.tokenizer or item.modality == "video" else [f"inputs.{item.name}.tokenizer"]
        if lacking:
            raise ValueError(f"a registered model lacks {', '.join(lacking)}")

    @property
    def takes_reference(self) -> bool:
        """Whether features of a reference video go into the scores."""
        return any(item.of == "reference" for item in self.inputs)

    @property
    def takes_prompt(self) -> bool:
        """Whether a text beside the video goes into the scores."""
        return any(item.modality == "text" for item in self.inputs)

    @property
    def needs_prompt(self) -> bool:
        """Whether nothing can be scored without that text."""
        texts = {item.name for item in self.inputs if item.modality == "text"}
        return bool(texts) and (len(texts) == len(self.inputs) or not texts <= set(self.optional_inputs or ()))

    def to_json(self) -> dict[str, Any]:
        """The file's value; a model without what the later optional fields say has none of them in its file."""
        value = self.model_dump(mode="json", by_alias=True)
        for owner in (value, value["golden_rows"], *value["inputs"]):
            for name in _LATER & owner.keys():
                if owner[name] is None:
                    del owner[name]
        return value

    def identity(self) -> dict[str, Any]:
        """The file's value without when and where it was made: two registrations of one model have the same."""
        return {key: value for key, value in self.to_json().items() if key != "run_provenance"}


def sidecar_path(onnx_path: Path) -> Path:
    """NAME.json beside NAME.onnx."""
    return onnx_path.with_suffix(".json")


def write_sidecar(path: Path, sidecar: ModelSidecar) -> None:
    """Write the sidecar atomically.

    Raises:
        OSError: it cannot be written; what was there is unchanged.
    """
    atomic_write_json(path, sidecar.to_json(), numbers_inline=True)


def read_sidecar(path: Path) -> ModelSidecar:
    """The sidecar in a file.

    Raises:
        ModelError: no such file or another schema version.
        ConfigError: not JSON or not of the schema.
    """
    if not path.is_file():
        raise ModelError(f"model sidecar {str(path)!r} does not exist", hint="`vqa-train export` writes it")
    value = load_json(path, "model sidecar")
    found = value.get("schema_version") if isinstance(value, dict) else None
    if found != SIDECAR_SCHEMA:
        raise ModelError(
            f"model sidecar {str(path)!r} has schema {found!r}, expected {SIDECAR_SCHEMA!r}",
            hint="use the version of vqa-train that wrote it",
        )
    return parse(ModelSidecar, value, str(path))
