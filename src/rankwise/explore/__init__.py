"""What a run says of its images, as data and as one page: what went wrong, and what next.

`rankwise.explore.seen` is what a model makes of images, `scores` how good that is, `faults` what
is odd about the images and their labels, `reasons` why a model says what it says; `lists` writes
what was found as CSV, `page` shows all of it.
"""
