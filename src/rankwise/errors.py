"""The exceptions that rankwise raises on purpose: one clear sentence each, for people."""


class RankwiseError(Exception):
    """Base of the errors that the command line prints as one sentence, without a traceback."""


class DataError(RankwiseError, ValueError):
    """A data source that can't be read: what was wrong, what is accepted, which file."""


class DataWarning(UserWarning):
    """Something about data that was decided for the user, or that looks wrong."""


class ModelFileError(RankwiseError, ValueError):
    """A saved model that is damaged, foreign, or of another version."""


class RunError(RankwiseError, RuntimeError):
    """A run that can't go on, such as a folder that holds another run."""


class MissingDependencyError(RankwiseError, ImportError):
    """An optional library that isn't installed; the message says what to install."""
