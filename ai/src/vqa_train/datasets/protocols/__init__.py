"""Protocols: which rows train, validate and test; decided by content, written as files that can be used again."""

from vqa_train.datasets.protocols.config import (
    KINDS,
    CrossDataset,
    FixedSplits,
    HashSplits,
    KFold,
    LeaveOneDatasetOut,
    LeaveOneGroupOut,
    Protocol,
    RepeatedRandom,
    SplitsFile,
    parse_protocol,
)
from vqa_train.datasets.protocols.file import read_plan, write_plan
from vqa_train.datasets.protocols.make import plan_splits
from vqa_train.datasets.protocols.plan import PlanFold, PlanRow, SplitPlan

__all__ = [
    "KINDS",
    "CrossDataset",
    "FixedSplits",
    "HashSplits",
    "KFold",
    "LeaveOneDatasetOut",
    "LeaveOneGroupOut",
    "PlanFold",
    "PlanRow",
    "Protocol",
    "RepeatedRandom",
    "SplitPlan",
    "SplitsFile",
    "parse_protocol",
    "plan_splits",
    "read_plan",
    "write_plan",
]
