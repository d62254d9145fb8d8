"""The exam a model sits: the prompts' right answers, the judge, and the renders that its drawings are compared with."""

import json

import torch

from captions import Captioner
from classifier import load_classifier, scores
from render import load_sprites, pack, render
from scenes import SIZE, STYLES, Placed, Scene, SceneMaker, load_subjects


class Exam:
    """The prompts' right answers, the judge, and the renders that drawings are compared with."""

    def __init__(self, args, device: str):
        self.device, self.subjects = device, load_subjects(args.data)
        self.number = {s["label"]: i for i, s in enumerate(self.subjects)}
        self.prompts = json.loads(args.prompts.read_text())
        for name in self.prompts:
            self.prompts[name] = self.prompts[name][: args.limit]
        self.judge = load_classifier(args.state / "classifier.pt", device)
        self.sprites = load_sprites(args.data, device)
        scenes = self.held_out(501, args.captions)
        self.captions = [Captioner(self.subjects, 502 + i).describe(s) for i, s in enumerate(scenes)]
        self.reference = self.features(self.rendered(scenes))
        self.other = self.features(self.rendered(self.held_out(503, args.captions)))

    def held_out(self, seed: int, count: int) -> list[Scene]:
        """Those of `count` held-out scenes that are neither cut nor enlarged."""
        return [s for s in SceneMaker(self.subjects, seed).draw_many(count, held=True) if s.original == SIZE]

    def rendered(self, scenes: list[Scene]) -> torch.Tensor:
        return torch.cat([render(pack(scenes[i : i + 64]), self.sprites) for i in range(0, len(scenes), 64)])

    @torch.no_grad()
    def judged(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        outs = [self.judge(part) for part in pictures.split(256)]
        return {name: torch.cat([o[name] for o in outs]) for name in outs[0]}

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.judged(pictures)["features"].double().cpu()

    def mark(self, pictures: torch.Tensor) -> dict[str, float]:
        """Shares of right pictures over the prompts of one subject; the judge's styles against those asked for (rows)."""
        items = self.prompts["lone"]
        column = lambda f: torch.tensor([f(i) for i in items], device=self.device)  # noqa: E731
        judged, style, tint = self.judged(pictures), column(lambda i: i["style"]), column(lambda i: i["tint"])
        right = scores(judged, column(lambda i: self.number[i["subjects"][0]]), style, column(lambda i: i["kind"]),
                       column(lambda i: i["colours"]))
        marks = {name: _share(values) for name, values in right.items()}
        marks["subject_top5_repainted"] = _share(right["subject_top5"][tint >= 0])
        marks["subject_top5_unpainted"] = _share(right["subject_top5"][tint < 0])
        two = style < 2  # flat and 3d are told apart even where flat and cartoon look alike
        marks["style_flat_or_3d"] = _share((judged["style"][:, :2].argmax(1) == style)[two])
        best = judged["style"].argmax(1)
        marks["styles_judged"] = [torch.bincount(best[style == k], minlength=len(STYLES)).tolist() for k in range(len(STYLES))]
        return marks

    def mark_pairs(self, pictures: torch.Tensor) -> dict[str, float]:
        """Each half of a picture of two subjects judged alone; "both": both right and on their own sides."""
        right = []
        for picture, item in zip(pictures, self.prompts["pairs"]):
            side = picture.shape[-1]
            half, low = side // 2, side // 4
            cuts = [(slice(low, low + half), slice(0, half)), (slice(low, low + half), slice(half, side))]
            if item["relation"] == "above":
                cuts = [(b, a) for a, b in cuts]
            crops = torch.stack([picture[:, a, b] for a, b in cuts])
            best = self.judged(torch.nn.functional.interpolate(crops, 256, mode="bilinear"))["subject"].topk(5).indices
            want = torch.tensor([self.number[s] for s in item["subjects"]], device=best.device)
            right.append((best == want[:, None]).any(1))
        right = torch.stack(right).float()
        return {"each_top5": round(right.mean().item(), 4), "both_top5": round(right.prod(1).mean().item(), 4)}

    def scene(self, item: dict) -> Scene:
        """A prompt's own picture, rendered."""
        spots = {1: [(0.5, 0.5)], 2: [(0.25, 0.5), (0.75, 0.5)]}[len(item["subjects"])]
        style = STYLES[item["style"]]
        placed = []
        for label, (x, y) in zip(item["subjects"], spots):
            i = self.number[label]
            x, y = (y, x) if item["relation"] == "above" else (x, y)
            sprite = self.subjects[i]["sprites"].get(style, self.subjects[i]["sprites"]["flat"])
            placed.append(Placed(i, sprite, x, y, 0.71 if len(spots) == 1 else 0.44, item["tint"]))
        return Scene(placed, item["style"], item["kind"], tuple(item["colours"]), seed=item["seed"])


def _share(right: torch.Tensor) -> float | None:
    return round(right.float().mean().item(), 4) if len(right) else None


def frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    """Distance between two Gaussians fitted to features [N, D]."""
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    values = torch.linalg.eigvals(ca @ cb).real.clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + ca.trace() + cb.trace() - 2 * values)
