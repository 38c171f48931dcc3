"""Asserts in the shared suite are shown as fully as those in test files."""

import pytest

pytest.register_assert_rewrite("tests.store.conformance")
