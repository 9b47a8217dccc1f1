"""Reports of a training run in, what a person sees of it out: a line, boards, measurements, a report. For `train`."""
