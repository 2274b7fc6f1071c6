"""A site's explanations, made up: images, a volume among them, or rows of a table."""

from __future__ import annotations

import numpy as np

from medfed.core.examples import Split
from medfed.evaluate.explained import Explained, Group, Method, Reason, SiteExplanation, Whose


def one(number: int, group: Group, *, image: bool) -> Explained:
    rng = np.random.default_rng(number)
    shape = ((1, 24, 24), (3, 20, 30), (1, 6, 16, 16))[number % 3] if image else (4,)
    features = rng.normal(size=shape).astype(np.float32)
    return Explained(
        name=f"{'image' if image else 'row'} {number + 1}",
        group=group,
        true="healthy",
        predicted="ill",
        probability=0.91,
        loss=2.4,
        features=features,
        cam=np.abs(features[0]) if image else None,
        attributions=features,
        missing=-0.012,
        reasons=() if image else (Reason("age", 61.0, -0.42), Reason("chol", 240.5, 0.31)),
    )


def site(*, image: bool) -> SiteExplanation:
    groups = (Group.WORST, Group.CONFIDENT, Group.UNCERTAIN)
    return SiteExplanation(
        task="heart",
        model="cnn" if image else "logistic",
        site="North <b>",
        split=Split.TEST,
        methods=tuple(Method) if image else (Method.IG,),
        image=image,
        rows=40,
        importance={} if image else {"age": 0.4, "chol": 0.3, "a very long name of a column indeed": 0.1},
        averaged=40,
        explained=tuple(one(i, group, image=image) for i, group in enumerate(groups)),
        whose=tuple(
            Whose(f"{'image' if image else 'row'} {i + 1}", f"=PATIENT-{i}", f"ward/{i}.png") for i in range(3)
        ),
    )
