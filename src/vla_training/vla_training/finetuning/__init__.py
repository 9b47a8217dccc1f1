"""A bundle and a folder of new demonstrations in, a training file by rules of thumb out; for the command `finetune`."""
