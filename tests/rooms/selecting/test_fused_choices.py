"""Units that a kernel scores and chooses at once are those of the passes over strips, bit for bit."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import attndsl
from attndsl import backends
from attndsl.backends import protocol
from attndsl.backends.launching import Launch
from attndsl.backends.triton import INTERPRETED

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="these run in Triton's interpreter")

PROGRAMS = {
    "past blocks": "dot(q, mean(k)) where block < q // 8 take top 3",
    "kept ones, scaled": (
        "scale * dot(q, mean(k)) where block.start <= q keeping block < 1 or block == q // 8 take top 4"
    ),
    "largest keys": "dot(max(k), q) where block.end <= q + 1 take top 2",
}


def program(rest: str) -> str:
    return f"select near over blocks(8) = {rest}\npattern p = k <= q and k in near[q]"


def tensors(q_len: int = 20, k_len: int = 45) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys that repeat, that are zero, and that are no numbers."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 2, q_len, 16), torch.randn(1, 1, k_len, 16)
    k[:, :, 8:16], k[:, :, 16:24] = k[:, :, :8], 0.0
    k[:, :, 27, 3], q[:, 0, 5] = torch.nan, 0.0
    return q, k


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes the CPU for a GPU, and notes what is launched."""
    found, original = list[str](), Launch.__init__

    def noted(self, kernel, *given, **options) -> None:
        found.append(kernel.__name__)
        original(self, kernel, *given, **options)

    monkeypatch.setattr(protocol, "SCHEDULING", {"cpu", "cuda"})
    monkeypatch.setattr(Launch, "__init__", noted)
    return found


@pytest.mark.parametrize("rest", PROGRAMS.values(), ids=PROGRAMS)
def test_they_are_those_of_the_passes(rest: str, launched: list[str], monkeypatch):
    q, k = tensors()
    p = attndsl.compile(program(rest))
    mine = p.select(q, k)["near"]
    assert launched == ["choose_units"]
    monkeypatch.setattr(protocol, "SCHEDULING", {"cuda"})
    assert torch.equal(mine, p.select(q, k)["near"])


def test_a_choice_and_its_attention_read_nothing_to_the_host(launched: list[str], monkeypatch):
    """Fake tensors hold nothing: whatever looks at a value, or makes a shape of one, fails."""
    monkeypatch.setattr(Launch, "__call__", lambda self, call: None)
    p = attndsl.compile("select_moba", b=8, n=3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        q, k = torch.empty(1, 2, 40, 16), torch.empty(1, 1, 40, 16)
        made = p.select(q, k)
    assert made["past_blocks"].shape == (1, 2, 40, 2)
    assert launched == ["choose_units"]


def test_units_that_are_kept_and_find_no_room_are_refused_as_elsewhere(launched: list[str]):
    p = attndsl.compile(program("dot(q, mean(k)) where block < 9 keeping block < 3 take top 2"))
    with pytest.raises(attndsl.AttnDslError, match="takes 2 units, and is to keep 3"):
        p.select(*tensors())
    assert not launched


def test_no_kernel_is_asked_on_cpus():
    assert backends.unit_chooser(torch.device("cpu")) is None
