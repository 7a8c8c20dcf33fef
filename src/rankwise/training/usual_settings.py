"""PyTorch as training expects it, whatever the process around it has set for itself.

Types of tensors are given wherever they are made, so a default type has no say. What is left are
inference mode, switched-off gradients, autocast and a default device, which PyTorch's own
optimisers use. All four are a thread's own, and are as they were afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def usual_settings() -> Iterator[None]:
    """Gradients are taken, and tensors lie on the CPU unless said otherwise, in this thread.

    PyTorch isn't loaded for it: where it isn't, nobody has set anything.
    """
    torch = sys.modules.get("torch")
    with ExitStack() as settings:
        if torch is not None:
            settings.enter_context(torch.inference_mode(False))
            settings.enter_context(torch.enable_grad())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    settings.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type != "cpu":
                settings.enter_context(torch.device("cpu"))
        yield
