"""Figures 13 and 14: t-SNE of query and latent codes, and how similar the codes of different parts are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from memorygan.analysis import charts
from memorygan.analysis.blocks import Piece, Table, Text
from memorygan.analysis.lab import Lab
from memorygan.analysis.study import Study

# t-SNE of all codes of more faces only gets slower.
TSNE_FACES = 150


def cosine_matrices(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over faces of cos(c_i, c_j), for all pairs of slots of one face.

    Args:
        codes: (N, S, Q).

    Returns:
        (S, S) float64 mean, and population standard deviation.
    """
    units = (torch.nn.functional.normalize(some.double().cpu(), dim=-1) for some in codes.split(512))
    cosine = torch.cat([unit @ unit.transpose(1, 2) for unit in units])
    return cosine.mean(dim=0), cosine.std(dim=0, correction=0)


def tsne(codes: np.ndarray, seed: int) -> np.ndarray:
    """(N, Q) codes → (N, 2) by t-SNE, started from the principal components."""
    from sklearn.manifold import TSNE  # slow to import, and only wanted here

    perplexity = min(30.0, max(1.0, (len(codes) - 1) / 3))
    embedded = TSNE(init="pca", random_state=seed, perplexity=perplexity).fit_transform(codes)
    return np.asarray(embedded, dtype=np.float64)


@torch.no_grad()
def sample_codes(lab: Lab, samples: int) -> tuple[Tensor, Tensor]:
    """Query codes (N, 1 + K, Q) and latent codes (N, 1 + K, D) of untruncated faces; slot 0 is the base.

    Raises:
        StudyUnavailable: for a generator without a controller.
    """
    generator = lab.memorygan
    queries, latents = [], []
    for seeds in lab.seeds(samples, "codes"):
        codes = generator.sample_queries(seeds, lab.settings.temperature).codes
        queries.append(codes.cpu())
        latents.append(generator.map(codes).w.cpu())
    return torch.cat(queries), torch.cat(latents)


def run(lab: Lab, samples: int) -> Piece:
    """t-SNE of a few faces' codes, and cosine matrices of all."""
    queries, latents = sample_codes(lab, samples)
    names = ["base", *lab.parts.names]
    count = min(TSNE_FACES, samples)
    labels = np.tile(np.arange(len(names)), count)
    clouds = {
        "query codes q": tsne(queries[:count].flatten(0, 1).numpy(), lab.settings.seed),
        "latent codes w": tsne(latents[:count].flatten(0, 1).numpy(), lab.settings.seed),
    }
    of_tsne, footer = lab.footer(count, 1.0), lab.footer(samples, 1.0)
    figures = [
        lab.save(
            charts.scatters(clouds, labels, names, lab.parts, of_tsne),
            "tsne.png",
            "t-SNE of the codes of all parts; every point is one part of one face",
            of_tsne,
        )
    ]
    numbers: dict[str, float] = {}
    rows = []
    between = ~np.eye(len(names), dtype=bool)
    for kind, codes in (("query", queries), ("latent", latents)):
        mean, std = (matrix.numpy() for matrix in cosine_matrices(codes))
        numbers[f"{kind}_cosine"] = float(mean[between].mean())
        numbers[f"{kind}_cosine_std"] = float(std[between].mean())
        rows.append(
            (
                f"{kind} codes",
                f"{mean[between].mean():.3f}",
                f"{mean[between].min():.3f}",
                f"{mean[between].max():.3f}",
                f"{std[between].mean():.3f}",
            )
        )
        picture = charts.matrices({"mean": mean, "standard deviation": std}, names, footer)
        figures.append(
            lab.save(picture, f"cosine-{kind}.png", f"Cosine similarity of the {kind} codes of one face", footer)
        )
    columns = ("codes", "mean similarity of two parts", "smallest", "largest", "mean std")
    return Piece(
        (
            figures[0],
            Text(
                "Parts that form clusters of their own are told apart by their codes alone: nothing else tells the "
                "shared memory which part to make."
            ),
            *figures[1:],
            Table(columns, tuple(rows), f"Similarity between the codes of different parts of one face ({footer})."),
        ),
        numbers,
    )


STUDY = Study("latent-space", "Query and latent codes", "Figures 13 and 14", run, samples=10_000, paper_samples=10_000)
