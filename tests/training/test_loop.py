"""The training loop: it learns, it resumes exactly, it refuses bad configurations with a line."""

import itertools
import signal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from markovgen_app.errors import UserError
from markovgen_app.training.loop import LoopConfig, Trainer, learning_rate_factor, read_config, update_average
from markovgen_app.training.muon import Muon, orthogonalised


def make(tmp_path, minutes):
    torch.manual_seed(0)
    config = LoopConfig(name="x", minutes=minutes, runs=tmp_path, warmup_steps=1, log_every=1000, cooldown=0)
    model = nn.Linear(4, 1)
    return Trainer(config, model, [torch.optim.AdamW(model.parameters(), 0.05)])


def batches(first):
    for number in itertools.count(first):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
        yield x, x.sum(dim=1, keepdim=True)


def run(trainer, steps):
    def loss(batch, step):
        if trainer.step + 1 == steps:
            trainer._on_signal()
        value = (trainer.module(batch[0]) - batch[1]).square().mean()
        return value, {"loss": value.detach()}

    trainer.fit(batches(trainer.step), loss)
    return trainer


def test_it_learns(tmp_path):
    trainer = run(make(tmp_path, 1), 300)
    x, y = next(batches(10_000))
    assert (trainer.module(x) - y).square().mean() < 0.05


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path):
    whole = run(make(tmp_path / "a", 1), 40)
    run(make(tmp_path / "b", 1), 20)
    second = make(tmp_path / "b", 1)
    assert second.resume() and second.step == 20
    run(second, 40)
    for one, other in zip(whole.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_saves_first(tmp_path, number):
    before = signal.getsignal(number)
    trainer = make(tmp_path, 1)

    def loss(batch, step):
        if trainer.step == 6:
            signal.raise_signal(number)
        value = (trainer.module(batch[0]) - batch[1]).square().mean()
        return value, {"loss": value.detach()}

    trainer.fit(batches(0), loss)
    assert load_file(trainer.path)["step"] == 7
    assert signal.getsignal(number) is before


def test_a_second_interrupt_ends_at_once(tmp_path):
    trainer = make(tmp_path, 1)

    def loss(batch, step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("never comes here")

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batches(0), loss)


def test_nothing_to_resume(tmp_path):
    assert not make(tmp_path, 1).resume()


def test_a_damaged_checkpoint_is_told(tmp_path):
    trainer = run(make(tmp_path, 1), 3)
    trainer.path.write_bytes(trainer.path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"state\.safetensors is damaged .*: delete it, and the run begins anew"):
        make(tmp_path, 1).resume()


def test_a_checkpoint_of_other_sizes_is_told(tmp_path):
    run(make(tmp_path, 1), 3)
    trainer = make(tmp_path, 1)
    trainer.module = nn.Linear(5, 1)
    with pytest.raises(UserError, match="its configuration names other sizes now"):
        trainer.resume()


def test_nothing_is_lost_on_a_full_disk(tmp_path, monkeypatch):
    trainer = run(make(tmp_path, 1), 3)

    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("markovgen_app.tensor_files.save_file", full)
    with pytest.raises(UserError, match=r"The disk of .* is full"):
        trainer.save()
    assert make(tmp_path, 1).resume()
    assert len(list(trainer.path.parent.iterdir())) == 1, "no half of a file stays"


def test_learning_rate_warms_up_stays_and_cools_down():
    assert learning_rate_factor(0, 0, 100, 0.2) == pytest.approx(0.01)
    assert learning_rate_factor(500, 0.5, 100, 0.2) == 1
    assert learning_rate_factor(900, 0.9, 100, 0.2) == pytest.approx(0.5)
    assert learning_rate_factor(999, 1.0, 100, 0.2) == 0


def test_average_follows_the_weights():
    model, average = nn.Linear(2, 2), nn.Linear(2, 2)
    for step in range(200):
        update_average(average, model, 0.9, step)
    assert torch.allclose(average.weight, model.weight, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 16, 4), (1, 4, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
    assert values.min() > 0.4 and values.max() < 1.4


def test_muon_takes_kernels_as_matrices():
    torch.manual_seed(0)
    kernel = torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    matrix = kernel.detach().flatten(1).contiguous().requires_grad_()
    for parameter in (kernel, matrix):
        optimizer = Muon([parameter], 0.05)
        for _ in range(3):
            (parameter.flatten(1).sin() * torch.arange(36)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.allclose(kernel.flatten(1), matrix, atol=1e-6)


def test_muon_minimises_a_quadratic():
    torch.manual_seed(0)
    target, weight = torch.randn(6, 4), nn.Parameter(torch.zeros(6, 4))
    optimizer = Muon([weight], 0.05, weight_decay=0)
    for _ in range(300):
        loss = (weight - target).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert (weight - target).abs().max() < 0.3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x", "minutes"),
        ("name: x\nminutes: 1\nspeed: 3", "speed"),
        ("name: x\nminutes: -1", "minutes"),
        ("{", "not valid YAML"),
        ("name: x\nminutes: 1\nmixed_precision: fp16", "mixed_precision: Input should be 'no' or 'bf16'"),
    ],
)
def test_bad_configurations_are_named(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_config(tmp_path / "c.yaml", LoopConfig)


def test_missing_configuration(tmp_path):
    with pytest.raises(UserError, match="no configuration file"):
        read_config(tmp_path / "none.yaml", LoopConfig)
