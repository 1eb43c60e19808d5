"""Which backends the tests of deepgemm have."""

import pytest

from tests.conftest import Backend


@pytest.fixture(scope="module")
def backend(backend: Backend, request: pytest.FixtureRequest) -> Backend:
    """All of them in modules that say HAS_KERNEL = True."""
    if backend.name != "cpu" and not getattr(request.module, "HAS_KERNEL", False):
        pytest.skip(f"{backend.name} (the kernel of this op is not built yet)")
    return backend
