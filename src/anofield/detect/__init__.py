"""One scan in, a detection out; thresholds from healthy people; a cohort into a run folder."""
