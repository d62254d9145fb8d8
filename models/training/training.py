"""What the three training loops share: a clock that sets the learning rate, averaged weights, and checkpoints."""

import copy
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch


def device_name() -> str:
    """"cuda" or "cpu"; on a GPU, lets cuDNN choose its algorithms by trial."""
    torch.backends.cudnn.benchmark = True
    return "cuda" if torch.cuda.is_available() else "cpu"


def compiled(module):
    """The module compiled for speed where there is a GPU."""
    return torch.compile(module) if torch.cuda.is_available() else module


class Clock:
    """Progress of a run that is given some minutes, over several starts; the learning rate warms up, then falls to zero."""

    def __init__(self, minutes: float, spent: float = 0.0):
        self.total, self.spent, self.start = minutes * 60, spent, time.monotonic()

    def elapsed(self) -> float:
        return self.spent + time.monotonic() - self.start

    def progress(self) -> float:
        return min(1.0, self.elapsed() / self.total)

    def rate(self, peak: float, step: int, warmup: int) -> float:
        return peak * min(1.0, (step + 1) / warmup) * (1 - self.progress())


class Average:
    """Exponentially averaged weights of some modules."""

    def __init__(self, modules: list[torch.nn.Module], decay: float):
        self.live = [p for m in modules for p in m.parameters()]
        self.modules = [copy.deepcopy(m).eval().requires_grad_(False) for m in modules]
        self.mean = [p for m in self.modules for p in m.parameters()]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.live], 1 - decay)


def optimizer(modules: list[torch.nn.Module], decay: float) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices alone."""
    parameters = [p for m in modules for p in m.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=torch.cuda.is_available())


def step_optimizer(opt: torch.optim.Optimizer, loss: torch.Tensor, rate: float, clip: float = 1.0) -> None:
    opt.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for g in opt.param_groups for p in g["params"]], clip, foreach=True)
    for group in opt.param_groups:
        group["lr"] = rate
    opt.step()


def save(path: Path, **state) -> None:
    """A checkpoint, never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


@dataclass
class Run:
    """A training under way: its modules by name, their averages in the same order, optimizer, clock and steps made."""

    modules: dict[str, torch.nn.Module]
    average: Average
    opt: torch.optim.Optimizer
    clock: Clock
    step: int = 0

    @classmethod
    def start(cls, modules: dict[str, torch.nn.Module], minutes: float, decay: float = 0.0) -> "Run":
        parts = list(modules.values())
        return cls(modules, Average(parts, 0.999), optimizer(parts, decay), Clock(minutes))

    def resume(self, path: Path, device: str) -> None:
        """Goes on from a checkpoint, if there is one."""
        if not path.exists():
            return
        saved = torch.load(path, map_location=device, weights_only=False)
        for module, mean, name in zip(self.modules.values(), self.average.modules, self.modules):
            module.load_state_dict(saved["live"][name])
            mean.load_state_dict(saved["mean"][name])
        self.opt.load_state_dict(saved["opt"])
        self.step, self.clock.spent = saved["step"], saved["spent"]

    def averages(self) -> dict[str, dict]:
        return {name: mean.state_dict() for name, mean in zip(self.modules, self.average.modules)}

    def save(self, path: Path) -> None:
        live = {name: module.state_dict() for name, module in self.modules.items()}
        save(path, live=live, mean=self.averages(), opt=self.opt.state_dict(), step=self.step, spent=self.clock.elapsed())

    def advance(self, loss: torch.Tensor, peak: float, warmup: int) -> None:
        """One optimizer step."""
        step_optimizer(self.opt, loss, self.clock.rate(peak, self.step, warmup))
        self.average.update(self.step)
        self.step += 1


def save_halved(path: Path, modules: dict[str, dict], **more) -> None:
    """Averaged weights alone, in half precision: what export.py needs."""
    half = lambda state: {k: v.cpu().half() if v.is_floating_point() else v.cpu() for k, v in state.items()}  # noqa: E731
    save(path, **{name: half(state) for name, state in modules.items()}, **more)


def log(**values) -> None:
    print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}), flush=True)
