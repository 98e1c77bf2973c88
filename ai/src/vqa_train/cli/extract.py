"""vqa-train extract-features: parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vqa_train.cli.common import EXIT_INTERRUPTED, JsonOption, emit_json, log, print_line, print_table
from vqa_train.cli.options import DataRootOption, ManifestsOption, StoreOutputOption
from vqa_train.cli.signals import stop_on_signals

if TYPE_CHECKING:
    from vqa_train.pipelines.extract.estimate import Estimate
    from vqa_train.pipelines.extract.run import ExtractReport


def extract_features(
    dataset: Annotated[
        str,
        typer.Option("--dataset", metavar="NAME|YAML", help="Dataset: a name under manifests/, or a manifest file."),
    ],
    output: StoreOutputOption,
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbone", metavar="NAME[:SETTING=VALUE,...]", help="Video backbone; may be repeated."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="NAME", help="Text encoder for the prompts; may be repeated.")
    ] = None,
    data_root: DataRootOption = None,
    manifests: ManifestsOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ... (auto: a GPU if there is one)")] = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="(auto: bfloat16 on a GPU, float32 on a CPU)")
    ] = "auto",
    batch: Annotated[int, typer.Option(min=0, help="Clips per forward; 0: found by timing on a GPU.")] = 0,
    compile_: Annotated[bool, typer.Option("--compile", help="Use torch.compile (slow start, faster then).")] = False,
    random_weights: Annotated[
        int | None,
        typer.Option(metavar="SEED", help="Random weights, for tests and benchmarks; `register` refuses what follows."),
    ] = None,
    num_shards: Annotated[
        int | None, typer.Option(min=1, help="Share the videos out among so many processes, by content, ...")
    ] = None,
    shard_id: Annotated[
        str | None,
        typer.Option(metavar="K|slurm", help="... and take the K-th share, from 0; slurm: as the array's task says."),
    ] = None,
    decoder: Annotated[str, typer.Option(help="pyav, decord, or nvdec on an NVIDIA GPU.")] = "pyav",
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster (docs/scale-out.md).")] = "local",
    workers: Annotated[
        int | None, typer.Option(min=0, help="Decoding processes; 0 decodes in this one. (default: number of CPUs)")
    ] = None,
    video_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to decode a video, before its length is counted in: ...")
    ] = 60.0,
    video_timeout_per_second: Annotated[
        float, typer.Option(min=0, help="... so many more per second of video, ...")
    ] = 5,
    video_timeout_max: Annotated[float, typer.Option(min=0.1, help="... and never more than this.")] = 3600,
    video_memory: Annotated[
        float, typer.Option(min=0.1, metavar="GIB", help="GiB of memory that decoding a video may take.")
    ] = 4.0,
    video_pixels: Annotated[int, typer.Option(min=1, help="Pixels per frame above which a video is refused.")] = 1
    << 26,
    recycle: Annotated[
        int, typer.Option(min=1, help="Videos after which a decoding process is replaced by a fresh one.")
    ] = 500,
    shard_rows: Annotated[int, typer.Option(min=1, help="Commit a shard after so many rows, ...")] = 256,
    shard_seconds: Annotated[float, typer.Option(min=0, help="... or after so many seconds.")] = 60.0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take up videos that failed before.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many videos in this run.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; say what would be extracted, how long, how many bytes.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Run frozen backbones over every video (and prompt) once and commit the features to a store.

    Running it again extracts only what is new. Ctrl-C (or SIGTERM) once finishes and commits the videos under way,
    twice stops now; either way the same command goes on from there.

    Exit code 4: done, but some inputs have no features (`vqa-train store failures STORE` says why).
    """
    import os

    # Before torch is loaded: idle OpenMP threads that spin take the cores from the decoders.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from vqa_train.pipelines.extract.config import ExtractConfig
    from vqa_train.pipelines.extract.shards import parse_shard
    from vqa_train.video.job import DecodeLimits

    config = ExtractConfig(
        dataset=dataset,
        output=output,
        backbones=tuple(backbone or ()),
        text=tuple(text or ()),
        data_root=data_root,
        manifests_dir=manifests,
        device=device,
        precision=precision,
        batch=batch,
        compiled=compile_,
        random_weights=random_weights,
        shard=parse_shard(shard_id, num_shards),
        decoder=decoder,
        engine=engine,
        workers=workers if workers is not None else os.cpu_count() or 1,
        limits=DecodeLimits(
            timeout_base_s=video_timeout,
            timeout_per_s=video_timeout_per_second,
            timeout_max_s=video_timeout_max,
            memory_bytes=int(video_memory * (1 << 30)),
            max_pixels=video_pixels,
        ),
        recycle=recycle,
        shard_rows=shard_rows,
        shard_seconds=shard_seconds,
        retry_failed=retry_failed,
        limit=limit,
    )
    if dry_run:
        from vqa_train.pipelines.extract.estimate import estimate

        found = estimate(config, log=log)
        emit_json(found.to_json(), json)
        if json != "-":
            _print_estimate(found)
        return
    try:
        with stop_on_signals() as stop:
            from vqa_train.pipelines.extract import run as extract

            report = extract.extract_features(config, log=log, stop=stop)
    except KeyboardInterrupt:
        os._exit(EXIT_INTERRUPTED)
    emit_json(report.to_json(), json)
    if json != "-":
        _print(report, output)
    if report.interrupted:
        # Threads that compute what nobody waits for any more would hold the process up.
        sys.stdout.flush()
        os._exit(EXIT_INTERRUPTED)
    raise typer.Exit(report.exit_code)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _print_estimate(found: Estimate) -> None:
    from vqa_train.pipelines.extract.compute import in_words

    rows = [[s.name, s.videos, _size(s.bytes), s.known, s.failed_before] for s in found.sets]
    print_table("would be extracted", ["feature set", "videos", "features", "known", "failed before"], rows)
    if not found.videos:
        print_line("nothing to do")
    elif found.seconds == found.seconds:
        print_line(
            f"about {in_words(found.seconds)} for {found.videos} videos on {found.device} in {found.precision}: "
            f"{found.decode_seconds:.2f} s of one core to decode and {found.network_seconds:.2f} s to compute, each"
        )
    else:
        print_line("time unknown: none of the videos tried could be decoded")


def _print(report: ExtractReport, output: Path) -> None:
    rows = [
        [s.name, s.inputs, s.known, s.done, sum(s.failed.values()), sum(s.skipped.values()), s.left]
        for s in report.sets
    ]
    columns = ["feature set", "inputs", "known", "new", "failed", "failed before", "left"]
    print_table(f"{output} ({report.duration_s:.1f} s)", columns, rows)
    for feature_set in report.sets:
        for reason, count in sorted((feature_set.failed + feature_set.skipped).items()):
            print_line(f"{feature_set.name}: {count} x {reason}")
    if report.exit_code == 4:
        log(f"some inputs have no features: `vqa-train store failures {output}` lists them; --retry-failed tries again")
    if report.interrupted:
        log("interrupted: what was committed is kept; the same command goes on from there")
