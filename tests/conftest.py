"""Shapes and dtypes in annotations are checked here, and only here."""

import jaxtyping

jaxtyping.install_import_hook(["rankwise.varpro", "rankwise.lowrank"], "beartype.beartype")
