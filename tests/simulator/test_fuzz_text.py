"""Changed PTX texts, in a process of their own: none ends it, and each ends with what it may.

`python -m tests.simulator.fuzz --help` goes on for longer.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.fuzz import campaign


def test_changed_texts(seed: int) -> None:
    ended = campaign.play("text", seed, count=800)
    assert ended.total() == 800
    # A change may break a text, an instruction, or what the kernel does.
    assert ended["PtxError"] > 100
    assert ended["UnsupportedError"] > 50
    assert ended["out of bounds"] > 10
    assert len(ended) > 8


@pytest.mark.parametrize(
    ("canary", "message"),
    [
        ("abort", "the process died of SIGABRT"),
        ("hang", "the process died of SIGALRM (the case took too long)"),
        ("memory", "MemoryError"),
        ("error", "an error that no user should see: IndexError('map::at')"),
    ],
)
def test_what_a_case_must_not_do_is_found(canary: str, message: str, seed: int) -> None:
    """And told with the text and how to see it again."""
    with pytest.raises(campaign.FindingError) as raised:
        campaign.play("text", seed, count=5, environment={"OPENWEEK_FUZZ_CANARY": canary})
    assert raised.value.case == 3
    told = str(raised.value)
    assert message in told
    assert f"--kinds text --seed {seed} --first 3 --count 1" in told
    _, _, rest = told.partition("the case is kept in ")
    kept = Path(rest.partition(":\n")[0])
    assert kept.read_text(encoding="utf-8").startswith("// case 3\n")
    kept.unlink()


def test_the_command_says_what_it_takes() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.simulator.fuzz", "--help"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    for option in ("--seconds", "--seed", "--kinds", "--first", "--count", "--sanitize"):
        assert option in result.stdout
