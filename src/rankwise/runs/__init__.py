"""A training run in a folder: its configuration, what an interruption keeps, its report.

A run folder holds ``run.json`` (what was asked for), ``subnets/`` (finished sub-networks, or the
last epoch of a joint training), ``model.safetensors`` and ``model.json``, ``report.json`` (written
last: its presence means the run is complete) and two pictures.
"""

from __future__ import annotations

from rankwise._machine import environment
from rankwise.runs.evaluating import evaluate
from rankwise.runs.exploring import explore
from rankwise.runs.records import (
    CONFIGURATION,
    EXPLORED,
    EXPORTED,
    REPORT,
    SUBNETS,
    TrainingRun,
    finished_parts,
    holds,
    refuse_model_file,
)
from rankwise.runs.training import train
from rankwise.runs.use import confusion, images_for, predict, reading_of, test_images_of

__all__ = [
    "CONFIGURATION",
    "EXPLORED",
    "EXPORTED",
    "REPORT",
    "SUBNETS",
    "TrainingRun",
    "confusion",
    "environment",
    "evaluate",
    "explore",
    "finished_parts",
    "holds",
    "images_for",
    "predict",
    "reading_of",
    "refuse_model_file",
    "test_images_of",
    "train",
]
