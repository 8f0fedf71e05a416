"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.saliency_soundness import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Existing maps are complete but not sound: they keep the predicted label's probability, and maps for "
        "wrong labels raise theirs.",
        rule="gradient x input, integrated gradients, and masks without TV at full resolution, means over networks, "
        "95 % intervals over images: upper bound of worst soundness < 0.3 and lower bound of completeness > 0.9",
        paper="earlier evaluations see completeness alone; on ImageNet and CIFAR-10 such maps are not sound",
        judge=rules.judge_existing,
        control=lab.Control(
            statement="random maps are not complete (< 0.7) and more sound (> 0.3); on a classifier with constant "
            "output both are 1 to 1e-6",
            judge=rules.judge_existing_control,
        ),
        unit="worst soundness",
        cells=("maps", "constant"),
    ),
    lab.Claim(
        id="C2",
        statement="TV regularisation and upsampling, each alone and both together, make learned masks sounder: maps "
        "for wrong labels spell them less.",
        rule="against masks with neither, paired over images, all three: lower bound of the difference of worst "
        "soundness > 0, upper bound of the difference of the wrong labels' insertion area < 0",
        paper="TV and upsampling raise soundness at a small cost of completeness, on ImageNet and CIFAR-10",
        judge=rules.judge_regularised,
        control=lab.Control(
            statement="with their pixels shuffled, masks are less complete than half-way from random to learned ones, "
            "and TV with upsampling gains no soundness",
            judge=rules.judge_regularised_control,
        ),
        unit="worst soundness",
        cells=("maps", "shuffled"),
    ),
    lab.Claim(
        id="C3",
        statement="Simple masks are competitive: one of them is more complete than |gradient| and sounder than "
        "integrated gradients.",
        rule="of the four masks, that whose nearer bound is cleared by most: lower bounds, paired over images, of "
        "completeness less that of |gradient| > 0, and of worst soundness less that of integrated gradients > 0",
        paper="the simple method matches or outperforms earlier ones in completeness and soundness",
        judge=rules.judge_competitive,
        control=lab.Control(
            statement="masks of untrained networks: insertion areas at the true label and at others within 0.1",
            judge=rules.judge_competitive_control,
        ),
        unit="completeness",
        cells=("maps", "untrained"),
    ),
    lab.Claim(
        id="C4",
        statement="The insertion area can be gamed: methods rank otherwise by it than by soundness, and a map that "
        "spells any label raises it.",
        rule="95 % upper bound of Spearman's correlation over methods, random maps left out, between insertion area at "
        "the predicted label and worst soundness < 0; lower bound of the wrong labels' insertion area of greedy maps "
        "less that of gradient x input > 0",
        paper="keeping the highest-ranked pixels tests completeness and ignores soundness",
        judge=rules.judge_ranking,
        control=lab.Control(
            statement="the same correlation between insertion area and completeness is above 0",
            judge=rules.judge_ranking_control,
        ),
        unit="Spearman correlation",
        cells=("maps",),
    ),
]
