"""Detection in one scan or in a cohort, and calibration of its thresholds on healthy subjects."""
