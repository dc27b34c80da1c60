"""Reports of a run, of a comparison and of a training: self-contained HTML for clinicians and researchers, offline."""
