"""Beyond the paper."""

STUDY_FIGURES = ()
