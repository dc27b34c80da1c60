"""Networks, codes of subjects, the experiment directory, and how they are trained."""
