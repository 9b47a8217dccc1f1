"""Puts this folder on the import path, so that tests in folders below find policies.py and guarding.py too."""
