"""Learning from a trained network: the teacher, what is compared with it, and by which distance."""
