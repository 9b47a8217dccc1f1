"""Puts this folder on the import path, so that tests in folders below find policies.py and guarding.py too."""

import pytest

pytest.register_assert_rewrite("guarding")  # its asserts say what they got, as those of tests do
