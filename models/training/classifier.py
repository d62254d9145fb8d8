"""The judge: a small residual network that names a picture's subject, style, background kind and colours."""

from pathlib import Path

import torch
import torch.nn.functional as F

from palette import BACKGROUND_NAMES
from scenes import KINDS, STYLES

SIDE = 128  # pictures are judged at this size
WIDTHS = (48, 96, 192, 320)


class Block(torch.nn.Module):
    def __init__(self, a: int, b: int, stride: int):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(a, b, 3, stride, 1, bias=False)
        self.conv2 = torch.nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = torch.nn.BatchNorm2d(b), torch.nn.BatchNorm2d(b)
        self.skip = torch.nn.Conv2d(a, b, 1, stride, bias=False) if stride > 1 or a != b else torch.nn.Identity()

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.skip(x))


class Classifier(torch.nn.Module):
    """[B, 3, any, any] in -1..1 -> logits of each head, and the pooled features."""

    def __init__(self, subjects: int):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, WIDTHS[0], 5, 2, 2, bias=False)
        self.norm = torch.nn.BatchNorm2d(WIDTHS[0])
        pairs = zip((WIDTHS[0], *WIDTHS[:-1]), WIDTHS)
        self.blocks = torch.nn.Sequential(*[Block(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(pairs)])
        self.subject = torch.nn.Linear(WIDTHS[-1], subjects)
        self.style = torch.nn.Linear(WIDTHS[-1], len(STYLES))
        self.kind = torch.nn.Linear(WIDTHS[-1], len(KINDS))
        self.colours = torch.nn.Linear(WIDTHS[-1], len(BACKGROUND_NAMES))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if x.shape[-1] > SIDE:
            x = F.interpolate(x, SIDE, mode="area")
        f = self.blocks(F.relu(self.norm(self.stem(x)))).float().mean((2, 3))
        return {"features": f, "subject": self.subject(f), "style": self.style(f), "kind": self.kind(f), "colours": self.colours(f)}


def load_classifier(path: Path, device: str) -> Classifier:
    state = {k: v.float() if v.is_floating_point() else v for k, v in torch.load(path, map_location=device).items()}
    model = Classifier(state["subject.weight"].shape[0]).to(device)
    model.load_state_dict(state)
    return model.eval()


def scores(out: dict, subject: torch.Tensor, style: torch.Tensor, kind: torch.Tensor, colours: torch.Tensor) -> dict[str, torch.Tensor]:
    """For each picture whether each property is right. A background of two colours is right if both are the two best."""
    best = out["subject"].topk(5).indices
    ranked = out["colours"].topk(2).indices
    plain = ranked[:, 0] == colours[:, 0]
    both = (ranked.sort(1).values == colours.sort(1).values).all(1)
    return {
        "subject_top1": best[:, 0] == subject,
        "subject_top5": (best == subject[:, None]).any(1),
        "style": out["style"].argmax(1) == style,
        "kind": out["kind"].argmax(1) == kind,
        "colour": torch.where(kind == 0, plain, both),
    }
