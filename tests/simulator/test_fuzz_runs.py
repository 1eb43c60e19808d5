"""Random kernels and random launches, in processes of their own: none ends its process."""

import re
from random import Random

import pytest

from csrc import simulator
from tests.simulator.fuzz import campaign
from tests.simulator.fuzz.kernels import STATEMENTS, random_kernel

# Of how many groups to wait for, only some numbers are there.
_GROUPS = re.compile(r"(wait_group\S*) -?\d+;")


def test_random_kernels(seed: int) -> None:
    ended = campaign.play("runs", seed, count=800)
    assert ended.total() == 800
    # Kernels of this kind come to their end, or do one of many things that none may do.
    assert ended["ran"] > 20
    for hazard in ("out of bounds", "misaligned", "mbarrier misuse", "data race", "uninitialised"):
        assert ended[hazard] > 5, (hazard, ended)
    assert ended["endless"] > 5
    assert ended["UnsupportedError"] < 160, "most random kernels must be ones that can run"


def test_random_launches(seed: int) -> None:
    ended = campaign.play("launches", seed, count=2000)
    assert ended.total() == 2000
    assert ended["ran"] > 100
    assert ended["TypeError"] > 100
    assert ended["ValueError"] > 100


@pytest.mark.parametrize(
    ("kind", "canary", "message"),
    [("runs", "abort", "SIGABRT"), ("launches", "error", "IndexError('map::at')")],
)
def test_what_a_case_must_not_do_is_found(kind: str, canary: str, message: str, seed: int) -> None:
    with pytest.raises(campaign.FindingError, match=f"^{kind} case 3 of seed {seed}: ") as raised:
        campaign.play(kind, seed, count=5, environment={"OPENWEEK_FUZZ_CANARY": canary})
    assert message in str(raised.value)


def test_random_kernels_have_every_statement() -> None:
    """And the simulator knows all of them, whatever the operands are."""
    texts = [random_kernel(Random(number)) for number in range(400)]
    for text in texts:
        known = simulator.load(_GROUPS.sub(r"\1 1;", text))["kernel"]
        assert known.name == "kernel"
    joined = "\n".join(texts)
    for statement in STATEMENTS:
        opcode = re.sub(r"^@!?[%\w{}]+ ", "", statement).split(" ")[0].split("{")[0].rstrip(";")
        assert opcode in joined, opcode
