"""Reports of a training run in, what a person sees out: a line, boards, measurements, pictures, a report. For `train`."""
