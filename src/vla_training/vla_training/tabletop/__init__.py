"""The embedded tabletop in, demonstrations and pictures to train its policy on out."""
