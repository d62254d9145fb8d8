"""Trains the byte pair vocabulary on captions: `python vocabulary.py --data data --out data`.

Same rules as CLIP's tokenizer, 2,000 tokens; encoder 1 pads with the end token, encoder 2 with "!" (id 0), as SDXL's do.
"""

import argparse
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Regex
from transformers import CLIPTokenizer

from captions import Captioner
from scenes import SceneMaker, load_subjects

SIZE = 2000
LENGTH = 77
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def byte_alphabet() -> list[str]:
    """CLIP's order of the 256 byte characters: "!" comes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [chr(256 + i) for i in range(256 - len(printable))]
    return [chr(b) for b in printable] + others


def learn_merges(texts: list[str]) -> list[tuple[str, str]]:
    """As many merges as make SIZE tokens with the 512 byte tokens and the two special ones."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=EOS))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=SIZE * 2, end_of_word_suffix="</w>", initial_alphabet=byte_alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(m) for m in merges][: SIZE - 512 - 2]


def save_tokenizers(texts: list[str], out: Path) -> None:
    """Writes out/tokenizer and out/tokenizer_2."""
    merges = learn_merges(texts)
    alphabet = byte_alphabet()
    tokens = alphabet + [c + "</w>" for c in alphabet] + ["".join(m) for m in merges] + [BOS, EOS]
    vocab = {token: i for i, token in enumerate(tokens)}
    assert len(vocab) == len(tokens) == SIZE
    for folder, pad in (("tokenizer", EOS), ("tokenizer_2", "!")):
        tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=LENGTH)
        tokenizer.save_pretrained(out / folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("data"))
    args = parser.parse_args()
    subjects = load_subjects(args.data)
    scenes = SceneMaker(subjects, 11).draw_many(60_000)
    captioner = Captioner(subjects, 12)
    texts = [captioner.describe(scene) for scene in scenes]
    for subject in subjects:  # every word that can ever be said, at least a few times
        texts += [subject["label"], *subject["everyday"], *subject["tags"]] * 4
    save_tokenizers(texts, args.out)
    tokenizer = CLIPTokenizer.from_pretrained(args.out / "tokenizer")
    lengths = [len(ids) for ids in tokenizer(texts[:5000])["input_ids"]]
    print(f"{len(tokenizer)} tokens; captions are {sum(lengths) / len(lengths):.1f} tokens long on average, {max(lengths)} at most")


if __name__ == "__main__":
    main()
