"""Networks, codes of people, the experiment directory, and how they are trained."""
