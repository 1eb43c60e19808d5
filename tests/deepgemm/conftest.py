"""Which backends the tests of deepgemm have."""

import pytest

from tests.conftest import Backend


@pytest.fixture(scope="module")
def backend(backend: Backend) -> Backend:
    if backend.name != "cpu":
        pytest.skip(f"{backend.name} (the kernels of deepgemm are not built yet)")
    return backend
