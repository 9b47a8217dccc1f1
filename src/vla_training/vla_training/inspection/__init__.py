"""A data set in, what a person should know of it before training out: findings and pictures. For `inspect`."""
