"""The student of the fortunes: the mean of its words' embeddings, then a hidden layer (as fastText, Joulin 2017)."""

from torch import nn


class BagOfWords(nn.Module):
    """Numbers of words (B, L) int64, 0 where there is none, to logits (B, C)."""

    def __init__(self, num_classes, words=1 << 14, width=64):
        super().__init__()
        self.embedding = nn.EmbeddingBag(words, width, mode="mean", padding_idx=0)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, inputs):
        return self.classifier(self.dropout(self.embedding(inputs)))
