"""A cohort: cases (id, scan, label, mask) found in an HCP, BraTS or BIDS tree, a folder, a glob, a manifest, a file."""
