"""Low-rank augmentation as a native transform of other libraries, each an optional install.

`rankwise.lowrank.adapters.albumentations`, `.kornia`, `.keras` and `.torchvision` each offer one
class, ``RandomLowRank``. Importing one of them without its library raises
`rankwise.errors.MissingDependencyError`, which says what to install.
"""
