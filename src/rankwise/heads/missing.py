"""What a head lacks that was saved without its backbone, and how it gets it."""

from __future__ import annotations

from typing import Any


def missing_backbone(head: Any) -> str | None:
    """One sentence; None where the head has its backbone, or was fitted on features.

    Parameters
    ----------
    head : VarProHead
    """
    known = getattr(head, "backbone_reference_", None)
    if known is None or head.backbone is not None:
        return None
    why = "which nothing calls unasked" if "load" in known else "which no file could hold"
    return (
        f"the head was saved without its backbone, {known['name']}, {why}; "
        "load_head(folder, backbone=...) takes it, and on the command line --backbone"
    )
