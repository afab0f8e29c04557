"""What the cosine of two identity vectors means in words; each judge has a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass

from editing.results import Likeness

SAME_PERSON, SIMILAR, SOMEONE_ELSE = "same person", "similar", "someone else"


@dataclass(frozen=True)
class LikenessScale:
    """How to read a judge's cosine.

    Attributes:
        same: of a photo and what was made of it: from here on it is the same person.
        similar: likewise: from here on somebody similar; below, someone else.
        strangers, another_photo: means of photos of two people, and of two photos of one.
        measured: a plain sentence on how these numbers were found.
    """

    same: float
    similar: float
    strangers: float
    another_photo: float
    measured: str

    @property
    def meaning(self) -> str:
        """What the numbers mean, a plain phrase."""
        return (
            f"strangers have about {self.strangers:.1f}, another photo of the same person about "
            f"{self.another_photo:.1f}; a photo and its reconstruction: same person from {self.same:.2f}, similar "
            f"from {self.similar:.2f}"
        )

    def read(self, cosine: float) -> Likeness:
        """Puts a cosine in [−1, 1] into words."""
        word = SAME_PERSON if cosine >= self.same else SIMILAR if cosine >= self.similar else SOMEONE_ELSE
        return Likeness(word, cosine, f"{cosine:.2f} on a scale where {self.meaning}")


# By the name of the judge. The limits of the bundled one were measured on held-out photos and what was made of them
# (weights/identity.md): a reconstruction has the pose and the light of its photo, so it reaches more than another photo
# of the same person does. Measure anew with new weights.
SCALES = {
    "bundled": LikenessScale(
        same=0.55,
        similar=0.4,
        strangers=0.0,
        another_photo=0.7,
        measured="From 0.55 on a recognition network agrees in 19 of 20 cases; 1 in 1,000 strangers reaches 0.40.",
    ),
    # FaceNet's usual limit for one person is a cosine of 0.6.
    "vggface2": LikenessScale(
        same=0.6,
        similar=0.4,
        strangers=0.1,
        another_photo=0.75,
        measured="Its limits are the usual ones of FaceNet; they were not measured here.",
    ),
}
